"""Behaviour cloning on RLlib: a script plays, the policy learns to say what it said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.core.learner.learner import Learner
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import ENV_RUNNER_SAMPLING_TIMER, LEARNER_UPDATE_TIMER, TIMERS

from proxmo_rllib.algorithm import ProxMO
from proxmo_rllib.config import ProxMOConfig
from proxmo_rllib.evaluation.panels import PanelResult


class BehaviourCloningConfig(ProxMOConfig):
    """ProxMO's config, with a script to imitate in the place of advantages."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or BehaviourCloning)
        self.script: Callable[..., Any] | None = None
        self.observation_weight = 0.4
        self.group_size = 1
        self.num_groups = 512
        self.num_minibatches = 16
        self.lr = 2e-3
        self._known_keys = frozenset(vars(self)) | {"_known_keys"}

    def imitation(self, *, script: Callable[..., Any] = NotProvided, observation_weight: float = NotProvided) -> Self:
        """Sets what is imitated.

        Args:
            script: makes the program that plays from a `random.Random`: a class or function of a module, so that
                other processes find it. See `proxmo_rllib.rollouts.agents.Script`.
            observation_weight: weight in the loss of a token that the environment said, beside 1 of an action's.
        """
        return self._set(script=script, observation_weight=observation_weight)

    @override(ProxMOConfig)
    def get_default_learner_class(self) -> type[Learner]:
        from proxmo_rllib.imitation.learner import BehaviourCloningLearner

        return BehaviourCloningLearner

    @override(ProxMOConfig)
    def _validate_training(self) -> None:
        if self.script is None:
            self._fail("script", None, "give the program to imitate with .imitation(script=...).")
        if not self.observation_weight >= 0:
            self._fail("observation_weight", self.observation_weight, "it is a number of at least 0.")


class BehaviourCloning(ProxMO):
    """Plays with a script and clones it. The engines are used, and get the weights, for evaluation only."""

    config: BehaviourCloningConfig

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> BehaviourCloningConfig:
        return BehaviourCloningConfig()

    @override(ProxMO)
    def training_step(self) -> None:
        """One iteration: play demonstrations, learn from them."""
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER), reduce="mean", window=1):
            groups = self._sample_groups(script=self.config.script)
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER), reduce="mean", window=1):
            self._learn(groups)

    @override(ProxMO)
    def evaluate_panel(self, script: Any = None) -> PanelResult:
        self._transfer_weights()
        return super().evaluate_panel(script)

"""Behaviour cloning on RLlib: a script plays, the policy learns to say what it said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.learner.learner import Learner
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import ENV_RUNNER_SAMPLING_TIMER, LEARNER_UPDATE_TIMER, TIMERS

from proxmo_rllib.algorithm import ProxMO
from proxmo_rllib.config import ProxMOConfig
from proxmo_rllib.evaluation.panels import PanelResult
from proxmo_rllib.rollouts.agents import ScriptFactory
from proxmo_rllib.setters import setter, settings_of


class BehaviourCloningConfig(ProxMOConfig):
    """ProxMO's config, with a script to imitate in the place of advantages."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or BehaviourCloning)
        self.group_size = 1
        self.num_groups = 512
        self.num_minibatches = 16
        self.lr = 2e-3
        self._known_keys = frozenset(vars(self)) | {"_known_keys"}

    @setter
    def imitation(
        self,
        *,
        scripts: Sequence[tuple[int, ScriptFactory]] = (),
        observation_weight: float = 0.4,
        observation_share: float = 1.0,
        learn_empty_thoughts: bool = False,
    ) -> Self:
        """Sets what is imitated.

        Args:
            scripts: who plays, as pairs of the iteration from which on and the script, the first from iteration 0.
                A script is made from a `random.Random` by a class or function of a module, so that other processes
                find it. See `proxmo_rllib.rollouts.agents.Script`.
            observation_weight: weight in the loss of a token that the environment said, beside 1 of an action's.
            observation_share: share of those tokens, drawn at random, that the loss is computed for, 0 to 1. Where
                observations are long and the vocabulary is large, most of the time goes into predicting them.
            learn_empty_thoughts: whether the tags of a thought are learnt where a script thinks nothing. A model that
                can think would unlearn it; one made from nothing has to learn the tags somewhere. A script that says
                what it thinks (its attribute `thought`) is always copied.
        """
        return self

    def script_at(self, iteration: int) -> ScriptFactory:
        """Who plays at an iteration, counted from 0."""
        return next(script for start, script in reversed(self.scripts) if start <= iteration)

    @override(ProxMOConfig)
    def get_default_learner_class(self) -> type[Learner]:
        from proxmo_rllib.imitation.learner import BehaviourCloningLearner

        return BehaviourCloningLearner

    @override(ProxMOConfig)
    def _validate_training(self) -> None:
        starts = [start for start, _ in self.scripts]
        if not starts or starts[0] != 0 or starts != sorted(starts):
            self._fail("scripts", starts, "say who is imitated from iteration 0 on: .imitation(scripts=[(0, Novice)]).")
        if not self.observation_weight >= 0:
            self._fail("observation_weight", self.observation_weight, "it is a number of at least 0.")
        if not 0 <= self.observation_share <= 1:
            self._fail("observation_share", self.observation_share, "it is a share, from 0 to 1.")
        if self.learn_empty_thoughts not in (True, False):
            self._fail("learn_empty_thoughts", self.learn_empty_thoughts, "it is True or False.")

    @override(ProxMOConfig)
    def _validate_curriculum(self) -> None:
        for key, default in settings_of(ProxMOConfig.curriculum).items():
            if getattr(self, key) != default:
                self._fail(
                    key, getattr(self, key), f"a script has nothing to be spared or to learn; leave it at {default!r}."
                )


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
            groups = self._sampling.collect(script=self.config.script_at(self.iteration))
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER), reduce="mean", window=1):
            self._learn(groups)

    @override(ProxMO)
    def evaluate_panel(self, script: Any = None) -> PanelResult:
        self._transfer_weights()
        return super().evaluate_panel(script)

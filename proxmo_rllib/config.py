"""ProxMOConfig: every knob, with its unit, range and cost, validated before any long work starts."""

from __future__ import annotations

import difflib
from abc import ABCMeta
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.annotations import override

from env_wrappers.panels import Panel, find_panel
from proxmo_rllib import quiet
from proxmo_rllib.advantages import ESTIMATORS, Estimator, default_options, validate_options
from proxmo_rllib.config_checks import (
    MAX_KL_TO_ENGINE,
    UNREAD,
    broken_rules,
    sharing_problems,
    unread_settings,
    weight_transfer_problems,
)
from proxmo_rllib.config_records import LearningRate, LoRA, Sharding, read_record
from proxmo_rllib.rollouts.chat_template import TODAY
from proxmo_rllib.setters import default_settings, setter

if TYPE_CHECKING:
    from proxmo_rllib.curriculum import DynamicSampling, Horizon, TaskOrder
    from proxmo_rllib.learner.losses import Correction, Objective
    from proxmo_rllib.registry import Choice, Registry

# Settings of an environment that say where its data lies or how it is played, not what is played.
_DATA_KEYS = ("games", "catalogue", "folder", "engine")


class _Sealed(ABCMeta):
    """Notes a config's settings when it is made: a misspelled one set later is an error, not a new attribute."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        config = super().__call__(*args, **kwargs)
        config._defaults = {key: value for key, value in vars(config).items() if key in UNREAD}
        config._known_keys = frozenset(vars(config)) | {"_known_keys"}
        return config


class ProxMOConfig(AlgorithmConfig, metaclass=_Sealed):
    """Configuration of ProxMO, in RLlib's idiom.

    Examples:
        >>> from proxmo_rllib import ProxMOConfig
        >>> config = (
        ...     ProxMOConfig()
        ...     .environment("env_wrappers/ALFWorld-v0", env_config={"rooms": ("bathroom",)})
        ...     .policy(pretrained="asset:alfworld-tiny")
        ...     .training(group_size=8, num_groups=16, lr=3e-4)
        ... )
        >>> algo = config.build_algo()  # doctest: +SKIP
        >>> algo.train()["env_runners"]["success_rate"]  # doctest: +SKIP
    """

    def __init__(self, algo_class: type | None = None) -> None:
        from proxmo_rllib.algorithm import ProxMO
        from proxmo_rllib.rollouts.env_runner import TextEnvRunner

        quiet.hide_known_noise()  # a script's first step, before RLlib or an engine can say anything
        super().__init__(algo_class=algo_class or ProxMO)
        for key, default in default_settings(type(self)).items():
            setattr(self, key, default)

        # RLlib's own, with our defaults.
        self.env_runner_cls = TextEnvRunner
        self.gamma = 0.95
        self.lr = 1e-6
        self.grad_clip = 1.0
        self.num_epochs = 1
        self.num_env_runners = 1
        self.num_cpus_per_env_runner = 0.5  # with an engine and the learner, two cores carry a run
        self.seed = 0
        self.create_local_env_runner = False
        self.sample_timeout_s = 7200.0
        self.delay_between_env_runner_restarts_s = 0.0
        self.add_default_connectors_to_learner_pipeline = False
        self.add_default_connectors_to_env_to_module_pipeline = False
        self.add_default_connectors_to_module_to_env_pipeline = False
        # Environment runners hold no weights and no connectors: there is nothing to synchronise.
        self._dont_auto_sync_env_runner_states = True

    def __setattr__(self, key: str, value: Any) -> None:
        known = self.__dict__.get("_known_keys")  # not yet there while the config is made
        if known is not None and key not in known and not key.startswith("_") and not hasattr(type(self), key):
            raise AttributeError(self._unknown(key, value))
        super().__setattr__(key, value)

    @setter
    def policy(
        self,
        *,
        pretrained: str | Path | None = None,
        dtype: str = "float32",
        gradient_checkpointing: bool = False,
        lora: Mapping[str, Any] | None = None,
        system_message: str | None = None,
        chat_template_kwargs: Mapping[str, Any] = MappingProxyType({}),
        chat_template_date: str = TODAY,
    ) -> Self:
        """Sets the agent's language model.

        Args:
            pretrained: a Hugging Face causal LM: a folder, a hub name, or `asset:NAME` for one that ships with the
                package (`asset:alfworld-tiny`).
            dtype: "float32" or "bfloat16", of the engine's weights and of the learner's arithmetic. The learner's own
                weights and optimizer state are always float32: steps of 1e-6 vanish in bfloat16. With `lora` that
                holds for the adapters, and the frozen weights are of this type too.
            gradient_checkpointing: recomputes activations in the backward pass: a third more compute, far less memory.
            lora: trains low-rank adapters beside frozen weights, such as `{"rank": 16, "alpha": 32, "target_modules":
                "all-linear"}`; see `config_records.LoRA`. None trains all weights.
            system_message: opens every conversation, if given.
            chat_template_kwargs: variables of the model's chat template, such as `{"enable_thinking": False}` of
                Qwen3's. What the template does not read is an error.
            chat_template_date: the day that a template which prints today's date prints, YYYY-MM-DD. It is never the
                clock's: prompts would change at midnight, and a run that is resumed would see others.
        """
        return self

    @setter
    def inference(
        self,
        *,
        engine: str = "vllm",
        num_engines: int = 1,
        num_cpus_per_engine: float = 0.5,
        num_gpus_per_engine: float = 0,
        enable_sleep_mode: bool = False,
        tensor_parallel_size: int = 1,
        max_model_len: int = 1024,
        max_num_seqs: int = 64,
        max_response_tokens: int = 16,
        temperature: float = 1.0,
        engine_kwargs: Mapping[str, Any] = MappingProxyType({}),
        weight_transfer: str = "object_store",
        engine_startup_timeout_s: float = 600.0,
        weight_check_tolerance: float | None = None,
        max_kl_to_engine: float | None = None,
    ) -> Self:
        """Sets the inference engines.

        Args:
            engine: "vllm", or "transformers" on machines without vLLM (slower).
            num_engines: Ray actors, each with a whole copy of the model.
            num_cpus_per_engine: what Ray reserves, and the engine's threads on a CPU, at least one. Engine and learner
                take turns, so half a core does on a small machine; raise it where an engine has cores of its own.
            num_gpus_per_engine: 1 for a GPU of its own, less for a share of one; of its memory vLLM then takes as much.
            enable_sleep_mode: engines sleep while the learners learn: their weights wait in host memory, their cache is
                let go of, and the new weights wake them. For engines and a learner on one GPU (`num_gpus_per_engine`
                and `num_gpus_per_learner` below 1): the learner then has nearly all of it while it learns. Costs two
                copies of the weights between GPU and host an iteration; see docs/engines.md.
            tensor_parallel_size: processes on one machine among which an engine divides the model, each with as many
                CPUs and GPUs as the two settings above say; for models that one GPU does not hold. vLLM's alone; see
                docs/engines.md.
            max_model_len: tokens of prompt and response at most; an episode that would outgrow it is truncated.
            max_num_seqs: sequences an engine decodes at once.
            max_response_tokens: tokens of one response at most, the stop token included.
            temperature: of training rollouts. The learner applies it too.
            engine_kwargs: passed to vLLM's `AsyncEngineArgs` as they are.
            weight_transfer: how new weights reach the engines. "object_store": through Ray's, a copy a node. "gloo":
                the first learner sends them to all engines at once, from host to host. "nccl": likewise from GPU to
                GPU, each of which has to be a whole one. "ipc": likewise, by memory that learner and engine share, on
                one GPU or, without GPUs, on one machine. The latter two have not yet run on GPUs. See docs/engines.md.
            engine_startup_timeout_s: seconds until a start-up without an answer is an error.
            weight_check_tolerance: after every weight transfer the logprobs of a fixed prompt in each engine may differ
                from the learner's by this much. None: 1e-4 for float32; for bfloat16 three times what rounding does to
                the learner's own, in the mean over the prompt and in the largest, which may be 1 in any case.
            max_kl_to_engine: KL divergence, in nats a token, that engine and learner may have before the first
                optimizer step, when they hold the same weights; a larger one ends the run. None: 1e-5 for float32,
                0.05 for bfloat16.
        """
        return self

    @setter
    def prompting(
        self,
        *,
        context: str = "append",
        template: str = "bare",
        response_style: str = "bare",
        history: int | None = None,
        show_admissible: bool = False,
        invalid_action_penalty: float = 0.0,
    ) -> Self:
        """Sets how observations become prompts and responses become actions.

        Args:
            context: "append": one growing conversation an episode, which an engine's prefix cache and the learner see
                once. "window": a fresh prompt every turn, with the last `history` turns in it.
            template: "bare" (nothing but the observation) or "instructed" (tells what to do and how to answer).
            response_style: "bare" (the response is the action) or "tagged" (`<think>...</think><action>...</action>`).
            history: turns that a window shows; None with an append-only context.
            show_admissible: whether the prompt lists the admissible actions.
            invalid_action_penalty: subtracted from the reward of a turn whose action is invalid, unit of reward. It
                never touches the success rate.
        """
        return self

    @override(AlgorithmConfig)
    @setter
    def env_runners(
        self,
        *,
        split: str = "train",
        max_turns: int = 30,
        max_concurrent_episodes: int = 128,
        **kwargs: Any,
    ) -> Self:
        """Sets the rollouts.

        Args:
            split: of the environment's tasks that training plays.
            max_turns: turns after which an episode is truncated.
            max_concurrent_episodes: episodes that one environment runner plays at once.
            **kwargs: RLlib's own (`num_env_runners`, ...). Groups that have not ended after `sample_timeout_s` seconds
                (7200) are given up and counted; None waits for the slowest, whose every call has a deadline
                (`fault_tolerance`).
        """
        super().env_runners(**kwargs)
        return self

    @override(AlgorithmConfig)
    @setter
    def training(
        self,
        *,
        advantage_estimator: str | Estimator = "proxmo",
        group_size: int = 8,
        num_groups: int = 16,
        psc_alpha: float = 4.0,
        psc_beta: float = 0.1,
        psa_temperature: float = 0.1,
        step_weight: float = 1.0,
        estimator_options: Mapping[str, Any] = MappingProxyType({}),
        num_minibatches: int = 1,
        max_tokens_per_microbatch: int | None = None,
        objective: str | Objective | Mapping[str, Any] = "ppo",
        loss_weighting: str = "token",
        old_logprobs: str | None = None,
        correction: str | Correction | Mapping[str, Any] = "none",
        kl_coef: float = 0.0,
        kl_estimator: str = "k3",
        entropy_coef: float = 0.0,
        weight_decay: float = 0.0,
        lr_schedule: str | Mapping[str, Any] | None = None,
        max_staleness: int = 0,
        **kwargs: Any,
    ) -> Self:
        """Sets the method and its optimisation.

        Args:
            advantage_estimator: a name in `proxmo_rllib.advantages.ESTIMATORS`, or an estimator itself. Of the settings
                below it takes those that it has an option for.
            group_size: episodes of one task from one initial state, at least 2.
            num_groups: groups an iteration.
            psc_alpha: exponent of the success-rate-aware modulation.
            psc_beta: strength of the modulation; 0 switches it off.
            psa_temperature: of the softmax over similarities of the soft baseline; towards 0 only identical states
                are compared, towards infinity all states of the group.
            step_weight: weight (omega) of the step advantage beside the episode advantage.
            estimator_options: further options of the estimator, by name.
            num_minibatches: optimizer steps an epoch over the iteration's sequences.
            max_tokens_per_microbatch: packed tokens of one forward pass; bounds memory, never changes the gradient.
                None: what fits, measured on the model when it is loaded, at most 16,384; the metric
                `learners/default_policy/tokens_per_microbatch` says it.
            objective: a name in `proxmo_rllib.learner.objectives.OBJECTIVES` ("ppo", "gspo", "cispo", "reinforce"), an
                objective itself, or a dictionary of its `name` and options, such as `{"name": "ppo", "clip_low": 0.2,
                "clip_high": 0.28, "dual_clip": 3.0}`.
            loss_weighting: "token": every sampled token counts the same, and so a long episode more than a short one.
                "sequence": every turn counts the same. "episode": every episode counts the same. With a failure three
                times as long as a success it keeps failures from drowning the rest. "dr_grpo": as "token", and the sum
                is divided by a constant, episodes x max_turns x max_response_tokens, instead of by the tokens.
            old_logprobs: what the objective's ratio is divided by. "engine": as sampled. "learner": recomputed before
                the first step, for bfloat16, where the two disagree; costs one more forward pass. None: "learner" with
                a correction, which needs it, and "engine" without.
            correction: of the mismatch between engine and learner, written as `objective` is: "none", "token_tis",
                "sequence_tis", "icepop" or "geometric_mask"; see `proxmo_rllib.learner.corrections`.
            kl_coef: weight of the KL divergence to the initial policy; 0 loads no reference model. With `lora` there is
                none to load: it is the policy without its adapters.
            kl_estimator: of that divergence: "k1", "k2" or "k3"; see `proxmo_rllib.learner.kl`.
            entropy_coef: weight of the entropy bonus.
            weight_decay: of AdamW.
            lr_schedule: how `lr` changes over optimizer steps: "constant", or `{"decay": "cosine", "warmup_steps": 10,
                "total_steps": 500}`; see `config_records.LearningRate`.
            max_staleness: weight updates that a token may be behind when it is learned from. 0: the engines wait while
                the learners learn, and a run is a function of its config. Above 0 episodes are played all the time, and
                responses go on over an update; see docs/asynchrony.md.
            **kwargs: RLlib's own (`lr`, `gamma`, `grad_clip`, `num_epochs`, ...).
        """
        super().training(**kwargs)
        return self

    @setter
    def curriculum(
        self,
        *,
        task_order: str | Callable[..., TaskOrder] | Mapping[str, Any] = "epochs",
        horizon: str | Callable[..., Horizon] | Mapping[str, Any] = "full",
        dynamic_sampling: str | Callable[..., DynamicSampling] | Mapping[str, Any] = "none",
    ) -> Self:
        """Sets which tasks are played, for how many turns, and which groups are learned from; see docs/curriculum.md.

        Args:
            task_order: "epochs" (every task once a pass) or "success_rate" (those too hard or too easy seldom), written
                as `objective` is, such as `{"name": "success_rate", "low": 0.1, "high": 0.9}`.
            horizon: turns of an episode: "full" (`max_turns`), "by_iterations" or "by_success", which start short and
                grow, such as `{"name": "by_iterations", "start": 5, "step": 5, "every": 10}`. The panel has all turns.
            dynamic_sampling: "none" (every group is learned from), "outcome" or "advantage": groups whose episodes all
                came out the same, or without an advantage, are left out, and new ones are played instead, such as
                `{"name": "outcome", "at_most": 3}`; an iteration then takes up to three times as long to play.
        """
        return self

    @override(AlgorithmConfig)
    @setter
    def learners(self, *, sharding: str | Mapping[str, Any] | None = None, **kwargs: Any) -> Self:
        """Sets the learners.

        Args:
            sharding: "fsdp2" divides weights, gradients and optimizer state among the learners, or a dictionary with
                more, such as `{"strategy": "fsdp2", "cpu_offload": True}`; see `config_records.Sharding`. None: each
                learner has all of them.
            **kwargs: RLlib's own (`num_learners`, `num_gpus_per_learner`, ...).
        """
        super().learners(**kwargs)
        return self

    @override(AlgorithmConfig)
    @setter
    def evaluation(
        self,
        *,
        panel: Panel | str | None = None,
        panel_temperature: float = 0.4,
        panel_repeats: int = 1,
        **kwargs: Any,
    ) -> Self:
        """Sets the evaluation on a fixed panel of tasks.

        Args:
            panel: the tasks; all of them are played at each evaluation. A Panel, the name of one of the package's, or
                a JSON file of one; `validate` puts the Panel in the place of a name.
            panel_temperature: sampling temperature of evaluation; 0 is greedy.
            panel_repeats: how often each task is played.
            **kwargs: RLlib's own (`evaluation_interval`, in iterations).
        """
        super().evaluation(**kwargs)
        return self

    @override(AlgorithmConfig)
    @setter
    def fault_tolerance(
        self,
        *,
        env_call_timeout_s: float = 45.0,
        request_timeout_s: float = 600.0,
        silence_timeout_s: float = 30.0,
        weight_transfer_timeout_s: float = 300.0,
        microbatch_timeout_s: float = 1800.0,
        **kwargs: Any,
    ) -> Self:
        """Sets the deadlines after which what is stuck is given up or replaced; all in seconds.

        Args:
            env_call_timeout_s: of an environment's reset or step, whose episode then ends as an error; ten times as
                much to make one. Of an environment that is called directly (`blocking`: False) the whole environment
                runner is replaced.
            request_timeout_s: of a response, queueing included; its group is played again.
            silence_timeout_s: a process of the run without a sign of life for so long is replaced: one that is stopped,
                say, or an engine that neither answers nor computes.
            weight_transfer_timeout_s: for an engine to take new weights, and to score the check's prompt.
            microbatch_timeout_s: of a learner's forward and backward pass; all learners start anew from the last
                iteration.
            **kwargs: RLlib's own.
        """
        super().fault_tolerance(**kwargs)
        return self

    @override(AlgorithmConfig)
    @setter
    def debugging(
        self,
        *,
        record_groups: int = 2,
        log_histograms: bool = False,
        run_folder: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Sets what is kept to look at.

        Args:
            record_groups: groups of each iteration whose episodes go into the run's record as text.
            log_histograms: whether a result has samples of advantages, ratios and lengths; see docs/monitoring.md.
                `proxmo train` and `proxmo tune` set it where W&B or TensorBoard shows them.
            run_folder: where the record is written; None for a new folder in Ray's own place. Ray Tune gives each
                trial its folder, whatever is set here.
            **kwargs: RLlib's own (`seed`, `log_level`, ...).
        """
        super().debugging(**kwargs)
        return self

    @override(AlgorithmConfig)
    def update_from_dict(self, config_dict: dict[str, Any]) -> Self:
        """As RLlib's, but a key that nothing reads is an error instead of a new attribute.

        Raises:
            ValueError: naming the key and the nearest known one.
        """
        # A config that RLlib made from a state, as it does for an algorithm, holds the state's "class" as a setting.
        config_dict = {key: value for key, value in config_dict.items() if key != "class"}
        for key, value in config_dict.items():
            translated = self._translate_special_keys(key, warn_deprecated=False)
            # RLlib hands a property or two around as if they were settings.
            read_only = isinstance(getattr(type(self), translated, None), property)
            if not (key.startswith("__") or translated in self._known_keys or read_only):
                raise ValueError(self._unknown(key, value))
        return super().update_from_dict(config_dict)

    def _unknown(self, key: str, value: Any) -> str:
        near = difflib.get_close_matches(key, sorted(k for k in self._known_keys if not k.startswith("_")), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see the methods of ProxMOConfig for the known ones."
        return f"{key}={value!r}: there is no such setting; {hint}"

    def estimator_settings(self) -> dict[str, Any]:
        """Options of the advantage estimator, as `estimate_advantages` takes them."""
        settings: dict[str, Any] = {
            "gamma": self.gamma,
            "psc_alpha": self.psc_alpha,
            "psc_beta": self.psc_beta,
            "psa_temperature": self.psa_temperature,
            "step_weight": self.step_weight,
        }
        if "psc_range" in self.estimator_options:
            del settings["psc_beta"]  # the same strength in the official scripts' words
        known = default_options(self.advantage_estimator)
        return {key: value for key, value in settings.items() if key in known} | self.estimator_options

    def estimator(self) -> Estimator:
        """The advantage estimator itself."""
        estimator = self.advantage_estimator
        return ESTIMATORS[estimator] if isinstance(estimator, str) else estimator

    def chosen_objective(self) -> Choice[Objective]:
        """The objective, with its options.

        Raises:
            ValueError: there is no such objective, or it does not take an option.
        """
        from proxmo_rllib.learner.objectives import OBJECTIVES

        return OBJECTIVES.choose("objective", self.objective)

    def chosen_correction(self) -> Choice[Correction] | None:
        """The correction, with its options; None for none.

        Raises:
            ValueError: there is no such correction, or it does not take an option.
        """
        from proxmo_rllib.learner.corrections import CORRECTIONS, none

        choice = CORRECTIONS.choose("correction", self.correction)
        return None if choice.function is none else choice

    def old_logprobs_source(self) -> str:
        """Whose logprobs the objective's ratio is divided by: "engine" or "learner"."""
        if self.old_logprobs is not None:
            return self.old_logprobs
        return "engine" if self.chosen_correction() is None else "learner"

    @override(AlgorithmConfig)
    def get_default_rl_module_spec(self) -> RLModuleSpec:
        from proxmo_rllib.learner.module import CausalLMModule

        return RLModuleSpec(module_class=CausalLMModule, model_config=self.module_settings())

    def module_settings(self) -> dict[str, Any]:
        """What the learner's module is built from."""
        return {
            "pretrained": None if self.pretrained is None else str(self.pretrained),
            "dtype": self.dtype,
            "gradient_checkpointing": self.gradient_checkpointing,
            "temperature": self.temperature,
            "with_reference": self.kl_coef > 0,
            "lora": self.lora,
            "seed": self.seed,
            "sharded": self.sharding is not None,
        }

    @override(AlgorithmConfig)
    def get_default_learner_class(self) -> type[Learner]:
        from proxmo_rllib.learner.learner import ProxMOLearner

        return ProxMOLearner

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return self.module_settings()

    @override(AlgorithmConfig)
    def validate(self) -> None:
        """Checks everything that can be checked without loading anything.

        Raises:
            ValueError: naming the setting, its value and the remedy.
        """
        self.panel = self.resolved_panel()
        for problem in broken_rules(vars(self)):
            raise ValueError(problem)
        if not self.in_evaluation:  # RLlib itself changes some of them in the copy for evaluation
            for problem in unread_settings(vars(self), self._defaults):
                raise ValueError(problem)
        if not self.num_env_runners:
            self.create_local_env_runner = True
        super().validate()
        self._validate_rollouts()
        for problem in weight_transfer_problems(self):
            raise ValueError(problem)
        self._validate_training()
        for problem in sharing_problems(vars(self)):
            raise ValueError(problem)
        self._validate_curriculum()
        self._validate_rllib_settings()

    def _validate_rollouts(self) -> None:
        if self.pretrained is None:
            self._fail("pretrained", None, "name a causal LM with .policy(pretrained='folder or hub name').")
        if self.env is None:
            self._fail("env", None, "name an environment with .environment('env_wrappers/ALFWorld-v0').")
        if self.temperature == 0:
            self._fail("temperature", 0, "greedy rollouts have no variance to learn from; use e.g. 1.0.")
        if self.max_response_tokens >= self.max_model_len:
            self._fail(
                "max_response_tokens", self.max_response_tokens, f"it must be below max_model_len={self.max_model_len}."
            )
        if self.context == "append" and self.history is not None:
            self._fail("history", self.history, "an append-only context keeps everything; set context='window'.")
        if self.context == "window" and self.history is None:
            self._fail("history", None, "a window shows that many earlier turns; set e.g. .prompting(history=2).")
        if self.engine == "transformers" and self.engine_kwargs:
            self._fail("engine_kwargs", self.engine_kwargs, "the transformers engine reads none; set engine='vllm'.")
        parts = self.tensor_parallel_size
        if parts > 1 and self.engine == "transformers":
            self._fail(
                "tensor_parallel_size", parts, "the transformers engine does not divide models; set engine='vllm'."
            )
        if parts > 1 and self.num_gpus_per_engine not in (0, 1):
            self._fail(
                "num_gpus_per_engine",
                self.num_gpus_per_engine,
                f"each of the {parts} parts of tensor_parallel_size={parts} needs a whole GPU; set 1, or 0 on CPUs.",
            )
        if self.evaluation_interval and self.panel is None:
            self._fail("panel", None, "evaluation_interval is set: give .evaluation(panel=...) too.")

    def _validate_training(self) -> None:
        if self.max_staleness and not self.num_env_runners and not self.in_evaluation:
            self._fail(
                "max_staleness",
                self.max_staleness,
                "num_env_runners=0 plays in the algorithm's own process, which learns meanwhile; set "
                ".env_runners(num_env_runners=1), or max_staleness=0.",
            )
        if self.group_size < 2:
            self._fail(
                "group_size",
                self.group_size,
                "ProxMO compares the episodes of a group, so it needs at least 2; set it with .training(group_size=8).",
            )
        if self.num_groups < max(1, self.num_learners):
            self._fail(
                "num_groups", self.num_groups, f"every one of the {self.num_learners} learners needs a whole group."
            )
        rate: Any = self.lr
        if self.lr_schedule is not None and not isinstance(rate, (int, float)):
            self._fail("lr_schedule", self.lr_schedule, f"it changes one number, and lr={self.lr!r} is a schedule too.")
        if self.sharding is not None and self.num_learners < 1:
            self._fail(
                "sharding",
                self.sharding,
                f"num_learners={self.num_learners} learns in the algorithm's own process, and there is nobody to share "
                "with; set .learners(num_learners=2), or one for each GPU.",
            )
        if self.sharding is not None and self.lora is not None:
            self._fail("sharding", self.sharding, "adapters (lora) are trained on whole weights; set one of the two.")
        validate_options(self.advantage_estimator, self.estimator_settings())
        self._validate_loss()

    def _validate_loss(self) -> None:
        from proxmo_rllib.learner.corrections import CORRECTIONS
        from proxmo_rllib.learner.loss_checks import check_correction, check_objective
        from proxmo_rllib.learner.objectives import OBJECTIVES

        check_objective(self.chosen_objective())
        correction = self.chosen_correction()
        if correction is not None:
            check_correction(correction)
            if self.old_logprobs == "engine":
                self._fail(
                    "old_logprobs",
                    "engine",
                    f"correction={self.correction!r} compares the engine's logprobs with the learner's; leave it at "
                    "None, or set 'learner'.",
                )
        # Another process may never have heard of a name that a user's script registered.
        registries: dict[str, Registry[Any]] = {
            "advantage_estimator": ESTIMATORS,
            "objective": OBJECTIVES,
            "correction": CORRECTIONS,
        }
        for key, registry in registries.items():
            setattr(self, key, registry.carried(getattr(self, key)))

    def _validate_curriculum(self) -> None:
        from proxmo_rllib.curriculum import DYNAMIC_SAMPLINGS, HORIZONS, TASK_ORDERS
        from proxmo_rllib.curriculum.checks import check_curriculum

        check_curriculum(self)
        # Another process may never have heard of a name that a user's script registered.
        registries: dict[str, Registry[Any]] = {
            "task_order": TASK_ORDERS,
            "horizon": HORIZONS,
            "dynamic_sampling": DYNAMIC_SAMPLINGS,
        }
        for key, registry in registries.items():
            setattr(self, key, registry.carried(getattr(self, key)))

    def _validate_rllib_settings(self) -> None:
        if self.add_default_connectors_to_learner_pipeline:
            self._fail(
                "add_default_connectors_to_learner_pipeline",
                True,
                "RLlib's default connectors cannot read text episodes; set it to False.",
            )
        if self.is_multi_agent:
            self._fail("policies", list(self.policies), "one agent is trained; remove .multi_agent(...).")

    def _fail(self, key: str, value: object, remedy: str) -> None:
        raise ValueError(f"{key}={value!r}: {remedy}")

    def resolved_panel(self) -> Panel | None:
        """The panel itself, where a name is set. Its data lies where the training environment's does.

        Raises:
            ValueError: there is none of that name.
            FileNotFoundError: its data is not there.
        """
        name: object = self.panel
        if not isinstance(name, str):
            return self.panel
        return find_panel(name, **{key: self.env_config[key] for key in _DATA_KEYS if key in self.env_config})

    def kl_to_engine_bound(self) -> float:
        """Largest KL divergence, in nats a token, between engine and learner at the first on-policy step."""
        return MAX_KL_TO_ENGINE[self.dtype] if self.max_kl_to_engine is None else self.max_kl_to_engine

    @property
    def lora_record(self) -> LoRA | None:
        """The adapters that are trained, if any."""
        return read_record(LoRA, "lora", self.lora)

    @property
    def sharding_record(self) -> Sharding | None:
        """How the learners divide the model, if they do."""
        return read_record(Sharding, "sharding", self.sharding)

    @property
    def lr_schedule_record(self) -> LearningRate | None:
        """How the learning rate changes over optimizer steps, if it does."""
        return read_record(LearningRate, "lr_schedule", self.lr_schedule)

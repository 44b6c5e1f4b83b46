"""A warm start: a policy, made here or a pretrained one, and behaviour cloning; kept by the recipe's hash."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import logging
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from proxmo_rllib.config import ProxMOConfig
from proxmo_rllib.imitation.algorithm import BehaviourCloningConfig
from proxmo_rllib.policies.loading import resolve_pretrained
from proxmo_rllib.policies.tiny import TinySize, build_tiny_policy, train_tokenizer
from proxmo_rllib.rollouts.environments import make_text_env, plays_itself, split_tasks

logger = logging.getLogger(__name__)

#: Raised when code that the result depends on changes.
RECIPE_VERSION = 3

#: What a policy that is to be trained further must have seen as it will see it then.
_WORLD = (
    "env",
    "env_config",
    "system_message",
    "chat_template_kwargs",
    "chat_template_date",
    "context",
    "template",
    "response_style",
    "history",
    "show_admissible",
)


@dataclass(frozen=True, slots=True)
class CloningProgress:
    """How far a warm start is.

    Attributes:
        iteration: those that are done; 0 when the cloning is about to begin.
        iterations: of the recipe.
        loss: of the last one; None before the first.
        success: share of the panel that was solved, after an iteration that ended with an evaluation.
        seconds_left: expected; None before the first iteration is done.
    """

    iteration: int
    iterations: int
    loss: float | None = None
    success: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class WarmStart:
    """How to make a policy that can act: a tiny one from nothing, or a pretrained one that is shown how.

    Attributes:
        config: environment, prompting, script and optimisation. Its `pretrained` is where the cloning starts; None
            makes a tiny model. The default learning rate is for that one: a pretrained model bears 1e-5 or so.
        iterations: of behaviour cloning.
        size: shape of a tiny model.
        vocab_size: tokens of a tiny model at most.
        text_episodes: episodes of the script whose texts its tokenizer is trained on.
        words_only: whether its tokens are single words, as `train_tokenizer` says.
        seed: of its weights and of the texts; that of the demonstrations is the config's.
    """

    config: BehaviourCloningConfig
    iterations: int
    size: TinySize = field(default_factory=TinySize)
    vocab_size: int = 1400
    text_episodes: int = 1000
    seed: int = 0
    words_only: bool = False

    def in_world_of(self, config: ProxMOConfig) -> WarmStart:
        """The same recipe in the environment and the prompts of `config`, whose policy it is to make.

        Where an agent program plays (`PlaysItself`) nothing can be shown: the demonstrations stay those of the recipe's
        own environment.
        """
        own = self.config.copy(copy_frozen=False)
        kept = ("env", "env_config") if self.config.env is not None and plays_itself(config) else ()
        for key in _WORLD:
            if key in kept:
                continue
            setattr(own, key, copy.deepcopy(getattr(config, key)))
        return replace(self, config=own)

    def digest(self) -> str:
        """SHA-256 of the recipe, in hexadecimal."""
        config = self.config
        keys: tuple[str, ...] = (
            *_WORLD,
            "split",
            "max_turns",
            "seed",
            "num_groups",
            "num_minibatches",
            "num_epochs",
            "lr",
        )
        keys += ("weight_decay", "grad_clip", "observation_weight", "observation_share", "learn_empty_thoughts")
        keys += ("lora",) if config.lora is not None else ()  # recipes of before keep their policies
        recipe = {
            "version": RECIPE_VERSION,
            "config": {key: getattr(config, key) for key in keys},
            "pretrained": None if config.pretrained is None else _contents(config.pretrained),
            "scripts": [(start, _name(script)) for start, script in config.scripts],
            "iterations": self.iterations,
            "size": asdict(self.size),
            "vocab_size": self.vocab_size,
            "text_episodes": self.text_episodes,
            "seed": self.seed,
        }
        recipe |= {"words_only": True} if self.words_only else {}  # as above
        return hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()

    def cached(self, cache: Path | None = None) -> Path | None:
        """Folder of the cloned policy, if it was made before; the arguments are those of `policy`."""
        folder = self._folder(cache)
        return folder if (folder / "config.json").is_file() else None

    def _folder(self, cache: Path | None) -> Path:
        return (cache or Path.home() / ".cache" / "proxmo_rllib" / "warm_starts") / self.digest()[:16]

    def policy(
        self, cache: Path | None = None, watch: Callable[[CloningProgress], None] = lambda progress: None
    ) -> Path:
        """Folder of the cloned policy: from the cache, or made now, which takes minutes and a running Ray.

        Args:
            cache: folder of all warm starts; by default `~/.cache/proxmo_rllib/warm_starts`.
            watch: is told how far it is.
        """
        folder = self._folder(cache)
        if (made := self.cached(cache)) is not None:
            return made
        home = folder.parent
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as scratch:
            made = self.make(Path(scratch), watch)
            # Renamed when it is whole: one that was interrupted is never found.
            shutil.move(made, folder)
        return folder

    def make(
        self,
        scratch: Path,
        watch: Callable[[CloningProgress], None] = lambda progress: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Path:
        """Makes the policy.

        Args:
            scratch: folder for what comes up on the way.
            watch: is told how far it is, before the first iteration and after each.
            stop: is asked after each iteration whether what there is shall do.

        Returns:
            Folder below `scratch` with the cloned policy.
        """
        algorithm = self._start(scratch).build_algo()
        try:
            watch(CloningProgress(0, self.iterations))
            started = time.monotonic()
            for iteration in range(1, self.iterations + 1):
                result = algorithm.train()
                progress = CloningProgress(
                    iteration,
                    self.iterations,
                    loss=float(result["learners"]["default_policy"]["imitation_loss"]),
                    success=result["evaluation"]["success_rate"] if "evaluation" in result else None,
                    seconds_left=(time.monotonic() - started) / iteration * (self.iterations - iteration),
                )
                logger.info("Behaviour cloning %d/%d: loss %.3f", iteration, self.iterations, progress.loss)
                if progress.success is not None:
                    logger.info("Success on the panel: %.3f", progress.success)
                watch(progress)
                if stop():
                    break
            saved = Path(algorithm.save_to_path(str(scratch / "checkpoint")))
        finally:
            algorithm.stop()
        return saved / "policy"

    def _start(self, scratch: Path) -> BehaviourCloningConfig:
        """The config with the policy to start from, which is made first if need be."""
        config: BehaviourCloningConfig = self.config.copy(copy_frozen=False)
        if config.pretrained is not None:
            return config
        start = scratch / "start"
        tokenizer = train_tokenizer(self._texts(), self.vocab_size, words_only=self.words_only)
        build_tiny_policy(start, tokenizer, self.size, self.seed)
        # Who never spoke has no thoughts to unlearn, and has to learn the tags.
        return config.policy(pretrained=start).imitation(learn_empty_thoughts=True)

    def _texts(self) -> Iterator[set[str]]:
        """What the environment and the script say in each of the first tasks, and what could have been done there."""
        config = self.config
        env = make_text_env(config)
        tasks = split_tasks(env, config)
        for index in range(self.text_episodes):
            task = tasks[index % len(tasks)]
            script: Any = config.script_at(0)(random.Random(f"texts-{self.seed}-{index}"))
            message, info = env.reset(seed=index, options={"task": task} if task else None)
            texts = {message, *info.get("admissible_actions", ())}
            script.reset(info["anchor"], info)
            for _ in range(config.max_turns):
                action = script.act(info["anchor"], info)
                message, _, terminated, truncated, info = env.step(action)
                texts |= {action, message, *info.get("admissible_actions", ())}
                if terminated or truncated:
                    break
            yield texts
        env.close()


def _contents(pretrained: str | Path) -> list[Any]:
    """What tells a pretrained model from another: its name on the hub, or the files of a folder."""
    source = Path(resolve_pretrained(pretrained))
    if not source.is_dir():
        return [str(pretrained)]
    files = sorted(path for path in source.iterdir() if path.is_file())
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _name(script: Any) -> str:
    """A script's name, with its arguments if it is a `functools.partial`; the same in every process."""
    if isinstance(script, functools.partial):
        return f"{_name(script.func)}{sorted(script.keywords.items())}{script.args}"
    return f"{script.__module__}.{script.__qualname__}"

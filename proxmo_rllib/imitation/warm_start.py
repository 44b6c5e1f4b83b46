"""A warm start: a policy, made here or a pretrained one, and behaviour cloning; kept by the recipe's hash.

~/.cache/proxmo_rllib/warm_starts/276c0d03f6cf37f1/         the policy of a recipe
~/.cache/proxmo_rllib/warm_starts/276c0d03f6cf37f1.making/  being made, or left by a kill, and then gone on with
    start/        the tiny policy before the cloning
    checkpoints/  every five minutes
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import functools
import hashlib
import json
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from proxmo_rllib.config import ProxMOConfig
from proxmo_rllib.imitation.algorithm import BehaviourCloningConfig
from proxmo_rllib.policies.loading import resolve_pretrained
from proxmo_rllib.policies.tiny import TinySize, build_tiny_policy, train_tokenizer
from proxmo_rllib.rollouts.environments import make_text_env, plays_itself, split_tasks
from proxmo_rllib.training_run.checkpoints import Checkpoints

logger = logging.getLogger(__name__)

#: Raised when code that the result depends on changes.
RECIPE_VERSION = 3

#: What is added to the name of a policy whose making has left something to go on with.
MAKING = ".making"

#: A kill costs no more than this, or twenty times what saving takes where that is more.
SAVE_EVERY_S = 300.0

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
        if (made := self.cached(cache)) is not None:
            return made
        return self.make(self._folder(cache), watch)

    def make(
        self,
        folder: Path,
        watch: Callable[[CloningProgress], None] = lambda progress: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Path:
        """Makes the policy, or goes on making it where a kill came; another process that makes it is waited for.

        Args:
            folder: of the policy. What comes up on the way is beside it, in a folder whose name ends with `MAKING`.
            watch: is told how far it is, before the first iteration and after each.
            stop: is asked after each iteration whether what there is shall do.

        Returns:
            `folder`.

        Raises:
            ValueError: what was begun there is of another recipe, or cannot be read.
            DiskError: what there is could not be saved.
        """
        making = folder.with_name(folder.name + MAKING)
        with _alone(making):
            if not folder.exists():
                recipe = making / "recipe"
                if recipe.is_file() and recipe.read_text() != self.digest():
                    raise ValueError(f"{making}: what was begun there is of another recipe; remove it.")
                recipe.write_text(self.digest())
                # Renamed when it is whole: one that was interrupted is never found.
                self._clone(making, watch, stop).rename(folder)
            shutil.rmtree(making, ignore_errors=True)  # one that waits may have made its lock in there meanwhile
        return folder

    def _clone(self, making: Path, watch: Callable[[CloningProgress], None], stop: Callable[[], bool]) -> Path:
        checkpoints = Checkpoints(making / "checkpoints")
        checkpoints.path.mkdir(exist_ok=True)
        algorithm = self._start(making).build_algo()
        try:
            if (saved := checkpoints.newest_whole(broken=logger.warning)) is not None:
                algorithm.restore_from_path(str(saved))
                logger.info("Behaviour cloning goes on after iteration %d", algorithm.iteration)
            before = algorithm.iteration
            watch(CloningProgress(before, self.iterations))
            started = last_saved = time.monotonic()
            pause = SAVE_EVERY_S
            for iteration in range(before + 1, self.iterations + 1):
                result = algorithm.train()
                watch(self._progress(result, iteration, (time.monotonic() - started) / (iteration - before)))
                if stop():
                    break
                if (begun := time.monotonic()) - last_saved > pause and iteration < self.iterations:
                    checkpoints.save(iteration, algorithm.save_to_path, keep=1)
                    last_saved = time.monotonic()
                    pause = max(SAVE_EVERY_S, 20 * (last_saved - begun))
            saved = checkpoints.save(algorithm.iteration, algorithm.save_to_path, keep=1)
        finally:
            algorithm.stop()
        return saved / "policy"

    def _progress(self, result: Mapping[str, Any], iteration: int, pace: float) -> CloningProgress:
        """How far it is after an iteration, one of which takes `pace` seconds; logged too."""
        loss = float(result["learners"]["default_policy"]["imitation_loss"])
        success = result["evaluation"]["success_rate"] if "evaluation" in result else None
        logger.info("Behaviour cloning %d/%d: loss %.3f", iteration, self.iterations, loss)
        if success is not None:
            logger.info("Success on the panel: %.3f", success)
        return CloningProgress(iteration, self.iterations, loss, success, pace * (self.iterations - iteration))

    def _start(self, making: Path) -> BehaviourCloningConfig:
        """The config with the policy to start from, which is made first if need be."""
        config: BehaviourCloningConfig = self.config.copy(copy_frozen=False)
        if config.pretrained is not None:
            return config
        start = making / "start"
        if not start.is_dir():
            tokenizer = train_tokenizer(self._texts(), self.vocab_size, words_only=self.words_only)
            part = making / "start.part"
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            build_tiny_policy(part, tokenizer, self.size, self.seed)
            part.rename(start)
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


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Makes a folder that no other process of this machine is in, and waits for one that is."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context((folder / "lock").open("w"))
            except FileNotFoundError:  # taken away since the line above
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.warning("Another process is making this policy; waiting for it (%s).", folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_at(folder / "lock", lock):
                yield
                return
            # The one that was here has finished, and taken the folder away.


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


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

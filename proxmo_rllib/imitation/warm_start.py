"""A warm start: tokenizer, tiny model and behaviour cloning in one recipe, its result kept by the recipe's hash."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import logging
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from proxmo_rllib.config import ProxMOConfig
from proxmo_rllib.imitation.algorithm import BehaviourCloningConfig
from proxmo_rllib.policies.tiny import TinySize, build_tiny_policy, train_tokenizer
from proxmo_rllib.rollouts.environments import make_text_env, split_tasks

logger = logging.getLogger(__name__)

#: Raised when code that the result depends on changes.
RECIPE_VERSION = 2

#: What a policy that is to be trained further must have seen as it will see it then.
_WORLD = ("env", "env_config", "system_message", "context", "template", "response_style", "history", "show_admissible")


@dataclass(frozen=True)
class WarmStart:
    """How to make a tiny policy from nothing.

    Attributes:
        config: environment, prompting, script and optimisation; its `pretrained` is made here.
        iterations: of behaviour cloning.
        size: shape of the model.
        vocab_size: tokens at most.
        text_episodes: episodes of the script whose texts the tokenizer is trained on.
        seed: of the weights and of the texts; that of the demonstrations is the config's.
    """

    config: BehaviourCloningConfig
    iterations: int
    size: TinySize = field(default_factory=TinySize)
    vocab_size: int = 1400
    text_episodes: int = 1000
    seed: int = 0

    def in_world_of(self, config: ProxMOConfig) -> WarmStart:
        """The same recipe in the environment and the prompts of `config`, whose policy it is to make."""
        own = self.config.copy(copy_frozen=False)
        for key in _WORLD:
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
        keys += ("weight_decay", "grad_clip", "observation_weight", "observation_share")
        recipe = {
            "version": RECIPE_VERSION,
            "config": {key: getattr(config, key) for key in keys},
            "scripts": [(start, _name(script)) for start, script in config.scripts],
            "iterations": self.iterations,
            "size": asdict(self.size),
            "vocab_size": self.vocab_size,
            "text_episodes": self.text_episodes,
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()

    def cached(self, cache: Path | None = None) -> Path | None:
        """Folder of the cloned policy, if it was made before; the arguments are those of `policy`."""
        folder = self._folder(cache)
        return folder if (folder / "config.json").is_file() else None

    def _folder(self, cache: Path | None) -> Path:
        return (cache or Path.home() / ".cache" / "proxmo_rllib" / "warm_starts") / self.digest()[:16]

    def policy(self, cache: Path | None = None) -> Path:
        """Folder of the cloned policy: from the cache, or made now, which takes minutes and a running Ray.

        Args:
            cache: folder of all warm starts; by default `~/.cache/proxmo_rllib/warm_starts`.
        """
        folder = self._folder(cache)
        if (made := self.cached(cache)) is not None:
            return made
        home = folder.parent
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as scratch:
            made = self.make(Path(scratch))
            # Renamed when it is whole: one that was interrupted is never found.
            shutil.move(made, folder)
        return folder

    def make(self, scratch: Path) -> Path:
        """Makes the policy.

        Args:
            scratch: folder for what comes up on the way.

        Returns:
            Folder below `scratch` with the cloned policy.
        """
        start = scratch / "start"
        build_tiny_policy(start, train_tokenizer(self._texts(), self.vocab_size), self.size, self.seed)
        config = self.config.copy(copy_frozen=False).policy(pretrained=start)
        algorithm = config.build_algo()
        try:
            for iteration in range(self.iterations):
                result = algorithm.train()
                loss = result["learners"]["default_policy"]["imitation_loss"]
                logger.info("Behaviour cloning %d/%d: loss %.3f", iteration + 1, self.iterations, loss)
                if "evaluation" in result:
                    logger.info("Success on the panel: %.3f", result["evaluation"]["success_rate"])
            saved = Path(algorithm.save_to_path(str(scratch / "checkpoint")))
        finally:
            algorithm.stop()
        return saved / "policy"

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


def _name(script: Any) -> str:
    """A script's name, with its arguments if it is a `functools.partial`; the same in every process."""
    if isinstance(script, functools.partial):
        return f"{_name(script.func)}{sorted(script.keywords.items())}{script.args}"
    return f"{script.__module__}.{script.__qualname__}"

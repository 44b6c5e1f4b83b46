"""The worlds of the comparison: an environment, where training starts, and how long it is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

import env_wrappers  # noqa: F401 (registers the environments)
from env_wrappers.panels import Panel, named_panel, panel_from_split
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.imitation import BehaviourCloningConfig, WarmStart
from proxmo_rllib.policies.tiny import TinySize
from tuned_examples import alfworld_real_cpu, alfworld_warm_start, quickstart_world, textcraft_cpu, webshop_cpu

ALFWORLD = "env_wrappers/ALFWorld-v0"
WEBSHOP = "env_wrappers/WebShop-v0"


@dataclass(frozen=True)
class World:
    """What a training happens in.

    Attributes:
        title: for the tables.
        config: a new config without an estimator: environment, prompts, engine; `panel` holds the unseen tasks.
        warm_start: makes the policy that training starts from; None for the one of the quickstart, which is shipped.
        turns: environment turns of one training.
        lr: the learning rate that is multiplied by the factor of the tuning.
    """

    title: str
    config: Callable[[], ProxMOConfig]
    warm_start: WarmStart | None
    turns: int
    lr: float

    def start(self, progress: Callable[[Any], None] = lambda progress: None) -> str | Path:
        """The policy that every training of this world starts from; made now if it is not in the cache."""
        if self.warm_start is None:
            return "asset:alfworld-tiny"
        return self.warm_start.in_world_of(self.config()).policy(watch=progress)


def _config(
    env: str,
    env_config: Mapping[str, Any],
    panel: Panel,
    max_turns: int,
    lengths: int,
    response: int = 12,
    repeats: int = 1,
) -> ProxMOConfig:
    """What the worlds share; it is the quickstart's but for estimator, learning rate and entropy."""
    return (
        ProxMOConfig()
        .environment(env, env_config=dict(env_config))
        .policy(dtype="float32")
        .env_runners(num_env_runners=1, num_cpus_per_env_runner=0, max_turns=max_turns, max_concurrent_episodes=128)
        .inference(
            engine="vllm", num_cpus_per_engine=1, max_model_len=lengths, max_num_seqs=128, max_response_tokens=response
        )
        .training(
            num_minibatches=4,
            objective={"name": "ppo", "clip_low": 0.2, "clip_high": 0.28},
            loss_weighting="episode",
            max_tokens_per_microbatch=8192,
        )
        .evaluation(panel=panel, panel_repeats=repeats, panel_temperature=0.4)
        .debugging(record_groups=0)
    )


def _rooms(env_config: Mapping[str, Any], max_turns: int, lengths: int) -> ProxMOConfig:
    """Generated ALFWorld; the panel has 256 tasks in rooms that no training task plays in."""
    env = gymnasium.make(ALFWORLD, **dict(env_config), num_tasks={"valid_unseen": 256})
    panel = panel_from_split(env, "valid_unseen", 256, name="evidence-unseen-256")
    return _config(ALFWORLD, env_config, panel, max_turns, lengths)


def _real_rooms() -> ProxMOConfig:
    """The official games: trained on train, evaluated on all of valid_seen."""
    games = {"games": "$ALFWORLD_DATA"}
    panel = named_panel("alfworld-seen-140", **games)
    return _config(ALFWORLD, games, panel, alfworld_real_cpu.MAX_TURNS, 1280, repeats=2)


def _shop() -> ProxMOConfig:
    """The official small catalogue; the panel's goals are of products that no training goal is of."""
    shop: dict[str, Any] = {
        "catalogue": "$WEBSHOP_DATA",
        "division": "disjoint",
        "reward": "success",
        "success_reward": 1.0,
    }
    panel = panel_from_split(gymnasium.make(WEBSHOP, **shop), "test", 200, name="evidence-shop-200")
    return _config(WEBSHOP, shop, panel, webshop_cpu.MAX_TURNS, 2048, response=40)


def _craft() -> ProxMOConfig:
    """Items up to three crafts deep; no item of the panel is asked for in training."""
    craft = textcraft_cpu
    return _config(craft.ENV, craft.ENV_CONFIG, craft.PANEL, craft.MAX_TURNS, craft.MAX_MODEL_LEN, response=32)


_SIX = {"max_receptacles": 8, "max_objects": 8}
_CLONING = 98


def _six_types_warm_start() -> WarmStart:
    """The quickstart's recipe with all six types of task: an expert until the clone can act, then a novice's habits."""
    turns = 512 * 9
    config = (
        BehaviourCloningConfig()
        .environment(ALFWORLD, env_config=_SIX)
        .env_runners(num_env_runners=1, num_cpus_per_env_runner=0.5, max_turns=16, max_concurrent_episodes=64)
        .inference(max_model_len=768, max_num_seqs=128)
        .imitation(scripts=[(0, alfworld_warm_start.expert), (90, alfworld_warm_start.novice)], observation_weight=0.4)
        .training(
            num_groups=512,
            num_minibatches=16,
            lr=[[0, 3e-3], [90 * turns // 2, 3e-3], [_CLONING * turns, 3e-4]],
            max_tokens_per_microbatch=8192,
        )
        .debugging(seed=0, record_groups=0)
    )
    return WarmStart(config, iterations=_CLONING, size=TinySize(), vocab_size=1600)


#: By the name that the command takes.
WORLDS: Mapping[str, World] = {
    "rooms_three": World(
        "generated ALFWorld, three types",
        functools.partial(_rooms, quickstart_world.ENV_CONFIG, quickstart_world.MAX_TURNS, 512),
        None,
        turns=40_000,
        lr=8e-4,
    ),
    "rooms_six": World(
        "generated ALFWorld, six types",
        functools.partial(_rooms, _SIX, 16, 768),
        _six_types_warm_start(),
        turns=60_000,
        lr=8e-4,
    ),
    "rooms_real": World(
        "official ALFWorld, valid_seen", _real_rooms, alfworld_real_cpu.warm_start, turns=80_000, lr=5e-4
    ),
    "shop": World("official small WebShop, disjoint products", _shop, webshop_cpu.warm_start, turns=30_000, lr=3e-4),
    "craft": World("TextCraft, other items", _craft, textcraft_cpu.warm_start, turns=40_000, lr=3e-4),
}

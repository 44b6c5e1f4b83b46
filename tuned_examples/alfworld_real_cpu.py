"""The real ALFWorld games on a CPU: all six task types, evaluated on the 140 games of valid_seen.

This example: clones an expert that searches as an agent must, and slips now and then, on the real training games (once;
the result is kept in the cache), then trains the tiny policy with ProxMO. The same code as the quickstart, with rooms
of real size: up to 35 receptacles and 50 objects.

How to run this script: `proxmo train tuned_examples/alfworld_real_cpu.py env_config.games=PATH`, where PATH is a folder
that alfworld-download filled or a `games.jsonl.xz`; left out, it is $ALFWORLD_DATA.

Results to expect: see docs/results.md.
"""

from __future__ import annotations

import functools

from env_wrappers.alfworld.novice import Novice
from proxmo_rllib import ProxMOConfig, StopCriteria
from proxmo_rllib.imitation import BehaviourCloningConfig, WarmStart
from proxmo_rllib.policies.tiny import TinySize

ENV = "env_wrappers/ALFWorld-v0"
ENV_CONFIG = {"games": "$ALFWORLD_DATA"}
MAX_TURNS = 30
_ITERATIONS = 60
_TURNS = 512 * 11

config = (
    ProxMOConfig()
    .environment(ENV, env_config=ENV_CONFIG)
    .env_runners(num_env_runners=1, num_cpus_per_env_runner=0.5, max_turns=MAX_TURNS)
    .prompting(invalid_action_penalty=0.1)
    .inference(engine="vllm", max_model_len=1280, max_num_seqs=128, max_response_tokens=12)
    .training(
        group_size=8,
        num_groups=16,
        lr=5e-4,
        step_weight=3.0,
        estimator_options={"normalize_std": False},
        num_minibatches=4,
        objective={"name": "ppo", "clip_low": 0.2, "clip_high": 0.28},
        loss_weighting="episode",
        entropy_coef=0.02,
        max_tokens_per_microbatch=8192,
    )
    .evaluation(panel="alfworld-seen-140", evaluation_interval=10, panel_temperature=0.4)
)
warm_start = WarmStart(
    BehaviourCloningConfig()
    .environment(ENV, env_config=ENV_CONFIG)
    .env_runners(num_env_runners=1, num_cpus_per_env_runner=0.5, max_turns=MAX_TURNS, max_concurrent_episodes=64)
    .inference(max_model_len=1280)
    .imitation(scripts=[(0, functools.partial(Novice, diligence=1.0))])
    .training(
        num_groups=512,
        num_minibatches=16,
        lr=[[0, 3e-3], [_ITERATIONS * _TURNS // 2, 3e-3], [_ITERATIONS * _TURNS, 3e-4]],
        max_tokens_per_microbatch=8192,
    )
    .debugging(record_groups=0),
    iterations=_ITERATIONS,
    size=TinySize(),
    vocab_size=2000,
    text_episodes=2000,
)
stop = StopCriteria(minutes=60)

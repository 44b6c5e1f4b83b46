"""WebShop on a CPU: errands in a generated shop of 500 products, evaluated on 200 goals of the test split.

This example: clones a shopper that reads pages as an agent must, and then a hasty one, who buys at first sight and
forgets options (once; the result is kept in the cache), and trains the tiny policy with ProxMO. The same code as the
quickstart, with free text to write and pages of ten products to read.

How to run this script: `proxmo train tuned_examples/webshop_cpu.py`

Results to expect: see docs/results.md.
"""

from __future__ import annotations

from typing import Any

import gymnasium

import env_wrappers  # noqa: F401 (registers the environments)
from env_wrappers.panels import panel_from_split
from env_wrappers.webshop.experts import HastyShopper, ReadingShopper
from proxmo_rllib import ProxMOConfig, StopCriteria
from proxmo_rllib.imitation import BehaviourCloningConfig, WarmStart
from proxmo_rllib.policies.tiny import TinySize

ENV = "env_wrappers/WebShop-v0"
ENV_CONFIG: dict[str, Any] = {"num_products": 500, "reward": "success"}
MAX_TURNS = 15
PANEL = panel_from_split(gymnasium.make(ENV, **ENV_CONFIG), "test", 200, name="shop-test-200")
# Of cloning: the first can read and act; the hasty one's habits are quickly learnt.
_EXPERT_ITERATIONS = 40
_ITERATIONS = 45
_TURNS = 256 * 10

config = (
    ProxMOConfig()
    .environment(ENV, env_config=ENV_CONFIG)
    .env_runners(num_env_runners=1, num_cpus_per_env_runner=0.5, max_turns=MAX_TURNS)
    .prompting(invalid_action_penalty=0.5)
    .inference(engine="vllm", max_model_len=2048, max_num_seqs=128, max_response_tokens=40)
    .training(
        group_size=8,
        num_groups=16,
        # By environment steps, about 700 an iteration.
        lr=[[0, 3e-4], [10_000, 3e-4], [40_000, 3e-5]],
        step_weight=3.0,
        estimator_options={"normalize_std": False},
        num_minibatches=4,
        objective={"name": "ppo", "clip_low": 0.2, "clip_high": 0.28},
        loss_weighting="episode",
        entropy_coef=0.01,
        max_tokens_per_microbatch=8192,
    )
    .evaluation(
        panel=PANEL,
        evaluation_interval=10,
        panel_temperature=0.4,
    )
)
warm_start = WarmStart(
    BehaviourCloningConfig()
    .environment(ENV, env_config=ENV_CONFIG)
    .env_runners(num_env_runners=1, num_cpus_per_env_runner=0.5, max_turns=MAX_TURNS, max_concurrent_episodes=64)
    .inference(max_model_len=2048)
    .imitation(scripts=[(0, ReadingShopper), (_EXPERT_ITERATIONS, HastyShopper)], observation_share=0.25)
    .training(
        num_groups=256,
        num_minibatches=16,
        lr=[[0, 3e-3], [_EXPERT_ITERATIONS * _TURNS // 2, 3e-3], [_ITERATIONS * _TURNS, 3e-4]],
        max_tokens_per_microbatch=8192,
    )
    .debugging(record_groups=0),
    iterations=_ITERATIONS,
    size=TinySize(),
    vocab_size=5000,
    text_episodes=2000,
)
stop = StopCriteria(iterations=60, minutes=30)

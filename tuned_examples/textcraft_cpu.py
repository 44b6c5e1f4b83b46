"""TextCraft on a CPU: items up to three crafts deep, evaluated on 200 tasks of the test split.

This example: clones a crafter that reads recipes as an agent must, and then a hasty one, who crafts before it has
everything and follows recipes that lead nowhere (once; the result is kept in the cache), and trains the tiny policy
with ProxMO. No item of the test split is ever asked for in training.

Of the panel's tasks 13 take more than 16 actions, so 93.5% is the most that can be reached; MAX_TURNS = 24 is enough
for all.

How to run this script: `proxmo train tuned_examples/textcraft_cpu.py`

Results to expect: not measured yet.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium

import env_wrappers  # noqa: F401 (registers the environments)
from env_wrappers.panels import panel_from_split
from env_wrappers.textcraft.experts import HastyCrafter, ReadingCrafter
from proxmo_rllib import ProxMOConfig, StopCriteria
from proxmo_rllib.imitation import BehaviourCloningConfig, WarmStart
from proxmo_rllib.policies.tiny import TinySize

ENV = "env_wrappers/TextCraft-v0"
ENV_CONFIG: dict[str, Any] = {"depths": (1, 2, 3), "distractors": 4}
MAX_TURNS = 16
# Of what the scripts play the longest has some 510 tokens; who looks at the recipes again and again needs more.
MAX_MODEL_LEN = 1024
PANEL = panel_from_split(gymnasium.make(ENV, **ENV_CONFIG), "test", 200, name="craft-test-200")
# Of cloning: the first can read, act and mend what went wrong; the hasty one's habits are quickly learnt.
_EXPERT_ITERATIONS = 60
_HASTY_ITERATIONS = 5
_EPISODES = 512
# Turns of both: an episode of the expert's has some 6, a hasty one's 14.
_EXPERT_TURNS = _EXPERT_ITERATIONS * _EPISODES * 6
_TURNS = _EXPERT_TURNS + _HASTY_ITERATIONS * _EPISODES * 14

expert = functools.partial(ReadingCrafter, slips=(0.0, 0.15, 0.3))

config = (
    ProxMOConfig()
    .environment(ENV, env_config=ENV_CONFIG)
    .env_runners(num_env_runners=1, num_cpus_per_env_runner=0.5, max_turns=MAX_TURNS)
    .prompting(invalid_action_penalty=0.1)
    .inference(engine="vllm", max_model_len=MAX_MODEL_LEN, max_num_seqs=128, max_response_tokens=32)
    .training(
        group_size=8,
        num_groups=16,
        # By environment steps, about 1,800 an iteration at first.
        lr=[[0, 3e-4], [30_000, 3e-4], [80_000, 3e-5]],
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
    .inference(max_model_len=MAX_MODEL_LEN)
    .imitation(scripts=[(0, expert), (_EXPERT_ITERATIONS, HastyCrafter)])
    .training(
        num_groups=_EPISODES,
        num_minibatches=16,
        lr=[[0, 3e-3], [_EXPERT_TURNS // 2, 3e-3], [_TURNS, 3e-4]],
        max_tokens_per_microbatch=8192,
    )
    .debugging(record_groups=0),
    iterations=_EXPERT_ITERATIONS + _HASTY_ITERATIONS,
    size=TinySize(),
    vocab_size=1200,
    text_episodes=2000,
    words_only=True,
)
stop = StopCriteria(iterations=60, minutes=30)

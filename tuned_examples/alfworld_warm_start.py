"""Makes the tiny policy that the quickstart starts from: behaviour cloning of a novice.

This example: trains a tokenizer on the texts of the quickstart's world, builds a Llama of about a million weights and
clones a novice, who knows the commands but searches at random and is easily distracted. What comes out says nearly only
sensible things and solves less than half of the held-out tasks.

How to run this script: `proxmo warm-start tuned_examples/alfworld_warm_start.py --output FOLDER`
The package ships the result as `asset:alfworld-tiny`.

Results to expect: see docs/quickstart.md.
"""

from __future__ import annotations

import functools

from env_wrappers.alfworld.novice import Novice
from proxmo_rllib.imitation import BehaviourCloningConfig, WarmStart
from proxmo_rllib.policies.tiny import TinySize
from tuned_examples.quickstart_world import ENV, ENV_CONFIG, MAX_TURNS, held_out_panel

# The expert's actions are predictable, and so teach to copy names soonest; then the novice's habits come on top.
_EXPERT_ITERATIONS = 22
ITERATIONS = 44
# Turns of one iteration, for the learning rate schedule, which RLlib counts in environment steps.
_TURNS = 512 * 8

config = (
    BehaviourCloningConfig()
    .environment(ENV, env_config=ENV_CONFIG)
    .env_runners(num_env_runners=1, num_cpus_per_env_runner=0.5, max_turns=MAX_TURNS, max_concurrent_episodes=64)
    .inference(max_model_len=512, max_num_seqs=128)
    .imitation(
        scripts=[(0, functools.partial(Novice, diligence=1.0)), (_EXPERT_ITERATIONS, Novice)], observation_weight=0.4
    )
    .training(
        num_groups=512,
        num_minibatches=16,
        lr=[[0, 3e-3], [ITERATIONS * _TURNS // 2, 2e-3], [ITERATIONS * _TURNS, 2e-4]],
        max_tokens_per_microbatch=8192,
    )
    .evaluation(panel=held_out_panel(), evaluation_interval=11)
    .debugging(seed=0, record_groups=0)
)
warm_start = WarmStart(config, iterations=ITERATIONS, size=TinySize(), vocab_size=1200)

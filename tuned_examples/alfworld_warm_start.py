"""Makes the tiny policy that the quickstart starts from: behaviour cloning of an expert, and then of a novice.

This example: trains a tokenizer on the texts of the quickstart's world, builds a Llama of about a million weights and
clones first an expert, until the clone can read and act, and then a novice, who dawdles, forgets where it has been,
leaves closed things closed and picks up whatever it sees. What comes out solves half of the held-out tasks, and a
quarter of the training tasks at temperature 1.

How to run this script: `proxmo warm-start tuned_examples/alfworld_warm_start.py --output FOLDER`
The package ships the result as `asset:alfworld-tiny`.
"""

from __future__ import annotations

import functools

from env_wrappers.alfworld.novice import Novice
from proxmo_rllib.imitation import BehaviourCloningConfig, WarmStart
from proxmo_rllib.policies.tiny import TinySize
from tuned_examples.quickstart_world import ENV, ENV_CONFIG, MAX_TURNS, held_out_panel

# Than the quickstart's: the clone meets more names, and has to search longer.
LARGER_ROOMS = ENV_CONFIG | {"max_receptacles": 8}

# The expert's actions are predictable, and so teach to copy names soonest: after these iterations the clone solves nine
# tasks in ten. Then it is taught a novice's bad habits, which is quickly done.
_EXPERT_ITERATIONS = 90
ITERATIONS = 98
# Turns of one iteration, for the learning rate schedule, which RLlib counts in environment steps.
_TURNS = 512 * 8

expert = functools.partial(Novice, diligence=1.0)
novice = functools.partial(
    Novice, diligence=0.0, idleness=0.5, openness=0.1, distraction=0.9, memory=0.3, slips=(0.0, 0.1)
)

config = (
    BehaviourCloningConfig()
    .environment(ENV, env_config=LARGER_ROOMS)
    .env_runners(num_env_runners=1, num_cpus_per_env_runner=0.5, max_turns=MAX_TURNS, max_concurrent_episodes=64)
    .inference(max_model_len=512, max_num_seqs=128)
    .imitation(scripts=[(0, expert), (_EXPERT_ITERATIONS, novice)], observation_weight=0.4)
    .training(
        num_groups=512,
        num_minibatches=16,
        lr=[[0, 3e-3], [_EXPERT_ITERATIONS * _TURNS // 2, 3e-3], [ITERATIONS * _TURNS, 3e-4]],
        max_tokens_per_microbatch=8192,
    )
    .evaluation(panel=held_out_panel(), evaluation_interval=10)
    .debugging(seed=0, record_groups=0)
)
warm_start = WarmStart(config, iterations=ITERATIONS, size=TinySize(), vocab_size=1200)

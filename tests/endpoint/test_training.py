"""A run whose episodes are played by programs that know nothing of it: real Ray, real vLLM, OpenAI's client."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env_wrappers.panels import Panel
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.policies.loading import load_causal_lm
from proxmo_rllib.viewer.run import ViewedRun

GROUPS, SIZE, TURNS = 2, 4, 3

# A ReAct loop: it thinks, acts, observes, and knows a client, an address and a key.
REACT = """
import json, os, urllib.request
from openai import OpenAI

client = OpenAI()
messages = [
    {"role": "system", "content": "Answer with Action: and what you do."},
    {"role": "user", "content": "You are in the room " + os.environ["PROXMO_TASK"]},
]
solved = False
for _ in range(3):
    reply = client.chat.completions.create(
        model=os.environ["PROXMO_MODEL"], messages=messages, temperature=0, stop=["Observation:"]
    )
    said = reply.choices[0].message.content or ""
    action = said.rpartition("Action:")[2].strip()
    messages.append({"role": "assistant", "content": said.strip()})
    if sum(action.encode()) % 4 == 0:
        solved = True
        break
    messages.append({"role": "user", "content": "Observation: nothing happens"})
body = json.dumps({"reward": float(solved), "success": solved}).encode()
headers = {"Authorization": "Bearer " + client.api_key, "Content-Type": "application/json"}
urllib.request.urlopen(urllib.request.Request(os.environ["PROXMO_REWARD_URL"], body, headers)).read()
"""


def rooms_of(program: str) -> Any:
    """Made in a function, so that Ray's processes, which know no tests, get the class itself."""
    from proxmo_rllib.endpoint import OutsideAgent

    class Rooms(OutsideAgent):
        command = (sys.executable, program)

        def tasks(self, split: str) -> list[str]:
            return [f"{split}-{index}" for index in range(10)]

    return Rooms


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_react_loop_that_knows_nothing_of_us_is_trained(local_ray: None, tiny_policy: Path, tmp_path: Path):
    from ray.tune import register_env

    program = tmp_path / "react.py"
    program.write_text(REACT)
    rooms = rooms_of(str(program))
    register_env("rooms", lambda settings: rooms(**settings))
    config = (
        ProxMOConfig()
        .environment("rooms")
        .policy(pretrained=tiny_policy)
        .inference(max_model_len=256, max_response_tokens=6, max_num_seqs=16)
        .env_runners(num_env_runners=1, max_turns=TURNS, max_concurrent_episodes=4)
        .training(num_groups=GROUPS, group_size=SIZE, lr=1e-3)
        .evaluation(panel=Panel("rooms", 1, "rooms", {}, ("valid-0", "valid-1")), panel_temperature=1.0)
        .debugging(record_groups=GROUPS, run_folder=str(tmp_path / "run"))
    )
    algorithm: Any = config.build_algo()
    try:
        results = [algorithm.train() for _ in range(2)]
        panel = algorithm.evaluate()
        weights = algorithm.learner_group._learner.get_state()["rl_module"]["default_policy"]
        for name, start in load_causal_lm(tiny_policy).named_parameters():
            assert not np.array_equal(np.asarray(weights[name]), start.detach().numpy())
        assert algorithm.policy_version == 2
        folder = Path(algorithm.logdir)
    finally:
        algorithm.stop()
    for result in results:
        played = result["env_runners"]
        assert played["num_episodes"] == GROUPS * SIZE
        assert played["num_errors"] == result["num_groups_dropped"] == 0
        assert result["learners"]["default_policy"]["num_sequences"] == GROUPS * SIZE  # appended, turn by turn
        # The learner scores the sampled tokens as the engine did: they are the tokens that were sampled.
        assert result["learners"]["default_policy"]["kl_to_engine"] < 1e-5
    assert any(0 < result["env_runners"]["success_rate"] < 1 for result in results)
    assert panel["num_episodes"] == 2
    run = ViewedRun(folder)
    assert len(run.groups) == 2 * GROUPS
    shown = run.group(run.groups[0])
    assert shown["credit"]
    first = shown["episodes"][0]["turns"][0]
    assert first["observation"].startswith("You are in the room train-")
    assert first["response"]

"""A real OpenEnv server with a text environment of this project, and its real client as an environment here."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from env_wrappers.conformance import check_environment
from env_wrappers.prompting import wrap
from proxmo_rllib.evaluation.players import RandomScript, ScriptPlayer, play_task
from proxmo_rllib.integrations.openenv_client import OpenEnvTextEnv
from proxmo_rllib.integrations.openenv_server import TextAction, TextEnvironment, make_app
from proxmo_rllib.integrations.text_envs import bare_env

pytestmark = [pytest.mark.slow, pytest.mark.others]

TEXTCRAFT = "env_wrappers/TextCraft-v0"
SETTINGS: dict[str, Any] = {"num_tasks": {"train": 6, "valid": 3}}


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive(), "the server has ended"
        assert time.monotonic() < deadline, "the server has not started"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(60)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(make_app(TEXTCRAFT, SETTINGS)) as url:
        yield url


def test_the_environment_behind_a_server_plays_as_it_does_here(address: str):
    here, there = bare_env(TEXTCRAFT, SETTINGS), OpenEnvTextEnv(address)
    for split in ("train", "valid"):
        assert there.tasks(split) == here.unwrapped.tasks(split)  # type: ignore[attr-defined]
    for task in there.tasks("train")[:3]:
        assert there.reset(seed=1, options={"task": task}) == here.reset(seed=1, options={"task": task})
        for action in ["nonsense", *here.unwrapped.plan()]:  # type: ignore[attr-defined]
            assert there.step(action) == here.step(action)
    there.close()


def test_two_clients_do_not_disturb_each_other_and_the_contract_is_kept(address: str):
    findings = check_environment(OpenEnvTextEnv, arguments={"base_url": address}, tasks=1, steps=4)
    assert [finding for finding in findings if finding.rule != "copies"] == []


def test_an_agent_of_this_project_plays_it(address: str):
    env = wrap(OpenEnvTextEnv(address), style="bare", template="bare")
    player = ScriptPlayer(RandomScript(random.Random(0)), "bare")
    episode = play_task(env, player, task="textcraft/valid/000001", seed=0, max_turns=4)
    env.close()
    assert len(episode) == 4
    assert all(turn.action_valid for turn in episode.turns)


def test_openenvs_own_client_plays_by_split_and_number(address: str):
    from openenv.core import GenericEnvClient

    with GenericEnvClient(base_url=address).sync() as client:
        result = client.reset(split="valid", index=2)
        assert result.observation["task"] == "textcraft/valid/000002"
        result = client.step({"text": "inventory"})
        assert result.observation["text"] == "You hold: nothing."
        assert (result.reward, result.done, result.observation["success"]) == (0.0, False, False)


def test_a_server_of_another_kind_needs_its_fields_named():
    """One whose action and observation have other fields, that tells success by its return, and that has no tasks."""
    from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app

    class Guess(Action):
        number: str

    class Hint(Observation):
        hint: str

    class Guessing(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Hint:
            self.secret = (seed or 0) % 10
            return Hint(hint="guess")

        def step(self, action: Guess, timeout_s: float | None = None, **_: Any) -> Hint:
            right = action.number == str(self.secret)
            return Hint(hint="right" if right else "wrong", reward=float(right), done=right)

        @property
        def state(self) -> State:
            return State()

    with serving(create_fastapi_app(Guessing, Guess, Hint, max_concurrent_envs=4)) as url:
        env = OpenEnvTextEnv(url, action="number", observation="hint", success=1.0, name=None)
        assert not hasattr(env, "tasks")
        assert env.reset(seed=13)[0] == "guess"
        assert env.step("4")[:3] == ("wrong", 0.0, False)
        text, reward, over, _, info = env.step("3")
        assert (text, reward, over, info["success"]) == ("right", 1.0, True, True)
        env.close()
        wrong = OpenEnvTextEnv(url, action="number", name=None)
        with pytest.raises(ConnectionError, match=r"have no field 'text', they have \['hint', .*observation="):
            wrong.reset()
        wrong.close()


def test_what_does_not_answer_or_is_refused_is_said(address: str):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    env = OpenEnvTextEnv(nobody, seconds=5)
    with pytest.raises(ConnectionError, match=nobody):
        env.reset()
    with pytest.raises(ConnectionError, match="Is the server running"):
        env.tasks("train")
    env.close()
    with pytest.raises(ValueError, match="split='nowhere' is none of the server's"):
        OpenEnvTextEnv(address).tasks("nowhere")
    with pytest.raises(ValueError, match="is not registered with Gymnasium"):
        make_app("env_wrappers/Nothing-v0")
    with pytest.raises(ValueError, match="text"):
        TextAction()
    assert TextEnvironment(TEXTCRAFT, SETTINGS).num_tasks("valid") == 3

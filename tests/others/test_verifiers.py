"""Environments of verifiers here, and of this project there; one episode through all of verifiers' machinery."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from env_wrappers.conformance import check_environment
from proxmo_rllib.integrations import PlayedEpisode, turn_advantages
from proxmo_rllib.integrations.text_envs import bare_env
from proxmo_rllib.integrations.verifiers_client import VerifiersTextEnv
from proxmo_rllib.integrations.verifiers_env import TextEnv, TextTaskset, vf

pytestmark = [pytest.mark.slow, pytest.mark.others]

SETTINGS: dict[str, Any] = {"num_tasks": {"train": 5}}
TASKSET: dict[str, Any] = {"env_config": SETTINGS, "prompting": {"style": "bare", "template": "bare"}}


class SumData(vf.TaskData):
    answer: str


class SumTask(vf.Task[SumData]):
    @vf.reward
    async def right(self, trace: Any) -> float:
        return float(trace.last_reply == self.data.answer)


class SumTaskset(vf.Taskset[SumTask, vf.TasksetConfig]):
    """A taskset of verifiers' usual kind: a prompt, a reply, a score."""

    def load(self) -> Iterator[SumTask]:
        for number in range(4):
            data = SumData(
                name=f"sum-{number}", prompt=f"{number} + 1 = ?", system_prompt="Be brief.", answer=f"{number + 1}"
            )
            yield SumTask(data, self.config.task)


class EndlessTaskset(SumTaskset):
    INFINITE = True


class ToolTask(SumTask):
    async def setup(self, trace: Any, runtime: Any) -> None:
        await runtime.run(["true"], {})


class ToolTaskset(vf.Taskset[ToolTask, vf.TasksetConfig]):
    def load(self) -> Iterator[ToolTask]:
        yield ToolTask(SumData(name="a", prompt="b", answer="c"), self.config.task)


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules that a user writes, by the names that verifiers looks for."""
    for name, exported in {
        "proxmo_text": (TextEnv, TextTaskset),
        "sums": (SumTaskset,),
        "endless": (EndlessTaskset,),
        "tools_needed": (ToolTaskset,),
    }.items():
        module: Any = ModuleType(name)
        module.__spec__ = __import__("importlib.machinery", fromlist=["machinery"]).ModuleSpec(name, None)
        for thing in exported:
            setattr(module, thing.__name__, thing)
        module.__all__ = [thing.__name__ for thing in exported]
        monkeypatch.setitem(sys.modules, name, module)


def test_a_text_environment_comes_back_from_verifiers_as_it_was():
    here, there = (
        bare_env("env_wrappers/TextCraft-v0", SETTINGS),
        VerifiersTextEnv("proxmo-text", taskset_config=TASKSET),
    )
    assert there.tasks("train") == here.unwrapped.tasks("train")  # type: ignore[attr-defined]
    for task in there.tasks("train")[:2]:
        message, info = there.reset(options={"task": task})
        observation, _ = here.reset(seed=0, options={"task": task})
        assert observation in message
        assert (info["task"], info["success"]) == (task, False)
        *plan, last = here.unwrapped.plan()  # type: ignore[attr-defined]
        for action in plan:
            message, reward, over, _, info = there.step(action)
            assert here.step(action)[0] in message
            assert (reward, over, info["success"]) == (0.0, False, False)
        _, reward, over, _, info = there.step(last)
        assert (reward, over, info["success"]) == (1.0, True, True)
        assert there.step("look")[2:] == (True, False, info), "nothing begins after the end"
    there.close()


def test_a_taskset_of_one_reply_is_scored_by_its_own_task():
    env = VerifiersTextEnv("sums", valid=1)
    assert (env.tasks("train"), env.tasks("valid")) == (["sum-0", "sum-1", "sum-2"], ["sum-3"])
    assert env.reset(options={"task": "sum-2"})[0] == "Be brief.\n\n2 + 1 = ?"
    _, reward, over, _, info = env.step("3")
    assert (reward, over, info["success"]) == (1.0, True, True)
    env.reset(options={"task": "sum-2"})
    _, reward, over, _, info = env.step("4")
    assert (reward, over, info["success"]) == (0.0, True, False)
    env.close()


@pytest.mark.parametrize("arguments", [{"taskset": "sums"}, {"taskset": "proxmo-text", "taskset_config": TASKSET}])
def test_the_contract_is_kept(arguments: dict[str, Any]):
    findings = check_environment(VerifiersTextEnv, arguments=arguments, tasks=1, steps=4)
    assert [finding for finding in findings if finding.rule != "copies"] == []


def test_what_cannot_be_played_is_said():
    with pytest.raises(ValueError, match="taskset='nowhere'"):
        VerifiersTextEnv("nowhere")
    with pytest.raises(ValueError, match="taskset='endless' never ends; say how many tasks to read with num_tasks="):
        VerifiersTextEnv("endless")
    assert len(VerifiersTextEnv("endless", num_tasks=2).tasks("train")) == 2
    with pytest.raises(ValueError, match=r"taskset='tools-needed' needs a runtime \(setup\), which is not here"):
        VerifiersTextEnv("tools-needed")
    with pytest.raises(ValueError, match="valid=4: the taskset has 4 tasks"):
        VerifiersTextEnv("sums", valid=4)
    with pytest.raises(ValueError, match="leave history out"):
        VerifiersTextEnv("proxmo-text", taskset_config={"prompting": {"history": 2}})


class Expert(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint whose model knows the solution of the task that is played."""

    plan: list[str] = []
    asked: list[Any] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        said = self.plan[sum(message["role"] == "assistant" for message in body["messages"])]
        base = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "expert"}
        chunks: list[Any] = [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": said}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}},
        ]
        events = [f"data: {json.dumps(base | chunk)}\n\n" for chunk in chunks]
        content = "".join([*events, "data: [DONE]\n\n"]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def test_an_episode_goes_through_verifiers_own_machinery(monkeypatch: pytest.MonkeyPatch):
    """Its endpoint, its harness in a process of its own, its trace; the model is a server that knows the plan.

    The harness is a script for which uv makes an environment: it is downloaded once.
    """
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # so that uv is found
    bare: Any = bare_env("env_wrappers/TextCraft-v0", SETTINGS).unwrapped
    task_id = bare.tasks("train")[0]
    bare.reset(seed=0, options={"task": task_id})
    Expert.plan = bare.plan()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Expert)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = vf.env_config_type("proxmo-text").model_validate({"taskset": {"id": "proxmo-text", **TASKSET}})
    env = vf.load_environment(config)

    async def play() -> Any:
        client = vf.EvalClientConfig(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key_var="NO_KEY")
        async with env.serving():
            return await env.run_episode(next(iter(env.taskset)), vf.ModelContext("expert", client))

    try:
        episode = asyncio.run(play())
    finally:
        server.shutdown()
    (trace,) = episode.traces
    assert not episode.errors
    assert trace.reward == 1.0
    assert trace.metrics["success"] == 1.0
    assert trace.metrics["turns"] == len(Expert.plan)
    played = PlayedEpisode(**trace.info["played"])
    assert (played.group, played.success, len(played)) == (task_id, True, len(Expert.plan))
    assert turn_advantages([played, PlayedEpisode(task_id, False, ["x"], [0.0])])[0].all()

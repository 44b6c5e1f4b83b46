"""`proxmo endpoint`: a tiny model on the transformers engine, OpenAI's client, and the record that the viewer opens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from proxmo_rllib.cli import main
from proxmo_rllib.endpoint.capture import Capture, CaptureLimits
from proxmo_rllib.endpoint.server import EndpointServer
from proxmo_rllib.types import Completion, SamplingParams
from proxmo_rllib.viewer.run import ViewedRun
from tests.endpoint.conftest import completion

TOKEN = "a-token-of-the-user"
# The command, for which Ctrl-C counts also where a shell has put the tests into the background.
PROXMO = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from proxmo_rllib.cli import main
sys.exit(main(sys.argv[1:]))
"""


def until(condition: Any, seconds: float = 240.0) -> Any:
    """Polls a process that cannot be waited for in another way."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found


class Engine:
    """Says its temperature."""

    def __init__(self, chat: Any) -> None:
        self.chat = chat
        self.asked: list[SamplingParams] = []

    async def generate(self, prompt_ids: list[int], params: SamplingParams) -> Completion:
        self.asked.append(params)
        return completion(self.chat, f"at {params.temperature:g}")


@pytest.fixture
def serve(chat: Any, tmp_path: Path) -> Iterator[Any]:
    """Serves an engine in a thread of this process: the address, the engine, and what ends it."""
    started: queue.SimpleQueue[Any] = queue.SimpleQueue()
    engine = Engine(chat)

    def run(idle_s: float) -> None:
        async def main() -> None:
            capture = Capture(engine, chat, tmp_path, CaptureLimits(20, 400, 8, idle_s), temperature=0.5)
            server = EndpointServer("127.0.0.1", 0, TOKEN, "policy", capture.open)
            watching = asyncio.ensure_future(capture.watch(server))
            started.put((server, asyncio.get_running_loop(), watching))
            await asyncio.wait([watching])
            server.stop()

        asyncio.run(main())

    def begin(idle_s: float = 600.0) -> Any:
        thread = threading.Thread(target=run, args=(idle_s,), daemon=True)
        thread.start()
        server, loop, watching = started.get(timeout=60)

        def end() -> None:
            loop.call_soon_threadsafe(watching.cancel)
            thread.join(60)

        ends.append(end)
        return server, engine, end

    ends: list[Any] = []
    yield begin
    for end in ends:
        with contextlib.suppress(RuntimeError):  # it has ended
            end()


def client_of(server: EndpointServer, episode: str) -> openai.OpenAI:
    headers = {"X-Task": "lamps"}
    return openai.OpenAI(
        base_url=server.base_url(episode), api_key=TOKEN, default_headers=headers, max_retries=0, timeout=60
    )


def reward(server: EndpointServer, episode: str) -> None:
    body = json.dumps({"reward": 2.0, "success": True}).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(server.reward_url(episode), body, headers), timeout=60).read()


def talk(client: openai.OpenAI, **settings: Any) -> str:
    messages: list[Any] = [{"role": "user", "content": "You see a lamp."}]
    reply = client.chat.completions.create(model="policy", messages=messages, **settings)
    return str(reply.choices[0].message.content)


def test_episodes_are_recorded_as_they_were_sampled(serve: Any, tmp_path: Path):
    server, engine, end = serve()
    assert talk(client_of(server, "first")) == "at 0.5"
    assert talk(client_of(server, "first"), temperature=0, max_tokens=6, seed=7) == "at 0"
    assert [(p.max_tokens, p.seed) for p in engine.asked] == [(8, None), (6, 7)]
    with pytest.raises(openai.BadRequestError, match=r"top_p=0\.5"):
        talk(client_of(server, "first"), top_p=0.5)
    talk(client_of(server, "second"))
    reward(server, "first")
    end()
    run = ViewedRun(tmp_path)
    (group,) = run.groups
    assert group.task == "lamps"
    episodes = {episode["episode"]: episode for episode in run.group(group)["episodes"]}
    first, second = episodes["first"], episodes["second"]
    assert (first["status"], first["return"]) == ("success", 2.0)
    assert [turn["response"] for turn in first["turns"]] == ["at 0.5", "at 0"]
    assert all(len(turn["tokens"]) == len(turn["logprobs"]) for turn in first["turns"])
    assert (second["status"], second["error"]) == ("error", "the endpoint was ended before its reward")


def test_an_id_is_used_once_and_who_is_silent_is_given_up(serve: Any, tmp_path: Path):
    server, _, end = serve(idle_s=0.2)
    talk(client_of(server, "silent"))

    def is_over() -> bool:
        try:
            reward(server, "silent")
        except urllib.error.HTTPError as error:
            return error.code == 410
        raise AssertionError("it took a reward")

    until((tmp_path / "episodes.jsonl.gz").exists)
    assert is_over()
    end()
    (group,) = ViewedRun(tmp_path).groups
    assert group.statuses == ["error"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_react_loop_is_served_and_recorded(tiny_policy: Path, tmp_path: Path):
    output, log = tmp_path / "captured", tmp_path / "log.txt"
    command = [sys.executable, "-c", PROXMO, "endpoint", str(tiny_policy), "--output", str(output)]
    command += ["--engine", "transformers", "--max-model-len", "512", "--max-response-tokens", "16"]
    environment = {**os.environ, "PROXMO_ENDPOINT_TOKEN": TOKEN}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    try:
        base = until(lambda: (process.poll(), re.search(r"OPENAI_BASE_URL=(\S+)/episodes/ID", log.read_text()))[1])[1]
        for episode in ("first", "second"):
            client = openai.OpenAI(
                base_url=f"{base}/episodes/{episode}/v1", api_key=TOKEN, default_headers={"X-Task": "lamps"}
            )
            messages: list[Any] = [{"role": "user", "content": "You see a lamp."}]
            for _ in range(2):
                reply = client.chat.completions.create(model="policy", messages=messages, temperature=0.7, seed=3)
                messages += [{"role": "assistant", "content": reply.choices[0].message.content}]
                messages += [{"role": "user", "content": "Go on."}]
        with pytest.raises(openai.BadRequestError, match=r"top_p=0\.5"):
            client.chat.completions.create(model="policy", messages=messages, top_p=0.5)
        body = json.dumps({"reward": 2.0, "success": True}).encode()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        urllib.request.urlopen(
            urllib.request.Request(f"{base}/episodes/first/reward", body, headers), timeout=30
        ).read()
        until(lambda: (output / "episodes.jsonl.gz").exists())
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(60)
    assert status == 0, log.read_text()
    assert f"2 episodes are in {output}" in log.read_text()
    run = ViewedRun(output)
    (group,) = run.groups
    assert group.task == "lamps"
    first, second = run.group(group)["episodes"]
    assert (first["status"], first["return"]) == ("success", 2.0)
    assert [turn["observation"] for turn in first["turns"]] == ["You see a lamp.", "Go on."]
    assert all(len(turn["tokens"]) == len(turn["logprobs"]) for turn in first["turns"])
    assert second["status"] == "error"
    assert "ended before its reward" in second["error"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--port", "70000"], "--port 70000: give a number"),
        (["--temperature", "9"], "--temperature 9.0: it is a number from 0 to 2"),
        (["--max-turns", "0"], "--max-turns 0: it is above 0"),
    ],
)
def test_a_wrong_word_is_named(words: list[str], complaint: str, tmp_path: Path, capsys: Any):
    with pytest.raises(SystemExit):
        main(["endpoint", "model", "--output", str(tmp_path), *words])
    assert complaint in capsys.readouterr().err


def test_lengths_that_do_not_fit_are_said_before_the_model_is_loaded(tiny_policy: Path, tmp_path: Path, capsys: Any):
    words = ["endpoint", str(tiny_policy), "--output", str(tmp_path), "--engine", "transformers"]
    assert main([*words, "--max-model-len", "64", "--max-response-tokens", "64"]) == 1
    assert "--max-response-tokens 64: it must be below --max-model-len 64" in capsys.readouterr().err
    assert main([*words, "--max-model-len", "100000"]) == 1
    assert "positions" in capsys.readouterr().err

"""`proxmo endpoint`: a tiny model on the transformers engine, OpenAI's client, and the record that the viewer opens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest

from proxmo_rllib.cli import main
from proxmo_rllib.viewer.run import ViewedRun

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

"""`proxmo serve`: what is wrong is said before anything starts; a real server answers, and nothing of it is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from proxmo_rllib.cli.serve import main

TINY = "asset:alfworld-tiny"


def test_a_dry_run_says_what_it_takes_and_how_vllm_is_called(capsys):
    assert main([TINY, "--dry-run", "--port", "0", "--max-num-seqs", "4", "--", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert re.match(r"1\.\d\d GiB, 2,048 tokens of prompt and reply, float32:", said)
    assert "4 requests of 2,048 tokens at a time" in said
    assert re.search(r"^python -m vllm\S+ --model \S+/alfworld-tiny --host 127\.0\.0\.1 .* --seed 3$", said, re.M)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["./nowhere"], "'./nowhere': there is no such folder"),
        (["EMPTY"], "the folder has no config.json"),
        (["ADAPTER"], "it is an adapter without its model"),
        (["asset:nothing"], "the package ships no such asset"),
        ([TINY, "--adapter", "EMPTY"], "it has no adapter_config.json that can be read"),
        ([TINY, "--max-model-len", "999999"], "has only 2048 positions; say fewer"),
        ([TINY, "--host", "no.such.host.invalid"], "--host no.such.host.invalid: there is no such address"),
        ([TINY, "--port", "99999"], "--port 99999: a port is a number"),
    ],
)
def test_what_cannot_be_served_is_named_with_a_remedy(words, said, tmp_path, capsys):
    (tmp_path / "ADAPTER").mkdir()
    (tmp_path / "ADAPTER" / "adapter_config.json").write_text('{"r": 8}')
    (tmp_path / "EMPTY").mkdir()
    words = [str(tmp_path / word) if word.isupper() else word for word in words]
    assert main([*words, "--dry-run"]) == 1
    assert said in capsys.readouterr().err


def test_a_port_in_use_is_named_before_anything_is_loaded(capsys):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert main([TINY, "--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert f"--port {port}: it cannot be listened on (Address already in use); say another --port, or 0" in said


def test_a_temporary_folder_whose_path_is_too_long_for_sockets_is_named(tmp_path, monkeypatch, capsys):
    deep = tmp_path / ("long" * 20)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    assert main([TINY, "--port", "0", "--dry-run"]) == 1
    assert f"TMPDIR={deep}: vLLM's sockets lie in it, and their paths may have 107 bytes" in capsys.readouterr().err


def test_a_model_that_vllm_cannot_run_is_refused(tmp_path, capsys):
    from proxmo_rllib.policies.loading import ASSETS

    shutil.copytree(ASSETS / "alfworld-tiny", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"architectures": ["NoSuchForCausalLM"]}))
    assert main([str(tmp_path / "model"), "--port", "0", "--dry-run"]) == 1
    assert "vLLM has no NoSuchForCausalLM. `proxmo chat` talks to it without vLLM" in capsys.readouterr().err


def ask(url: str, key: str | None, content: dict | None = None) -> dict:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, content and json.dumps(content).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.timeout(1200)
def test_a_server_answers_openais_client_and_ends_at_ctrl_c_with_all_its_processes():
    from openai import OpenAI

    scratch = Path(tempfile.mkdtemp(prefix="serve_"))  # not pytest's: the path of a socket may have 107 characters

    process = subprocess.Popen(
        [sys.executable, "-m", "proxmo_rllib.cli", "serve", TINY, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(scratch)},
    )
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if line.lstrip().startswith("proxmo chat"):
                break
        ready = re.search(r"ready after \d+ s: (\S+)/v1 .* key: (\S+)", "".join(lines))
        assert ready, "".join(lines)
        url, key = ready[1], ready[2]
        curl = next(line for line in lines if "curl" in line)
        family = [process, *psutil.Process(process.pid).children(recursive=True)]
        assert any("EngineCore" in " ".join(child.cmdline()) + child.name() for child in family[1:])
        for path in ("/v1/models", "/invocations", "/metrics"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                ask(url + path, None)
        listening = {c.laddr.ip for child in family[1:] for c in child.net_connections() if c.status == "LISTEN"}
        assert listening == {"127.0.0.1"}

        client = OpenAI(base_url=f"{url}/v1", api_key=key)
        messages = [{"role": "user", "content": "You are in the middle of a room. What do you do?"}]
        reply = client.chat.completions.create(
            model="policy", messages=messages, max_tokens=32, logprobs=True, temperature=1.0, seed=1
        )
        assert reply.choices[0].finish_reason == "stop"
        assert all(token.logprob <= 0 for token in reply.choices[0].logprobs.content)
        streamed = client.chat.completions.create(
            model="policy", messages=messages, max_tokens=32, temperature=1.0, seed=1, stream=True
        )
        assert "".join(c.choices[0].delta.content or "" for c in streamed) == reply.choices[0].message.content
        typed = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True)
        assert json.loads(typed.stdout)["model"] == "policy"

        talk = subprocess.run(
            [sys.executable, "-m", "proxmo_rllib.cli", "chat", f"{url}/v1", "--api-key", key, "--max-tokens", "16"],
            input="You are in a room.\n/reset\n/quit\n",
            capture_output=True,
            text=True,
            check=True,
        )
        assert talk.stdout.strip()

        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        _, alive = psutil.wait_procs(family[1:], timeout=10)
        assert alive == []
        assert not [path for path in scratch.iterdir() if path.name.startswith("proxmo_scratch_")]
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(scratch, ignore_errors=True)

"""Hub names where there is no network: an answer in seconds, from the cache or in words."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest

from proxmo_rllib.policies.hub import _server

SCRIPT = """
import sys, time
from proxmo_rllib.policies import loading
started = time.monotonic()
for load in (loading.load_tokenizer, loading.load_causal_lm, loading.max_positions):
    try:
        print(type(load(sys.argv[1])))
    except ValueError as error:
        print(error)
print("seconds", time.monotonic() - started)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def offline(tmp_path):
    """The environment of a process whose hub does not answer, and whose cache is empty."""
    keep = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    return keep | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": f"http://127.0.0.1:{free_port()}"}


def run(environment, name):
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, name], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    *said, seconds = ended.stdout.splitlines()
    return said, float(seconds.split()[1])


@pytest.mark.slow
def test_without_a_network_a_hub_name_fails_at_once_and_says_why(offline):
    said, seconds = run(offline, "Qwen/Qwen2.5-0.5B-Instruct")
    assert len(said) == 3
    for line in said:
        assert line.startswith("pretrained='Qwen/Qwen2.5-0.5B-Instruct' cannot be loaded")
        assert "127.0.0.1 does not answer" in line
        assert "cache" in line
    assert seconds < 20  # of which most go into imports


@pytest.mark.slow
def test_without_a_network_a_model_of_the_cache_is_loaded(offline, tmp_path, tiny_policy):
    repository = tmp_path / "hub" / "models--some--model"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(tiny_policy)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    said, seconds = run(offline, "some/model")
    assert not [line for line in said if "cannot be loaded" in line]
    assert seconds < 20


@pytest.mark.parametrize(
    ("endpoint", "proxies", "expected"),
    [
        ("https://huggingface.co", {}, ("huggingface.co", 443)),
        ("http://mirror:8080/hf", {}, ("mirror", 8080)),
        ("https://huggingface.co", {"https_proxy": "http://proxy:3128"}, ("proxy", 3128)),
        ("https://huggingface.co", {"all_proxy": "proxy:3128"}, ("proxy", 3128)),
        ("https://mirror.local", {"https_proxy": "http://proxy:3128", "no_proxy": ".local"}, ("mirror.local", 443)),
    ],
)
def test_what_is_asked_is_what_a_request_would_go_to_first(monkeypatch, endpoint, proxies, expected):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    assert _server(endpoint) == expected


def test_time_is_not_spent_where_the_answer_is_known():
    """The tests themselves run with HF_HUB_OFFLINE=1."""
    from proxmo_rllib.policies.hub import obstacle

    started = time.monotonic()
    assert obstacle() == "HF_HUB_OFFLINE is set"
    assert time.monotonic() - started < 5

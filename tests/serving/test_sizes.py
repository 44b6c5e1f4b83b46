"""vLLM is told sizes that follow from the model and from the room that there is."""

from __future__ import annotations

import pytest

from proxmo_rllib.planning.hardware import GIB
from proxmo_rllib.planning.model import PlannedModel
from proxmo_rllib.serving.command import Served, environment_for_vllm, words_for_vllm
from proxmo_rllib.serving.sizes import DoesNotFitError, Room, Sizes, choose_sizes

LAPTOP = Room("this machine", 16 * GIB)
CARD = Room("the GPU", 79 * GIB, 80 * GIB)


@pytest.fixture(scope="module")
def tiny():
    return PlannedModel.read("asset:alfworld-tiny")


@pytest.fixture(scope="module")
def large():
    return PlannedModel.read("Qwen/Qwen2.5-7B")


def sizes(model, room, dtype="bfloat16", max_model_len=2048, max_num_seqs=16) -> Sizes:
    return choose_sizes(model, room, dtype=dtype, max_model_len=max_model_len, max_num_seqs=max_num_seqs)


def test_a_million_weights_take_two_gigabytes_and_not_a_share_of_the_machine(tiny):
    assert sizes(tiny, LAPTOP).bytes < 2 * GIB
    assert sizes(tiny, LAPTOP) == sizes(tiny, Room("a large machine", 1000 * GIB))


def test_the_cache_holds_the_requests_that_are_answered_at_a_time(tiny):
    # 1.1 million weights in 2 layers with heads of 32: see its config.json.
    token = 2 * tiny.shape.cached_values
    for requests in (1, 8, 64):
        cache = sizes(tiny, LAPTOP, max_num_seqs=requests).cache_bytes
        assert requests * 2048 * token <= cache <= requests * 2048 * token * 1.2


def test_where_room_is_scarce_the_cache_is_smaller_and_one_request_is_the_least(large):
    scarce = sizes(large, Room("this machine", 21 * GIB))
    assert scarce.bytes <= 0.9 * 21 * GIB + 1
    assert scarce.cache_bytes < sizes(large, Room("this machine", 64 * GIB)).cache_bytes
    with pytest.raises(DoesNotFitError, match=r"7B does not fit: .*weights 15\.2.* this machine has 16\.00 GiB free"):
        sizes(large, LAPTOP)


def test_a_refusal_names_what_would_fit(large):
    with pytest.raises(DoesNotFitError, match="--dtype bfloat16 halves the weights"):
        sizes(large, Room("this machine", 24 * GIB), dtype="float32")
    room = Room("this machine", 21 * GIB)
    with pytest.raises(DoesNotFitError, match=r"--max-model-len (\d+) fits") as refused:
        sizes(large, room, max_model_len=32768)
    fitting = int(str(refused.value).partition("--max-model-len ")[2].split()[0])
    assert sizes(large, room, max_model_len=fitting).cache_bytes


def test_of_a_card_vllm_takes_what_it_needs(tiny, large):
    assert sizes(tiny, LAPTOP).gpu_share is None
    assert 0.02 < sizes(tiny, CARD).gpu_share < 0.1
    share = sizes(large, CARD, max_num_seqs=8).gpu_share
    assert 15.2 / 80 < share < 0.4
    assert sizes(large, CARD, max_num_seqs=10_000).gpu_share == pytest.approx(0.92 * 0.97, abs=0.05)


def served(sizes: Sizes, **settings) -> Served:
    from pathlib import Path

    return Served(Path("/models/one"), sizes, "127.0.0.1", 8000, **settings)


def test_the_words_for_vllm_hold_the_sizes_and_no_key(tiny):
    words = words_for_vllm(served(sizes(tiny, LAPTOP), template_kwargs={"enable_thinking": False}))
    said = dict(zip(words[0::2], words[1::2], strict=False))
    assert said["--model"] == "/models/one"
    assert said["--host"] == "127.0.0.1"
    assert said["--max-model-len"] == "2048"
    assert int(said["--kv-cache-memory-bytes"]) == sizes(tiny, LAPTOP).cache_bytes
    assert said["--default-chat-template-kwargs"] == '{"enable_thinking": false}'
    assert not any("key" in word for word in words)


def test_an_adapter_is_the_policy_and_the_model_under_it_is_called_base(tiny, tmp_path):
    words = words_for_vllm(served(sizes(tiny, LAPTOP), adapter=tmp_path, adapter_rank=12))
    assert words[words.index("--served-model-name") + 1] == "base"
    assert words[words.index("--lora-modules") + 1] == f"policy={tmp_path}"
    assert words[words.index("--max-lora-rank") + 1] == "16"


def test_the_key_is_in_the_environment_and_what_the_user_set_stays(tmp_path):
    found = environment_for_vllm({"VLLM_LOGGING_LEVEL": "DEBUG", "PATH": "/bin"}, "the key", tmp_path)
    assert found["PROXMO_API_KEY"] == "the key"
    assert found["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert found["TMPDIR"] == str(tmp_path)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("gpu7.lab", "http://gpu7.lab:8000"),
    ],
)
def test_the_address_that_is_said_can_be_asked_on_this_machine(tiny, host, url):
    from dataclasses import replace

    assert replace(served(sizes(tiny, LAPTOP)), host=host).url == url

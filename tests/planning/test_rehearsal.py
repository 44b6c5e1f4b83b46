"""A pass without memory counts what a real one takes."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from proxmo_rllib.config_records import LoRA
from proxmo_rllib.learner.module import _in_parts
from proxmo_rllib.learner.own_forward import OwnForward
from proxmo_rllib.planning.rehearsal import Arithmetic, Rehearsal, _LiveStorages
from proxmo_rllib.policies.attention import choose_attention
from tests.model_families import FAMILIES

QUICK = ("llama", "gemma3", "qwen3_moe", "qwen3_5")  # one of each kind of layer


def counted_for_real(config: Any) -> float:
    """Bytes of a pass of two sequences of 40 tokens, of tensors that have contents."""
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    choose_attention(lm)
    policy = OwnForward(lm)
    ids = torch.randint(200, (2, 40))

    def work() -> None:
        hidden = policy.hidden(ids)[:, :-1].flatten(0, 1)
        logprobs, entropy = _in_parts(policy, hidden, ids[:, 1:].flatten(), 0.7)
        (logprobs.sum() + entropy.sum()).backward()

    work()  # makes the gradients
    gc.collect()
    with _LiveStorages() as counted:
        counted.ignore(lm)
        work()
    return counted.peak.all


@pytest.mark.parametrize("family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
def test_a_rehearsal_counts_what_a_real_pass_takes(family: str) -> None:
    config = FAMILIES[family](200)
    assert Rehearsal(config, Arithmetic()).a_pass(2, 40).all == pytest.approx(counted_for_real(config), rel=0.1)


def small(layers: int = 8) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )


@pytest.mark.parametrize(
    "arithmetic",
    [
        Arithmetic(),
        Arithmetic("bfloat16"),
        Arithmetic("bfloat16", gradient_checkpointing=True),
        Arithmetic("bfloat16", lora=LoRA(rank=4)),
        Arithmetic("bfloat16", sharded=True),
    ],
)
def test_a_few_layers_say_what_all_of_them_take(arithmetic: Arithmetic, monkeypatch: pytest.MonkeyPatch) -> None:
    of_few = Rehearsal(small(), arithmetic).a_pass(2, 64)
    monkeypatch.setattr("proxmo_rllib.planning.rehearsal._period", lambda text: text.num_hidden_layers)
    assert of_few.all == pytest.approx(Rehearsal(small(), arithmetic).a_pass(2, 64).all, rel=0.02)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_many_sequences_are_reckoned_without_their_logits(checkpointing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With checkpointing the peak of few sequences is at the logits, and that of many in a layer that is made again."""
    monkeypatch.setattr("proxmo_rllib.learner.module.MAX_LOGITS", 20 * 500)
    rehearsal = Rehearsal(small(4), Arithmetic(gradient_checkpointing=checkpointing))
    for sequences in (3, 12):
        expected = rehearsal._rehearse(sequences, 64).all
        assert rehearsal.a_pass(sequences, 64).all == pytest.approx(expected, rel=0.03)


def test_a_pass_takes_the_same_however_often_it_is_made() -> None:
    rehearsal = Rehearsal(small(2), Arithmetic())
    assert rehearsal._rehearse(2, 64) == rehearsal._rehearse(2, 64)


def test_what_saves_memory_is_seen_to() -> None:
    plain, saving, adapted = (
        Rehearsal(small(), Arithmetic("bfloat16", checkpointing, lora)).a_pass(4, 256).all
        for checkpointing, lora in ((False, None), (True, None), (False, LoRA(rank=4)))
    )
    assert saving < 0.6 * plain
    assert adapted < plain


def test_layers_of_two_kinds_are_made_in_whole_periods() -> None:
    config = FAMILIES["gemma3"](200)
    config.num_hidden_layers = 12
    config.layer_types = ["sliding_attention", "full_attention"] * 6
    rehearsal = Rehearsal(config, Arithmetic())
    assert [number for number, _ in rehearsal._models] == [4, 6]


def test_a_cpus_heap_keeps_what_it_took() -> None:
    passes = Rehearsal(small(), Arithmetic()).a_pass(2, 64)
    assert passes.large == 0
    assert passes.on_device == passes.all
    assert passes.on_host == 1.5 * passes.small

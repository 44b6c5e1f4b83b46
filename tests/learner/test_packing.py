"""Packed rows: nothing is lost, nothing sees what it must not, and the gradient is that of plain rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from proxmo_rllib.learner import columns, packed_attention
from proxmo_rllib.learner.packed_attention import PACKED, use_packed_attention
from proxmo_rllib.learner.packing import Packed, pack, split_for_packing
from proxmo_rllib.policies.loading import load_causal_lm
from tests.learner.test_model_families import build_module
from tests.model_families import FAMILIES, save_family

VOCAB = 200
#: Families that cannot be packed, and why.
PADDED = {"qwen3_5": "linear_attention", "gemma2": "eager", "gpt_oss": "eager"}


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    return ids, lengths


def places_of(packed: Packed, rows: list[list[int]], number: int) -> np.ndarray:
    start = packed.row_starts[number]
    return packed.places[start : start + len(rows[number])]


# Few different tokens, so that rows often begin alike.
ROWS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=40), min_size=1, max_size=12)
OPENED = st.builds(
    lambda rows, opening, cut: [opening[: cut % 30] + row for row in rows],
    ROWS,
    st.just(list(range(2, 32))),
    st.integers(0, 29),
)


@settings(max_examples=300, deadline=None)
@given(ROWS | OPENED)
def test_every_row_can_be_read_from_the_packed_tokens(rows):
    packed = pack(*padded(rows))
    span_of = {place: span for span in packed.spans for place in range(span.start, span.stop)}
    for number, row in enumerate(rows):
        places = places_of(packed, rows, number)
        assert packed.token_ids[places].tolist() == row
        assert packed.positions[places].tolist() == list(range(len(row)))
        # What its last token attends to is the row, in order, and nothing else.
        span = span_of[int(places[-1])]
        seen = [i for r in (*span.context, (span.start, int(places[-1]) + 1)) for i in range(*r)]
        assert seen == places.tolist()
    assert [(span.start, span.stop) for span in packed.spans] == [
        (start, stop)
        for start, stop in zip(
            [0, *[span.stop for span in packed.spans][:-1]], [span.stop for span in packed.spans], strict=True
        )
    ]
    assert len(packed.token_ids) == packed.spans[-1].stop <= sum(map(len, rows))


def test_a_beginning_is_there_once():
    opening = list(range(20))
    rows = [[*opening, 1, 2], [3, 4], [*opening, 5], [*opening, 1, 2]]
    packed = pack(*padded(rows))
    assert len(packed.token_ids) == 20 + 2 + 1 + 2


@settings(max_examples=200, deadline=None)
@given(ROWS | OPENED, st.integers(1, 120))
def test_each_row_is_in_one_micro_batch_within_the_budget(rows, budget):
    ids, lengths = padded(rows)
    parts = split_for_packing(torch.from_numpy(ids), torch.from_numpy(lengths), budget)
    assert sorted(int(row) for part in parts for row in part) == list(range(len(rows)))
    for part in parts:
        size = len(pack(ids[part.numpy()], lengths[part.numpy()]).token_ids)
        assert size <= budget or len(part) == 1


def batch_of(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    ids, lengths = padded(rows)
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(ids.shape, generator=generator) < 0.5
    mask &= torch.arange(ids.shape[1]) < torch.from_numpy(lengths)[:, None]
    mask[:, 0] = False
    return {
        columns.TOKEN_IDS: torch.from_numpy(ids),
        columns.LENGTHS: torch.from_numpy(lengths),
        columns.LOSS_MASK: mask,
    }


def rows_that_share() -> list[list[int]]:
    rng = np.random.default_rng(1)
    opening, second = rng.integers(VOCAB, size=24).tolist(), rng.integers(VOCAB, size=11).tolist()
    ends = [rng.integers(VOCAB, size=n).tolist() for n in (9, 30, 1, 17)]
    return [opening + ends[0], opening + second + ends[1], ends[3], opening + second + ends[2], opening + second]


def gradient(lm: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    lm.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("family", "block"), [*((family, 256) for family in FAMILIES), ("llama", 4), ("gemma3", 4), ("mistral", 4)]
)
def test_the_gradient_is_that_of_plain_rows(family, block, tmp_path: Path, monkeypatch):
    """Also with windows, and with a mask that is taken in blocks."""
    monkeypatch.setattr(packed_attention, "_BLOCK", block)
    folder = save_family(family, tmp_path, VOCAB, scale=3.0)
    module = build_module(folder)
    assert (module.lm.config._attn_implementation == PACKED) == (family not in PADDED)
    batch = batch_of(rows_that_share())
    logprobs = module.forward_train(batch)[columns.LOGPROBS]
    weights = torch.linspace(-1, 1, len(logprobs))
    found = gradient(module.lm, (weights * logprobs).sum())

    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    expected = []
    names = (columns.TOKEN_IDS, columns.LOSS_MASK, columns.LENGTHS)
    for ids, mask, length in zip(*(batch[name] for name in names), strict=True):
        row = ids[:length]
        scores = (plain(input_ids=row[None]).logits[0].float() / 0.7).log_softmax(-1)
        picked = scores[:-1].gather(1, row[1:, None])[:, 0]
        expected.append(picked[mask[1:length]])
    torch.testing.assert_close(logprobs, torch.cat(expected), atol=1e-4, rtol=1e-3)
    other = gradient(plain, (weights * torch.cat(expected)).sum())
    assert found.keys() == other.keys()
    for name, value in found.items():
        scale = float(other[name].abs().max())
        torch.testing.assert_close(value, other[name], atol=1e-3 * max(scale, 1e-3), rtol=1e-2, msg=name)


@pytest.mark.parametrize("family", list(PADDED))
def test_what_cannot_be_packed_says_why(family, tmp_path):
    lm = load_causal_lm(save_family(family, tmp_path, VOCAB))
    before = lm.config._attn_implementation
    assert PADDED[family] in str(use_packed_attention(lm))
    assert lm.config._attn_implementation == before


def test_a_model_that_hides_its_window_is_not_packed(tmp_path):
    """A probe of a few tokens would not show a window of thousands."""
    lm = load_causal_lm(save_family("llama", tmp_path, VOCAB))
    lm.config.sliding_window = 4096
    assert "0 of 2 their window" in str(use_packed_attention(lm))


def test_gradient_checkpointing_packs_in_the_second_pass_too(tmp_path):
    folder = save_family("qwen2", tmp_path, VOCAB, scale=3.0)
    batch = batch_of(rows_that_share())
    found = []
    for checkpointing in (False, True):
        module = build_module(folder, gradient_checkpointing=checkpointing)
        found.append(gradient(module.lm, module.forward_train(batch)[columns.LOGPROBS].sum()))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name])


def test_attention_gets_the_type_that_the_arithmetic_has(tmp_path, monkeypatch):
    """Rotary embeddings leave queries and keys in float32, which a GPU's kernel for all spans at once does not take."""
    module = build_module(save_family("qwen2", tmp_path, VOCAB), dtype="bfloat16")
    seen = set()

    def watched(*tensors: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        seen.update(tensor.dtype for tensor in tensors)
        return torch.nn.functional.scaled_dot_product_attention(*tensors, **kwargs)

    monkeypatch.setattr(packed_attention, "scaled_dot_product_attention", watched)
    module.forward_train(batch_of(rows_that_share()))
    assert seen == {torch.bfloat16}


def plain_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_ends: torch.Tensor,
    key_ends: torch.Tensor,
    most_queries: int,
    most_keys: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """What `varlen_attn` says that it does, which has no CPU kernel: the last query of each span sees its last key."""
    found = []
    for span in range(len(query_ends) - 1):
        q = query[query_ends[span] : query_ends[span + 1]]
        k, v = (tensor[key_ends[span] : key_ends[span + 1]] for tensor in (key, value))
        assert len(q) <= most_queries
        assert len(k) <= most_keys
        ahead = torch.arange(len(k)) - torch.arange(len(q))[:, None] - (len(k) - len(q))
        seen = (ahead <= window_size[1]) & ((ahead >= -window_size[0]) | (window_size[0] == -1))
        q, k, v = (tensor.transpose(0, 1)[None] for tensor in (q, k, v))
        done = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, scale=scale, enable_gqa=enable_gqa
        )
        found.append(done[0].transpose(0, 1))
    return torch.cat(found)


@pytest.mark.parametrize("window", [None, 1, 7, 500])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_all_spans_at_once_are_asked_for_what_they_are_one_by_one(window, key_heads, monkeypatch):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", plain_varlen)
    packed = pack(*padded(rows_that_share()))
    layout = packed_attention.Layout(packed, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn((1, heads, len(packed.token_ids), 8), generator=generator) for heads in (4, key_heads, key_heads)
    )
    at_once, one_by_one = (
        attend(q, k, v, layout, 0.3, window) for attend in (packed_attention._all_at_once, packed_attention._one_by_one)
    )
    torch.testing.assert_close(at_once, one_by_one)

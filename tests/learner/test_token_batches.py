"""Sequences in padded columns, and micro-batches within their budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from proxmo_rllib.learner import columns
from proxmo_rllib.learner.token_batches import pad_sequences, split_by_token_budget, take_rows


@pytest.mark.parametrize("append", [True, False], ids=["append", "window"])
def test_columns_are_aligned_with_the_tokens_they_speak_of(tools: Any, append: bool):
    episodes = [episode for group in tools.groups(2, 3, append=append, empty=1) for episode in group.episodes]
    advantages = {e.episode_id: np.arange(len(e)) + 10.0 * index for index, e in enumerate(episodes)}
    batch = pad_sequences(episodes, advantages)
    trained = np.concatenate([turn.response_ids for e in episodes for turn in e.turns])
    assert np.array_equal(batch[columns.TOKEN_IDS][batch[columns.LOSS_MASK]], trained)
    logprobs = np.concatenate([turn.logprobs for e in episodes for turn in e.turns])
    assert np.array_equal(batch[columns.BEHAVIOUR_LOGPROBS][batch[columns.LOSS_MASK]], logprobs)
    expected = [a for e in episodes for a, t in zip(advantages[e.episode_id], e.turns, strict=True) for _ in t.logprobs]
    assert batch[columns.ADVANTAGES][batch[columns.LOSS_MASK]].tolist() == expected
    assert not batch[columns.ADVANTAGES][~batch[columns.LOSS_MASK]].any()
    assert batch[columns.LENGTHS].tolist() == [len(s.token_ids) for e in episodes for s in e.sequences()]
    assert len(batch[columns.LENGTHS]) == (5 if append else sum(len(e) for e in episodes))


@pytest.mark.parametrize("budget", [1, 7, 50, 10_000])
def test_micro_batches_hold_every_row_once_within_the_budget(budget: int):
    lengths = torch.from_numpy(np.random.default_rng(0).integers(1, 40, 57))
    parts = split_by_token_budget(lengths, budget)
    assert sorted(torch.cat(parts).tolist()) == list(range(57))
    for rows in parts:
        padded = len(rows) * int(lengths[rows].max())
        assert padded <= budget or len(rows) == 1


def test_rows_are_cut_to_the_longest_of_them():
    batch = {
        columns.LENGTHS: torch.tensor([2, 4, 3]),
        columns.TOKEN_IDS: torch.tensor([[1, 2, 0, 0], [3, 4, 5, 6], [7, 8, 9, 0]]),
    }
    part = take_rows(batch, torch.tensor([2, 0]))
    assert part[columns.TOKEN_IDS].tolist() == [[7, 8, 9], [1, 2, 0]]
    assert part[columns.LENGTHS].tolist() == [3, 2]

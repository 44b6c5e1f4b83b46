"""Shards: whole groups, balanced by tokens."""

from __future__ import annotations

import numpy as np
import pytest

from proxmo_rllib.learner import GroupedTrainingData


def shards(tokens: list[int], number: int) -> list[GroupedTrainingData]:
    data = GroupedTrainingData(group_refs=[f"ref-{index}" for index in range(len(tokens))], group_tokens=tokens)
    data.validate()
    return [shard for shard, _ in data.shard(number)]


@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_every_group_goes_whole_to_one_shard(number: int):
    tokens = np.random.default_rng(number).integers(1, 1000, 40).tolist()
    parts = shards(tokens, number)
    assert sorted(ref for part in parts for ref in part.group_refs) == sorted(f"ref-{index}" for index in range(40))
    for part in parts:
        assert [tokens[int(ref.removeprefix("ref-"))] for ref in part.group_refs] == list(part.group_tokens)


def test_shards_are_balanced_by_tokens_and_not_by_groups():
    parts = shards([1000, 10, 10, 10, 10, 10, 10, 940], 2)
    assert sorted(sum(part.group_tokens) for part in parts) == [1000, 1000]


def test_no_shard_is_empty():
    assert all(part.group_refs for part in shards([5, 0, 0, 0], 4))
    with pytest.raises(ValueError, match=r"2 whole groups for 3 learners: raise num_groups"):
        shards([5, 5], 3)


def test_data_that_cannot_be_learned_from_is_refused():
    with pytest.raises(ValueError, match="no group"):
        GroupedTrainingData().validate()
    with pytest.raises(ValueError, match="2 groups, but token counts of 1"):
        GroupedTrainingData(group_refs=["a", "b"], group_tokens=[1]).validate()

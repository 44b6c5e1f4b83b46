"""Training data of whole groups: RLlib's TrainingData, sharded without ever splitting a group."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import ray
from ray.rllib.core.learner.training_data import TrainingData

from proxmo_rllib.types import Group


def training_data(groups: Sequence[Group]) -> GroupedTrainingData:
    """Training data of groups.

    They are put into Ray's object store by this process, which owns them: they outlive the environment runner that
    played them.
    """
    return GroupedTrainingData(
        group_refs=[ray.put(group) for group in groups], group_tokens=[group.num_tokens for group in groups]
    )


@dataclasses.dataclass
class GroupedTrainingData(TrainingData):
    """References to whole groups.

    Attributes:
        group_refs: one object reference to a `Group` each.
        group_tokens: tokens of each group, by which the shards are balanced.
    """

    episodes: Any = None
    group_refs: Sequence[Any] = ()
    group_tokens: Sequence[int] = ()

    def validate(self) -> None:
        """Checks that there is something to learn from."""
        if not self.group_refs and self.episodes is None:
            raise ValueError("There is no group to learn from.")
        if self.group_refs and len(self.group_refs) != len(self.group_tokens):
            raise ValueError(f"{len(self.group_refs)} groups, but token counts of {len(self.group_tokens)}.")

    def shard(
        self, num_shards: int, len_lookback_buffer: int | None = None, **kwargs: Any
    ) -> list[tuple[TrainingData, dict[str, Any]]]:
        """Whole groups, the largest first to the shard with the fewest tokens.

        Raises:
            ValueError: there are fewer groups than shards, so a learner would have nothing.
        """
        if len(self.group_refs) < num_shards:
            raise ValueError(
                f"{len(self.group_refs)} whole groups for {num_shards} learners: raise num_groups, or look at the "
                "errors that dropped the others."
            )
        loads = [0] * num_shards
        members: list[list[int]] = [[] for _ in range(num_shards)]
        for index in sorted(range(len(self.group_refs)), key=lambda i: (-self.group_tokens[i], i)):
            # Fewest tokens; among equals fewest groups, so that empty groups cannot leave a shard without any.
            shard = min(range(num_shards), key=lambda s: (loads[s], len(members[s])))
            loads[shard] += self.group_tokens[index]
            members[shard].append(index)
        return [
            (
                GroupedTrainingData(
                    group_refs=[self.group_refs[i] for i in sorted(indices)],
                    group_tokens=[self.group_tokens[i] for i in sorted(indices)],
                ),
                {},
            )
            for indices in members
        ]

    def solve_refs(self) -> None:
        """Fetches the groups; afterwards `episodes` holds their episodes, group by group."""
        if self.episodes is None:
            groups: list[Group] = ray.get(list(self.group_refs))
            self.episodes = [episode for group in groups for episode in group.episodes]

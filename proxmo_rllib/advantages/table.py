"""The turns of one iteration as columns: what every estimator reads."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class TurnTable:
    """One row a turn. The rows of an episode are in time order; episodes come in any order, interleaved too.

    An episode is the pair (group, episode), so episode ids may repeat from group to group.

    Args:
        group: id of the group (episodes of one task from one initial state), shape [turns].
        episode: id of the episode within its group, shape [turns].
        reward: what the environment paid for the turn, shape [turns], finite.
        success: the environment's flag of the whole episode, repeated on each of its turns, shape [turns].
        anchor: the bare observation that the turn answered, without prompt or history, shape [turns].
        action_valid: whether the environment understood the turn's action, shape [turns]. Left out: not known, and
            an invalid-action penalty is refused.

    Raises:
        ValueError: columns of different length, no turn at all, a reward that is not finite, a success flag that
            changes within an episode.
        TypeError: an anchor that is not a str.
    """

    group: Sequence[Hashable] | npt.NDArray[Any]
    episode: Sequence[Hashable] | npt.NDArray[Any]
    reward: Sequence[float] | FloatArray
    success: Sequence[bool] | BoolArray
    anchor: Sequence[str]
    action_valid: Sequence[bool] | BoolArray | None = None

    group_ids: tuple[Hashable, ...] = field(init=False, repr=False)  # by group, in order of appearance
    group_of: IntArray = field(init=False, repr=False)  # [turns] index into group_ids
    anchor_of: IntArray = field(init=False, repr=False)  # [turns] index into distinct_anchors
    distinct_anchors: list[str] = field(init=False, repr=False)  # of each group, group after group
    anchor_starts: IntArray = field(init=False, repr=False)  # [groups + 1] of each group in distinct_anchors
    episode_of: IntArray = field(init=False, repr=False)  # [turns] index of the episode, in order of appearance
    time_step: IntArray = field(init=False, repr=False)  # [turns] 0 for the first turn of its episode
    next_turn: IntArray = field(init=False, repr=False)  # [turns] row of the episode's next turn, -1 at its end
    episode_group: IntArray = field(init=False, repr=False)  # [episodes] index into group_ids
    episode_length: IntArray = field(init=False, repr=False)  # [episodes] turns
    episode_success: FloatArray = field(init=False, repr=False)  # [episodes] 0 or 1
    episode_return: FloatArray = field(init=False, repr=False)  # [episodes] undiscounted sum of rewards

    def __post_init__(self) -> None:
        group, episode, anchor = _as_list(self.group), _as_list(self.episode), _as_list(self.anchor)
        reward = np.asarray(self.reward, dtype=np.float64)
        success = _flags("success", self.success)
        valid = None if self.action_valid is None else _flags("action_valid", self.action_valid)
        lengths = {"group": len(group), "episode": len(episode), "reward": len(reward)}
        lengths |= {"success": len(success), "anchor": len(anchor)}
        if valid is not None:
            lengths["action_valid"] = len(valid)
        if len(set(lengths.values())) != 1:
            raise ValueError(f"TurnTable: columns of different length {lengths}; give each one entry a turn.")
        if not group:
            raise ValueError("TurnTable: no turns; leave an iteration without a finished group out of training.")
        _require_finite(reward, group, episode)
        _require_text(anchor)

        group_of, group_ids = _factorize(group)
        pairs, first, _ = _number_pairs(group_of, episode)
        by_appearance = np.argsort(first)
        pairs, first = _inverse(by_appearance)[pairs], first[by_appearance]
        counts = np.bincount(pairs)
        by_episode = np.argsort(pairs, kind="stable")  # stable: the rows of an episode stay in time order
        starts = np.concatenate([[0], np.cumsum(counts)])
        time_step = np.empty(len(group), dtype=np.int64)
        time_step[by_episode] = np.arange(len(group)) - np.repeat(starts[:-1], counts)
        next_turn = np.full(len(group), -1, dtype=np.int64)
        follows = pairs[by_episode[1:]] == pairs[by_episode[:-1]]
        next_turn[by_episode[:-1][follows]] = by_episode[1:][follows]

        anchor_of, first_with_anchor, group_of_anchor = _number_pairs(group_of, anchor)

        changed = np.flatnonzero(success != success[first][pairs])
        if len(changed):
            row = int(changed[0])
            raise ValueError(
                f"TurnTable: row {row} (group {group[row]!r}, episode {episode[row]!r}) has success={success[row]}, "
                f"but row {int(first[pairs[row]])} of the same episode has the opposite; "
                "repeat the episode's flag on each of its turns."
            )
        values: dict[str, object] = {
            "group": group,
            "episode": episode,
            "anchor": anchor,
            "reward": reward,
            "success": success,
            "action_valid": valid,
            "group_ids": tuple(group_ids),
            "group_of": group_of,
            "anchor_of": anchor_of,
            "distinct_anchors": [anchor[row] for row in first_with_anchor.tolist()],
            "anchor_starts": np.searchsorted(group_of_anchor, np.arange(len(group_ids) + 1)),
            "episode_of": pairs,
            "time_step": time_step,
            "next_turn": next_turn,
            "episode_group": group_of[first],
            "episode_length": counts,
            "episode_success": success[first].astype(np.float64),
            "episode_return": np.bincount(pairs, weights=reward),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.group_of)

    @property
    def num_groups(self) -> int:
        return len(self.group_ids)

    @property
    def num_episodes(self) -> int:
        return len(self.episode_group)

    def episodes_per_group(self) -> IntArray:
        """Number of episodes of each group, shape [groups]."""
        return np.bincount(self.episode_group, minlength=self.num_groups)

    def in_group_of_one(self) -> BoolArray:
        """Whether the turn's episode has no other episode in its group to be compared with, shape [turns]."""
        return (self.episodes_per_group() == 1)[self.group_of]

    def success_rate(self) -> FloatArray:
        """Share of successful episodes of each group, shape [groups]."""
        wins = np.bincount(self.episode_group, weights=self.episode_success, minlength=self.num_groups)
        return wins / self.episodes_per_group()

    def rows_by_group(self) -> Iterator[IntArray]:
        """The rows of each group, in the order of `group_ids`."""
        order = np.argsort(self.group_of, kind="stable")
        ends = np.cumsum(np.bincount(self.group_of, minlength=self.num_groups))
        yield from np.split(order, ends[:-1])


def _as_list(column: Sequence[Any] | npt.NDArray[Any]) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def _flags(name: str, column: Sequence[bool] | BoolArray) -> BoolArray:
    values = np.asarray(column)
    if values.dtype != np.bool_:
        wrong = np.flatnonzero((values != 0) & (values != 1)) if values.dtype.kind in "iuf" else np.arange(len(values))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(f"TurnTable: row {row} has {name}={column[row]!r}; give True or False.")
    return values.astype(np.bool_)


def _require_finite(reward: FloatArray, group: list[Hashable], episode: list[Hashable]) -> None:
    bad = np.flatnonzero(~np.isfinite(reward))
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"TurnTable: row {row} (group {group[row]!r}, episode {episode[row]!r}) has reward={reward[row]}; "
            f"{len(bad)} of {len(reward)} rewards are not finite. Mark the episode as an error and leave it out."
        )


def _require_text(anchor: list[Any]) -> None:
    if set(map(type, anchor)) <= {str}:  # nearly always, and quickly said
        return
    for row, text in enumerate(anchor):
        if not isinstance(text, str):
            raise TypeError(
                f"TurnTable: row {row} has anchor={text!r} of type {type(text).__name__}; give the observation as str."
            )


def _factorize(values: list[Any]) -> tuple[IntArray, list[Any]]:
    """Index of each value among the distinct values in order of appearance, and those values."""
    index = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return np.fromiter(map(index.__getitem__, values), dtype=np.int64, count=len(values)), list(index)


def _number_pairs(group_of: IntArray, values: list[Any]) -> tuple[IntArray, IntArray, IntArray]:
    """Numbers the distinct pairs (group, value), group after group and in order of appearance within each.

    Returns:
        Number of the pair of each turn, shape [turns]; the first row and the group of each pair, shape [pairs].
    """
    value_of, distinct = _factorize(values)
    pairs, first, pair_of = np.unique(group_of * len(distinct) + value_of, return_index=True, return_inverse=True)
    group_of_pair = pairs // len(distinct)
    order = np.lexsort((first, group_of_pair))
    return _inverse(order)[pair_of], first[order], group_of_pair[order]


def _inverse(order: IntArray) -> IntArray:
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place

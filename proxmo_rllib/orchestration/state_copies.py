"""Copies of the learners' state in Ray's object store, owned by this process: where they go back to after a death.

Taken of the first learner's whole state, while others play; of sharded learners each one's share: none has the whole.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.rllib.core.learner.learner_group import LearnerGroup

from proxmo_rllib.machine.actors import ACTOR_DEATHS, cause_of
from proxmo_rllib.orchestration import learner_group
from proxmo_rllib.orchestration.learner_state import About, ask_for_state

logger = logging.getLogger(__name__)

# Seconds in which the death of one learner is known after another stumbled over it.
GRACE_S = 10.0
# A copy takes this share of a node's object store at most; two of them are there for a moment.
_SHARE = 1 / 4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where learners go back to.

    Attributes:
        states: references to the state, and the node of each; of sharded learners to each one's share, by rank. Empty
            where it was too large to be copied.
        version: optimizer steps behind it.
        metrics: each learner's own, by rank.
    """

    states: Sequence[tuple[Any, str]]
    version: int
    metrics: Sequence[Any]


# Of learners as they are built.
AS_BUILT = Snapshot((), 0, ())


class StateCopies:
    """The newest copy of the learners' state, and the one that is being made.

    Attributes:
        newest: None before the first.
    """

    def __init__(self, group: LearnerGroup) -> None:
        """Args: group: of learners in processes of their own."""
        self.newest: Snapshot | None = None
        self._group = group
        self._is_sharded = group.config.sharding is not None
        self._pending: list[tuple[Any, Any]] = []  # by rank, references to the state and an About
        self._num_covered = 0  # updates, by the pending one
        self._has_said_too_large = False

    @property
    def is_pending(self) -> bool:
        """Whether one is being made."""
        return bool(self._pending)

    def begin(self, num_covered: int) -> None:
        """Has the learners copy their state. Does not wait: it is their next work.

        Args:
            num_covered: updates since the newest copy that are behind this one.
        """
        self._num_covered = num_covered
        holders = self._holders()
        limit = _SHARE * min(_object_stores(), default=0.0) / self._most_on_a_node(holders)
        self._pending = [
            ask_for_state(actor, limit if rank in holders else 0.0)
            for rank, actor in enumerate(learner_group.actors_of(self._group))
        ]

    def require(self) -> None:
        """Waits for the pending copy; a learner's death is an error."""
        for _, about in self._pending:
            ray.get(about)

    def settle(self, timeout_s: float | None = None) -> int:
        """Waits for the pending copy. If it comes, it takes the place of the newest.

        Returns:
            Updates that are behind it, of those since the one before; 0 if none came.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return 0
        try:
            told: list[About] = ray.get([about for _, about in pending], timeout=timeout_s)
        except (*ACTOR_DEATHS, GetTimeoutError):
            return 0  # the death will be found where it matters; until then there is the copy before
        except RayError as error:
            logger.warning("The learners' state could not be copied: %s", cause_of(error))
            return 0
        states = [(state, about.node) for (state, _), about in zip(pending, told, strict=True) if about.is_there]
        if self._is_sharded and len(states) < len(told):
            states = []  # the others' shares are of no use without it
        if not states and not self._has_said_too_large:
            self._has_said_too_large = True
            _say_too_large(told[0].size, self._is_sharded)
        self.newest = Snapshot(states, told[0].version, [about.metrics for about in told])
        return self._num_covered

    def surviving(self) -> Snapshot | None:
        """What is left of the newest on nodes that live; None if it is not enough to start from."""
        assert self.newest is not None
        nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        states = [(state, node) for state, node in self.newest.states if node in nodes]
        if not states or (self._is_sharded and len(states) < len(self.newest.states)):
            return None
        return replace(self.newest, states=states)

    def rescue(self) -> Snapshot | None:
        """The state of a learner that lives, somewhere in an update; None if there is none. Not of sharded ones."""
        for actor in _that_answer(learner_group.actors_of(self._group)):
            try:
                state, reference = ask_for_state(actor, math.inf)
                about = ray.get(reference)
            except ACTOR_DEATHS:
                continue
            self.newest = Snapshot([(state, about.node)], about.version, [about.metrics])
            return self.newest
        return None

    def _holders(self) -> list[int]:
        """Ranks of the learners whose state is copied, such that a copy outlives any node but this process's own.

        All, where they are sharded: a node that dies takes its shares with it.
        """
        nodes = learner_group.nodes_of(self._group)
        if self._is_sharded:
            return list(range(len(nodes)))
        here = ray.get_runtime_context().get_node_id()
        if here in nodes:
            return [nodes.index(here)]
        return [nodes.index(node) for node in dict.fromkeys(nodes)][:2]

    def _most_on_a_node(self, ranks: Sequence[int]) -> int:
        """Of learners whose state is copied: so many copies share a node's object store."""
        nodes = learner_group.nodes_of(self._group)
        return max(Counter(nodes[rank] for rank in ranks).values()) if self._is_sharded else 1


def _nothing(learner: Any) -> None:
    """In a learner's process: it lives, and hangs in nothing."""


def _that_answer(actors: Sequence[Any]) -> list[Any]:
    """Those that live and do not hang in an exchange with one that does not."""
    calls = {actor.apply.remote(_nothing): actor for actor in actors}
    answered, _ = ray.wait(list(calls), num_returns=len(calls), timeout=GRACE_S) if calls else ([], [])
    living = []
    for call in answered:
        try:
            ray.get(call)
        except ACTOR_DEATHS:
            continue
        living.append(calls[call])
    return living


def _object_stores() -> list[float]:
    """Bytes of each node's object store."""
    sizes = [node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"]]
    return [float(size) for size in sizes if size]


def _say_too_large(size: int, sharded: bool) -> None:
    otherwise = (
        "where one dies, the run ends and goes on from its last checkpoint"
        if sharded
        else "where one learner of several dies, the others' is used; where all die, the run ends and goes on from its "
        "last checkpoint"
    )
    logger.warning(
        "The learners' state (%.1f GB%s) is larger than %.0f%% of Ray's object store, so there is no copy of it: %s. A "
        "larger store (ray start --object-store-memory=...) makes room for a copy.",
        size / 1e9,
        " each" if sharded else "",
        100 * _SHARE,
        otherwise,
    )

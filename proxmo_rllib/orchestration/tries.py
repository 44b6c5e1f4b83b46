"""How often a group's environment runner died or its answers were lost, and when it is given up.

A group during which a runner died twice is given up, and so is one that three times got no answers. The others lose
nothing but time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from proxmo_rllib.faults import FaultLog
from proxmo_rllib.types import Assignment

# A group during which so many runners died is given up.
MAX_DEATHS = 2
# And one that so often got no answers.
MAX_LOSSES = 3


@dataclass(slots=True)
class Again:
    """Groups that are to be played again.

    Attributes:
        together: as any others.
        alone: each with no other on its environment runner, so that the guilty one is found.
    """

    together: list[Assignment] = field(default_factory=list)
    alone: list[Assignment] = field(default_factory=list)


class Tries:
    """Counts them.

    Args:
        faults: is told of groups that are played again or given up.

    Attributes:
        dropped: why groups were given up, by their ids.
    """

    def __init__(self, faults: FaultLog) -> None:
        self._faults = faults
        self._deaths: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self.dropped: dict[str, str] = {}

    def after_death(self, number: int, share: Sequence[Assignment], detail: str) -> Again:
        """A runner died over its share.

        Any of the groups may have killed it, so each is played alone from now on; unless its environment was seen not
        to return, and with which task.

        Args:
            number: of the runner.
            share: what it played.
            detail: see `Died`.
        """
        again = Again()
        guilty = [assignment for assignment in share if detail == f"of task {assignment.task!r}"]
        for assignment in guilty:
            self.drop(assignment, "its environment did not return (env_call_timeout_s)")
        if guilty:
            again.together = [assignment for assignment in share if assignment not in guilty]
        for assignment in share if not guilty else ():
            key = assignment.group_id
            self._deaths[key] += 1
            # Of several groups nobody knows which one it was.
            if len(share) == 1 and self._deaths[key] >= MAX_DEATHS:
                self.drop(assignment, f"environment runners died {self._deaths[key]} times while they played it")
            else:
                again.alone.append(assignment)
        self._say([*again.together, *again.alone], f"environment runner {number} was lost")
        return again

    def after_loss(
        self, assignments: Iterable[Assignment], reasons: Mapping[str, str], late: str | None = None
    ) -> Again:
        """Groups did not get their answers.

        Args:
            assignments: the groups.
            reasons: why, by their ids.
            late: why there is no time for another try, if there is none.
        """
        again = Again()
        reason = ""
        for assignment in assignments:
            key = assignment.group_id
            reason = reasons.get(key, reason or "no reason was given")
            self._losses[key] += 1
            if late is not None:
                self.drop(assignment, late)
            elif self._losses[key] >= MAX_LOSSES:
                self.drop(assignment, f"it was lost {self._losses[key]} times; the last reason: {reason}")
            elif self._losses[key] == MAX_LOSSES - 1:
                again.alone.append(assignment)  # one of them may be what kills the engines
            else:
                again.together.append(assignment)
        self._say([*again.together, *again.alone], reason)
        return again

    def drop(self, assignment: Assignment, reason: str) -> None:
        """Gives a group up."""
        self.dropped[assignment.group_id] = reason
        self._faults.report("group_dropped", f"The group of task {assignment.task!r} is given up: {reason}.")

    def _say(self, assignments: Sequence[Assignment], reason: str) -> None:
        if assignments:
            many = f"{len(assignments)} groups are" if len(assignments) > 1 else "1 group is"
            self._faults.report("group_replayed", f"{many} played again: {reason}.", len(assignments))

"""The groups of one iteration, round after round, until it has as many to learn from as it should.

    TaskSampler ──num_groups──► played ──► judged: kept, flat, broken ──► as many again as are not kept, up to a bound

Without dynamic sampling there is one round, and all that did not break is kept. What is flat is not learned from, but
it was played: the statistics of the rollouts, which the environment runners log, count it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from proxmo_rllib.curriculum import TaskSampler
from proxmo_rllib.orchestration.dealing import Dealt
from proxmo_rllib.types import Assignment, Group

logger = logging.getLogger(__name__)


class Collection:
    """Gathers an iteration's groups.

    Args:
        sampler: deals, and judges what came of it.
        num_groups: to learn from.
        group_size: episodes of each.
        least: groups that an update needs: one a learner.

    Attributes:
        records: groups of the first round, for the run's record.
    """

    def __init__(self, sampler: TaskSampler, num_groups: int, group_size: int, least: int) -> None:
        self._sampler = sampler
        self._num_groups, self._group_size, self._least = num_groups, group_size, least
        self._most = int(sampler.at_most * num_groups)
        self._kept: list[Group] = []
        self._flat: list[Group] = []  # as many as an update may need to be complete
        self._num_seen = self._num_whole = 0
        self._reasons: list[str] = []
        self.records: list[Group] = []

    @property
    def missing(self) -> int:
        """Groups that are to come yet; none if there are enough, or the bound is reached."""
        return min(self._num_groups - len(self._kept), self._most - self._num_seen)

    def deal(self) -> list[Assignment]:
        """What to play next."""
        return self._sampler.deal(self.missing, self._group_size)

    def add(self, assignments: Sequence[Assignment], dealt: Dealt) -> None:
        """What became of a round, in the order of the assignments: who played them, and when, changes nothing."""
        if self._num_seen == 0:
            self.records = [group for result, _ in dealt.results for group in result.records]
        self._reasons += [*(error for result, _ in dealt.results for error in result.errors), *dealt.dropped.values()]
        whole = {group.group_id: group for group in dealt.groups(assignments)}
        for assignment in assignments:
            self.add_group(assignment, whole.get(assignment.group_id))

    def add_group(self, assignment: Assignment, group: Group | None, reason: str = "") -> None:
        """What became of a group.

        Args:
            assignment: of it.
            group: None if it broke, or could not be played.
            reason: why, if it is not known yet.
        """
        self._num_seen += 1
        if group is None:
            self._reasons += [reason] if reason else []
            return
        self._num_whole += 1
        outcome = self._sampler.judge(assignment, group)
        self._sampler.ended(outcome)
        if outcome.contrast:
            self._kept.append(group)
        elif len(self._flat) < self._least:
            self._flat.append(group)

    @property
    def num_broken(self) -> int:
        """Groups with a broken episode, and those that could not be played."""
        return self._num_seen - self._num_whole

    def metrics(self) -> dict[str, float]:
        """Counts of the iteration and where the curriculum stands, by name; nothing without one."""
        counts: dict[str, float] = {}
        if self._sampler.is_dynamic:
            counts = {
                "num_groups_played": self._num_whole,
                "num_groups_without_contrast": self._num_whole - len(self._kept),
                "num_groups_missing": self._num_groups - len(self._kept),
            }
        return counts | self._sampler.metrics()

    def groups(self) -> list[Group]:
        """The groups to learn from, in the order in which they were dealt; none if there is nothing to learn.

        Where there are fewer than learners, groups without contrast fill up: a learner needs one, and they add nothing.

        Raises:
            RuntimeError: so many groups broke that an update is not possible.
        """
        if self._num_whole < self._least:
            raise RuntimeError(
                f"Only {self._num_whole} of {self._num_seen} groups are whole, too few to learn from. The first "
                f"reason of {len(self._reasons)}: {self._reasons[0] if self._reasons else 'unknown'}"
            )
        if self._sampler.is_dynamic and len(self._kept) < self._num_groups:
            self._say_missing()
        return [*self._kept, *self._flat[: max(0, self._least - len(self._kept))]] if self._kept else []

    def _say_missing(self) -> None:
        goes_on = f"goes on with {len(self._kept)} of {self._num_groups}" if self._kept else "takes no optimizer step"
        logger.warning(
            "Of %d groups played, %d have something to learn from: the iteration %s (dynamic_sampling, at_most=%g).",
            self._num_whole,
            len(self._kept),
            goes_on,
            self._sampler.at_most,
        )

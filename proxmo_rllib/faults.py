"""What went wrong in a run and was mended: one readable line an event, and a count for the metrics.

engine_replaced    an inference engine died or was stuck, and another took its place
runner_replaced    an environment runner
learner_replaced   a learner
group_replayed     a group of episodes was played again, since its runner or engine was lost
group_dropped      a group could not be played, and was left out
stall              nothing got done for half a minute
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

logger = logging.getLogger(__name__)

KINDS = ("engine_replaced", "runner_replaced", "learner_replaced", "group_replayed", "group_dropped", "stall")


@dataclass(frozen=True, slots=True)
class Cause:
    """Why whoever watches a run has ended a process of it.

    Attributes:
        text: in words.
        detail: of what it was stuck in, such as the task of an environment that did not return; else empty.
    """

    text: str
    detail: str = ""


class FaultLog:
    """The faults of one run.

    Attributes:
        counts: events so far, by kind.
        causes: why actors were ended, by their id, of those that whoever watches the run has ended; who replaces them
            says it.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        self.causes: dict[str, Cause] = {}
        self._reported: Counter[str] = Counter()

    def report(self, kind: str, line: str, count: int = 1) -> None:
        """Says an event on one line and counts it.

        Args:
            kind: one of `KINDS`.
            line: in words, with the cause and what is done about it.
            count: how many at once.
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: faults are of {', '.join(KINDS)}.")
        self.counts[kind] += count
        logger.warning("%s", " ".join(line.split()))

    def since_last(self) -> dict[str, int]:
        """Events since the last call, by the name of their metric, `num_engine_replaced` and so on; zeros too."""
        new = {f"num_{kind}": self.counts[kind] - self._reported[kind] for kind in KINDS}
        self._reported = Counter(self.counts)
        return new

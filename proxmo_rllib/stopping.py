"""When a run ends."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StopCriteria:
    """A run ends with the first of these that is reached; without any it goes on until it is interrupted.

    Attributes:
        iterations: training iterations.
        success_rate: on the panel, at one of its evaluations; between 0 and 1.
        minutes: of wall time, start-up and evaluations included, the making of a warm start's policy not, since it is
            made only once; the running iteration is finished.
    """

    iterations: int | None = None
    success_rate: float | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        iterations: object = self.iterations
        if iterations is not None and (isinstance(iterations, bool) or not isinstance(iterations, int)):
            raise ValueError(f"StopCriteria.iterations={iterations!r}: it is a whole number of at least 1.")
        if self.iterations is not None and self.iterations < 1:
            raise ValueError(f"StopCriteria.iterations={self.iterations}: it is a whole number of at least 1.")
        if self.success_rate is not None and not 0 < self.success_rate <= 1:
            raise ValueError(f"StopCriteria.success_rate={self.success_rate}: it lies above 0, and at most at 1.")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ValueError(f"StopCriteria.minutes={self.minutes}: it is a positive number.")

    def reached(self, iteration: int, minutes: float, success_rate: float | None = None) -> str | None:
        """Why to stop now, in words; None to go on.

        Args:
            iteration: iterations done.
            minutes: wall time since the start.
            success_rate: on the panel, if it was evaluated at this iteration.
        """
        if self.success_rate is not None and success_rate is not None and success_rate >= self.success_rate:
            return f"the panel's success rate reached {self.success_rate:.1%}"
        if self.iterations is not None and iteration >= self.iterations:
            return f"{self.iterations} iterations are done"
        if self.minutes is not None and minutes >= self.minutes:
            return f"{self.minutes:g} minutes are over"
        return None

    def minutes_left(self, iteration: int, minutes: float, minutes_per_iteration: float) -> float | None:
        """Minutes until iterations or minutes end the run; None if neither is set."""
        left = []
        if self.iterations is not None:
            left.append((self.iterations - iteration) * minutes_per_iteration)
        if self.minutes is not None:
            left.append(self.minutes - minutes)
        return max(0.0, min(left)) if left else None

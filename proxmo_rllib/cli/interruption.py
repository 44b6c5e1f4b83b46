"""Ctrl-C and SIGTERM: the first ends a run after its present iteration, the second at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Listens for signals within a `with` block, which has to run in the main thread.

    Args:
        announce: is told when the first signal came.
    """

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce
        self._reason: str | None = None
        self._patient = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._old = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def be_patient(self) -> None:
        """From now on there is something to save: the first signal waits for the iteration's end.

        Installs the handlers anew, since Ray sets one of its own when it starts.
        """
        self._patient = True
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def reason(self) -> str | None:
        """The signal that came, in words; None if none did."""
        return self._reason

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if self._reason is not None or not self._patient:
            self._reason = self._reason or f"interrupted by {name}"
            raise KeyboardInterrupt
        self._reason = f"interrupted by {name}"
        self._announce(f"{name}: saving and stopping after this iteration; once more stops at once")

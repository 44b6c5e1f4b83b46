"""Ctrl-C and SIGTERM: the first ends a run after its present iteration, the second at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from proxmo_rllib.machine.guard import Guard

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Listens for signals within a `with` block, which has to run in the main thread.

    Args:
        announce: is told when the first signal came.
        guard: ends this process at the second; without one it is a KeyboardInterrupt.
        on_sigterm: is called at a first SIGTERM that is waited for.
    """

    def __init__(
        self,
        announce: Callable[[str], None],
        guard: Guard | None = None,
        on_sigterm: Callable[[], None] = lambda: None,
    ) -> None:
        self._announce = announce
        self._guard = guard
        self._on_sigterm = on_sigterm
        self._reason: str | None = None
        self._patient = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._old = {number: signal.getsignal(number) for number in _SIGNALS}
        self.listen()
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Installs the handlers anew, since Ray sets one of its own when it starts, and none at all when it ends."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def be_patient(self) -> None:
        """From now on there is something to save: the first signal waits for the iteration's end."""
        self._patient = True
        if self._guard is not None:
            self._guard.be_patient()
        self.listen()

    def reason(self) -> str | None:
        """The signal that came, in words; None if none did."""
        return self._reason

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if self._reason is not None or not self._patient:
            if self._reason is not None and self._guard is not None:
                self._guard.wait_for_end()
            self._reason = self._reason or f"interrupted by {name}"
            raise KeyboardInterrupt
        self._reason = f"interrupted by {name}"
        self._announce(f"{name}: saving and stopping after this iteration; once more stops at once")
        if number == signal.SIGTERM:
            self._on_sigterm()

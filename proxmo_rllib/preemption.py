"""How an iteration is cut that a pre-empted run has no time to finish: a KeyboardInterrupt with a meaning.

Ray passes no other exception of a signal's handler on, and makes it anew, so what it means is kept here.
"""

from __future__ import annotations

_cut = False


def cut() -> None:
    """Raises what cuts short whatever the main thread waits for.

    Raises:
        KeyboardInterrupt: always.
    """
    global _cut
    _cut = True
    raise KeyboardInterrupt


def was_cut() -> bool:
    """Whether a KeyboardInterrupt that was caught was that; true once."""
    global _cut
    came, _cut = _cut, False
    return came

"""Groups that are played while their caller does something else: sampling that never waits for the learner.

add(assignments) ──► [play_group] * n, on an event loop in a thread of its own ──► take(): those that have ended
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxmo_rllib.types import Assignment, Group


@dataclass(frozen=True, slots=True)
class PlayedSoFar:
    """What has become of the assignments since it was asked last.

    Attributes:
        groups: those whose episodes have all ended, be it with status ERROR.
        lost: why others never will, by their ids; see `PlayResult`.
        playing: ids of those that go on.
    """

    groups: tuple[Group, ...]
    lost: Mapping[str, str]
    playing: frozenset[str]


class BackgroundPlay:
    """Plays groups in a thread, as many at once as there are environments.

    Args:
        play: plays one group; see `play_group`.
    """

    def __init__(self, play: Callable[[Assignment], Coroutine[Any, Any, Group | str]]) -> None:
        self._play = play
        self._playing: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: queue.SimpleQueue[tuple[str, Group | str]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="background-play", daemon=True)
        self._thread.start()

    def add(self, assignments: Sequence[Assignment]) -> None:
        """Plays these too, behind those that were added before."""
        for assignment in assignments:
            self._playing.add(assignment.group_id)
            self._loop.call_soon_threadsafe(self._begin, assignment)

    def take(self, wait_s: float) -> PlayedSoFar:
        """What has ended since the last call.

        Args:
            wait_s: seconds to wait for the first of them.

        Raises:
            RuntimeError: the thread has died.
        """
        ended: dict[str, Group | str] = {}
        try:
            ended.update([self._ended.get(timeout=wait_s if self._playing else 0)])
            while True:
                ended.update([self._ended.get_nowait()])
        except queue.Empty:
            pass
        if not self._thread.is_alive():
            raise RuntimeError("The thread that plays the groups has died.")
        self._playing -= ended.keys()
        groups = tuple(outcome for outcome in ended.values() if isinstance(outcome, Group))
        lost = {group_id: outcome for group_id, outcome in ended.items() if isinstance(outcome, str)}
        return PlayedSoFar(groups, lost, frozenset(self._playing))

    def stop(self) -> None:
        """Ends all episodes where they are."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _begin(self, assignment: Assignment) -> None:
        task = self._loop.create_task(self._one(assignment))
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    async def _one(self, assignment: Assignment) -> None:
        self._ended.put((assignment.group_id, await self._play(assignment)))

    async def _cancel(self) -> None:
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

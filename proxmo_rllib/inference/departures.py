"""Engines that leave though they work: another has taken their place, and they finish what they have.

A node that Ray is about to take away (a cloud wants its machine back, an operator drains it) is known beforehand. An
engine on it serves until its successor elsewhere does, ends the requests that are under way, and is ended. What is dead
or does not answer has nothing to finish: it is replaced at once, and its requests go to the others.
"""

from __future__ import annotations

import logging
import time

import ray
from ray.actor import ActorHandle

from proxmo_rllib.machine.actors import end_actor

logger = logging.getLogger(__name__)

# Seconds for the requests that an engine has when it is replaced. Their runners ask others if they take longer.
DRAIN_S = 60.0


class Departures:
    """The engines of a pool that leave."""

    def __init__(self) -> None:
        self._leaving: dict[ActorHandle, tuple[ray.ObjectRef, float]] = {}  # its answer, and until when it may take

    def add(self, handle: ActorHandle) -> None:
        """An engine gets no new requests any more: its clients are about to be told of another."""
        self._leaving[handle] = handle.drain.remote(), time.monotonic() + DRAIN_S

    def end_the_finished(self) -> None:
        """Ends those that have answered all requests, have taken too long, or have died meanwhile. Does not wait."""
        for handle, (call, deadline) in list(self._leaving.items()):
            over, _ = ray.wait([call], timeout=0)
            if over or time.monotonic() > deadline:
                del self._leaving[handle]
                end_actor(handle)
                logger.info("An engine has left; it had %s.", "nothing to do any more" if over else "requests still")

    def end_all(self) -> None:
        """Ends them at once."""
        for handle in self._leaving:
            end_actor(handle)
        self._leaving.clear()

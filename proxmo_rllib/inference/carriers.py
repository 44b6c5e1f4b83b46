"""Weights of one version, and how they come to engines.

The pool gives them to the engines that serve, and later to each that takes another's place. How they travel is theirs:
through Ray's object store (here), or straight from the learner (`orchestration/broadcast.py`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError

from proxmo_rllib.inference.engine import EngineDeadError, StaleEngineError
from proxmo_rllib.machine.actors import ACTOR_DEATHS, cause_of


class Weights(Protocol):
    """Weights on their way."""

    @property
    def version(self) -> int:
        """Optimizer steps behind them."""

    @property
    def needs_learners(self) -> bool:
        """Whether the learners have to send them while engines take them."""

    def give(self, engines: Mapping[int, ActorHandle], timeout_s: float) -> dict[int, str]:
        """Gives them to engines.

        Args:
            engines: their actors, by rank.
            timeout_s: seconds for each step.

        Returns:
            What kept the others from taking them, by rank: these have to be replaced.

        Raises:
            WeightsMismatchError: they do not fit the model. The engines keep the old ones.
            StaleEngineError: an engine then reports another version.
        """


class StoredWeights:
    """Weights in Ray's object store; see `Weights`."""

    needs_learners = False

    def __init__(
        self, weights: np.ndarray | ray.ObjectRef | Sequence[np.ndarray | ray.ObjectRef], version: int
    ) -> None:
        """Puts them there, if they are not yet.

        Args:
            weights: what `weights.serialise` packed, uint8 [bytes], or a reference to it; or a list of parts, each with
                other tensors.
            version: optimizer steps behind them.
        """
        parts = [weights] if isinstance(weights, (np.ndarray, ray.ObjectRef)) else weights
        self._parts = [part if isinstance(part, ray.ObjectRef) else ray.put(part) for part in parts]
        self._name = uuid.uuid4().hex  # the engines of a node read one file of that name
        self.version = version

    def give(self, engines: Mapping[int, ActorHandle], timeout_s: float) -> dict[int, str]:
        """See `Weights.give`."""
        calls = {
            rank: handle.update_weights.remote(self._name, self.version, *self._parts)
            for rank, handle in engines.items()
        }
        failed = {}
        deadline = time.monotonic() + timeout_s
        late = f"it has not taken the weights of version {self.version} in {timeout_s:g} s (weight_transfer_timeout_s)"
        for rank, call in calls.items():
            if (reason := why_failed(call, deadline - time.monotonic(), late)) is not None:
                failed[rank] = reason
            else:
                require_version(rank, ray.get(call), self.version)
        return failed


def why_failed(call: ray.ObjectRef, timeout_s: float, late: str) -> str | None:
    """Why an engine has to be replaced that was called; None if it has answered, be it that it refuses.

    Args:
        call: what it is to answer.
        timeout_s: for the answer.
        late: what is said if there is none in time.
    """
    try:
        ray.get(call, timeout=max(0.0, timeout_s))
    except (*ACTOR_DEATHS, EngineDeadError) as error:
        return cause_of(error)
    except GetTimeoutError:
        return late
    return None


def require_version(rank: int, reported: int, version: int) -> None:
    """Raises StaleEngineError if an engine says another version than it was given."""
    if reported != version:
        raise StaleEngineError(f"Engine {rank} was given weights of version {version} but reports {reported}.")

"""RLlib's LearnerGroup, built anew in place of one whose learners died. Written for RLlib 2.60: all of it is private.

RLlib has no way to replace a learner: it marks the one that died, and goes on as if it had never been there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.utils.actor_manager import FaultTolerantActorManager, RemoteCallResults, ResultOrError
from ray.util import placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup, get_current_placement_group

from proxmo_rllib.machine.actors import ACTOR_DEATHS

logger = logging.getLogger(__name__)

# Seconds for a place for all learners, and for a smaller number of them.
_PLACE_S = 30.0
_SMALLER_PLACE_S = 3.0


class LearnersDiedError(RuntimeError):
    """Learners died, and cannot be brought back."""


def actors_of(group: LearnerGroup) -> list[Any]:
    """The learners' actors, by rank; none with `num_learners=0`, and while they are built."""
    return list(group._workers or ())


def nodes_of(group: LearnerGroup) -> list[str]:
    """The node of each, by rank."""
    return [worker.metadata.node_id for worker in group._backend_executor.worker_group.workers]


def end(group: LearnerGroup) -> None:
    """Kills all learners."""
    group._backend_executor.shutdown(graceful_termination=False)


def build_again(group: LearnerGroup, wanted: int) -> None:
    """Builds learners whose predecessors were ended, in the same object: RLlib holds references to it.

    Args:
        group: of learners that were ended.
        wanted: how many, if there is room.

    Raises:
        LearnersDiedError: there is no room for any.
    """
    place, count = _find_place(group.config, wanted)
    config = group.config.copy(copy_frozen=False)
    config.num_learners = count
    build: Any = type(group).__init__
    try:
        build(group, config=config, module_spec=group._module_spec, placement_group=place)
    except BaseException as error:
        if place is not None:
            remove_placement_group(place)
        if isinstance(error, TypeError) and isinstance(error.__context__, ACTOR_DEATHS):
            raise error.__context__ from None  # what Ray Train tries to raise, but does not have at hand
        raise
    raise_errors(group)


def raise_errors(group: LearnerGroup) -> None:
    """From now on an error of a learner is raised. RLlib logs it, and saves a checkpoint with nothing in it."""
    group._worker_manager = _ErrorsRaised(
        group._workers, max_remote_requests_in_flight_per_actor=group.config.max_requests_in_flight_per_learner
    )


class _ErrorsRaised(FaultTolerantActorManager):  # type: ignore[misc]
    def foreach_actor(self, func: Any, **settings: Any) -> RemoteCallResults:
        asked = super().foreach_actor(func, **settings | {"return_obj_refs": True})
        answers = RemoteCallResults()
        for call in asked:
            answers.add_result(call.actor_id, ResultOrError(result=ray.get(call.get())), call.tag)
        return answers


def _find_place(config: Any, wanted: int) -> tuple[PlacementGroup | None, int]:
    """Resources for all learners, or for as many as the cluster still carries.

    Returns:
        Where they go, None for the place that a trial of Tune has; and how many.

    Raises:
        LearnersDiedError: there is none in time.
    """
    inherited = get_current_placement_group()
    if inherited is not None:
        if not inherited.wait(_PLACE_S):
            raise LearnersDiedError(
                f"A node of the trial died, and in {_PLACE_S:.0f} s no other took its place, so the learners have "
                "none. Tune starts the trial from its last checkpoint with FailureConfig(max_failures=...)."
            )
        return None, wanted
    bundle = _bundle(config)
    if not bundle:
        return None, wanted
    patience = _PLACE_S
    for count in _fewer_and_fewer(wanted, bundle):
        # Unlike actors that wait for a place, a placement group can be waited for, and given up.
        place = placement_group([bundle] * count, strategy="PACK")
        if place.wait(patience):
            if count < wanted:
                logger.warning(
                    "The cluster has room for %d of %d learners: the run goes on with them. It is slower, and "
                    "no longer bit for bit.",
                    count,
                    wanted,
                )
            return place, count
        remove_placement_group(place)
        patience = _SMALLER_PLACE_S
    raise LearnersDiedError(
        f"In {_PLACE_S:.0f} s no node had room for a learner ({bundle}). When there is one again, the run goes on "
        "from its last checkpoint with --resume."
    )


def _bundle(config: Any) -> dict[str, float]:
    """What a learner reserves, as LearnerGroup has it."""
    gpus = max(0, config.num_gpus_per_learner)
    cpus = config.num_cpus_per_learner
    if cpus == "auto":
        cpus = 0 if gpus else 1
    bundle = {"CPU": cpus, "GPU": gpus, **(config.custom_resources_per_learner or {})}
    return {name: float(amount) for name, amount in bundle.items() if amount}


def _fewer_and_fewer(wanted: int, bundle: Mapping[str, float]) -> Iterator[int]:
    """Numbers of learners to find a place for: all; what the free resources carry if they lie well; half of it, ..."""
    yield wanted
    free = ray.available_resources()
    count = min(wanted - 1, *(int(free.get(name, 0.0) / amount) for name, amount in bundle.items()))
    count = max(count, min(1, wanted - 1))  # Ray's books may be a second old
    while count > 0:
        yield count
        count //= 2

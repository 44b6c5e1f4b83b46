"""Learners in processes of their own, any of which may die: the run goes on as if none had.

update ──► every learner, its share of the groups; they exchange gradients, so one's death stops them all
   │ done: kept until a snapshot covers it
   ▼
snapshot ──► the first learner's whole state, in Ray's object store, owned by this process; taken while others play

A death: all learners end and start anew, take the newest snapshot, do the updates since it again, and then the one in
which the death was found. Updates depend on nothing but state and groups, so the result is the same, bit for bit.

Written for RLlib 2.60: how a LearnerGroup is built and where its actors are is private to it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError
from ray.rllib.core import COMPONENT_METRICS_LOGGER
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.utils.actor_manager import FaultTolerantActorManager, RemoteCallResults, ResultOrError
from ray.util import placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup, get_current_placement_group

from proxmo_rllib.faults import FaultLog
from proxmo_rllib.inference.weights import serialise
from proxmo_rllib.learner.agreement import ProbeScores
from proxmo_rllib.learner.training_data import GroupedTrainingData
from proxmo_rllib.machine.actors import cause_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

# What calls of an actor that died raise.
_DEATHS = (RayActorError, OutOfMemoryError)
# Deaths with no update finished between them, after which the run ends.
_MAX_DEATHS = 3
# Seconds in which the death of one learner is known after another stumbled over it.
_GRACE_S = 10.0
# Seconds for a place for all learners, and for a smaller number of them.
_PLACE_S = 30.0
_SMALLER_PLACE_S = 3.0
# A snapshot takes this share of a node's object store at most; two of them are there for a moment.
_SHARE = 1 / 4
# Tokens of the fixed prompt whose logprobs are compared after a weight transfer.
_PROBE_TOKENS = 256


class LearnersDiedError(RuntimeError):
    """Learners died, and cannot be brought back."""


@dataclass(frozen=True, slots=True)
class _Update:
    """What the learners learned from."""

    groups: GroupedTrainingData
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _About:
    """What a learner says of its state.

    Attributes:
        version: optimizer steps behind it.
        node: on which it lies.
        size: bytes.
        is_there: whether it was copied.
        metrics: this learner's own part of the state; the rest is the same in all.
    """

    version: int
    node: str
    size: int
    is_there: bool
    metrics: Any


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Where learners go back to.

    Attributes:
        states: references to the state, and the node of each.
        version: optimizer steps behind it.
        metrics: each learner's own, by rank.
    """

    states: Sequence[tuple[Any, str]]
    version: int
    metrics: Sequence[Any]


class Learners:
    """The learners of a run. Lives in the Algorithm; its methods block unless they say otherwise.

    Attributes:
        num_restarts: how often the learners were started anew.
    """

    def __init__(self, group: LearnerGroup, faults: FaultLog | None = None) -> None:
        """Takes charge of learners that were just built.

        Args:
            group: RLlib's; the same object holds the new learners after a death. With `num_learners=0` its learner is
                in this process, and everything goes straight to it.
            faults: is told of each death.
        """
        self.num_restarts = 0
        self._faults = faults or FaultLog()
        self._group = group
        self._wanted = group.config.num_learners
        self._deaths = 0
        self._has_said_too_large = False
        self._is_as_built = True  # what starts anew has the state that it needs
        self._snapshot: _Snapshot | None = None
        self._pending: list[tuple[Any, Any]] = []  # by rank, references to the state and an _About
        self._num_covered = 0  # of `_since`, by the pending snapshot
        self._since: list[_Update] = []
        if group.is_remote:
            _raise_errors(group)

    @property
    def actors(self) -> list[Any]:
        """The learners' actors, by rank; none with `num_learners=0`."""
        return list(self._group._workers or ())

    def update(self, groups: GroupedTrainingData, **settings: Any) -> list[Any]:
        """Learns from groups.

        Args:
            groups: that every learner has a share of.
            **settings: of `Learner.update`.

        Returns:
            Each learner's metrics, of the whole update alone: what a broken attempt measured is in none of them.

        Raises:
            LearnersDiedError: they die again and again, or find no place.
        """
        if self._group.is_local:
            results: list[Any] = self._group.update(training_data=groups, **settings)
            return results
        if self._since and not self._pending:
            self.snapshot()
        update = _Update(groups, settings)
        results = self.attempt(lambda: self._run(update))
        self._settle()
        self._since.append(update)
        self._deaths = 0
        return results

    def export(self, probe_ids: Sequence[int]) -> tuple[Any, int, ProbeScores]:
        """The weights as engines take them.

        Args:
            probe_ids: the fixed prompt.

        Returns:
            A reference to what `serialise` packed, owned by this process; the optimizer steps behind it; the learner's
            logprobs of the fixed prompt.
        """
        ids = list(probe_ids)
        if self._group.is_local:
            blob, (version, probe) = _export(self._group._learner, ids)
            return ray.put(blob), version, probe

        def ask_first() -> tuple[Any, int, ProbeScores]:
            # Two values, so that the large one stays where it is: this process owns it all the same.
            reference, about = self.actors[0].apply.options(num_returns=2).remote(_export, ids)
            version, probe = ray.get(about)
            return reference, version, probe

        return self.attempt(ask_first)

    def snapshot(self) -> None:
        """Has the whole state copied: weights, optimizer, counters. Does not wait: it is their next work."""
        if self._group.is_local:
            return
        self._settle()
        self._num_covered = len(self._since)
        limit = _SHARE * min(_object_stores(), default=0.0)
        holders = self._holders()
        self._pending = [
            _ask_for_state(actor, limit if rank in holders else 0.0) for rank, actor in enumerate(self.actors)
        ]

    def restore(self, call: Callable[[], T]) -> T:
        """Calls what gives the learners another state, such as a checkpoint's: that is where they go back to then."""

        def restore_and_copy() -> T:
            result = call()
            self.snapshot()
            for _, about in self._pending:
                ray.get(about)  # a death now calls for the whole again
            return result

        result = self.attempt(restore_and_copy)
        self._settle()
        return result

    def attempt(self, call: Callable[[], T]) -> T:
        """What a call that needs the learners returns; after a death it is called again, of learners started anew."""
        while True:
            try:
                return call()
            except _DEATHS as error:
                if not self._is_of_learner(error):
                    raise
                self._start_anew(error)

    def _run(self, update: _Update) -> list[Any]:
        """Does an update. Raises as soon as one learner fails: the others may wait for it for ever."""
        actors = self.actors
        shares = update.groups.shard(len(actors))
        waiting = [
            actor.update.remote(training_data=share, **update.settings)
            for actor, (share, _) in zip(actors, shares, strict=True)
        ]
        calls = list(waiting)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            try:
                ray.get(done)
            except _DEATHS:
                raise
            except Exception:
                # A learner whose partner died has an error too; that of the partner says more.
                _raise_death(waiting)
                raise
        results: list[Any] = ray.get(calls)
        return results

    def _settle(self, timeout_s: float | None = None) -> None:
        """Waits for the pending snapshot. If it comes, it takes the place of the one before."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        try:
            told: list[_About] = ray.get([about for _, about in pending], timeout=timeout_s)
        except (*_DEATHS, GetTimeoutError):
            return  # the death will be found where it matters; until then there is the snapshot before
        except RayError as error:
            logger.warning("The learners' state could not be copied: %s", _last_line(error))
            return
        states = [(state, about.node) for (state, _), about in zip(pending, told, strict=True) if about.is_there]
        if not states and not self._has_said_too_large:
            self._has_said_too_large = True
            _say_too_large(told[0].size)
        self._is_as_built = False
        self._snapshot = _Snapshot(states, told[0].version, [about.metrics for about in told])
        del self._since[: self._num_covered]

    def _holders(self) -> list[int]:
        """Ranks of the learners whose state is copied, such that a copy outlives any node but this process's own."""
        nodes = [worker.metadata.node_id for worker in self._group._backend_executor.worker_group.workers]
        here = ray.get_runtime_context().get_node_id()
        if here in nodes:
            return [nodes.index(here)]
        return [nodes.index(node) for node in dict.fromkeys(nodes)][:2]

    def _is_of_learner(self, error: Exception) -> bool:
        actor = getattr(error, "actor_id", None)
        return self._group.is_remote and (actor is None or self._rank_of(error) is not None)

    def _rank_of(self, error: Exception) -> int | None:
        ids = [actor._actor_id.hex() for actor in self.actors]
        actor = getattr(error, "actor_id", None)
        return ids.index(actor) if actor in ids else None

    def _start_anew(self, error: Exception) -> None:
        """Brings all learners back to where they were before the call that failed."""
        while True:
            self._deaths += 1
            who = "A learner" if self._rank_of(error) is None else f"Learner {self._rank_of(error)}"
            why = self._faults.causes.pop(str(getattr(error, "actor_id", "")), "") or cause_of(error)
            if self._deaths > _MAX_DEATHS:
                raise LearnersDiedError(
                    f"{who} died ({why}), the {self._deaths}th death without a whole update between them. If memory is "
                    "the reason, lower max_tokens_per_microbatch or set gradient_checkpointing=True. The run goes on "
                    "from its last checkpoint with --resume."
                ) from error
            started = time.monotonic()
            self._settle(_GRACE_S)
            snapshot = self._newest_state(f"{who} died ({why})", error)
            self._faults.report(
                "learner_replaced",
                f"{who} of {len(self.actors)} died ({why}); all start anew from optimizer step {snapshot.version} and "
                "do again what came after it.",
            )
            try:
                self._rebuild()
                self._hand_over(snapshot)
                for update in self._since:
                    self._run(update)
            except _DEATHS as another:
                error = another
                continue
            logger.info("The learners (%d) are back after %.0f s.", len(self.actors), time.monotonic() - started)
            return

    def _newest_state(self, found: str, error: Exception) -> _Snapshot:
        """The snapshot to start from, with one reference that can be followed; none for learners as they are built."""
        if self._is_as_built or self._snapshot is None:
            return _Snapshot((), 0, ())
        nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        snapshot = self._snapshot
        states = [(state, node) for state, node in snapshot.states if node in nodes]
        if states:
            return _Snapshot(states, snapshot.version, snapshot.metrics)
        # There is no copy. The others are somewhere in the update: what they have learned of it is kept.
        for actor in _that_answer(self.actors):
            try:
                state, reference = _ask_for_state(actor, math.inf)
                about = ray.get(reference)
            except _DEATHS:
                continue
            self._since.clear()
            self._snapshot = _Snapshot([(state, about.node)], about.version, [about.metrics])
            return self._snapshot
        raise LearnersDiedError(
            f"{found}; there is no other with its state, and no copy of it. The run goes on from its last checkpoint "
            "with --resume."
        ) from error

    def _hand_over(self, snapshot: _Snapshot) -> None:
        """Gives learners that were just built the state of a snapshot."""
        if not snapshot.states:
            return
        state, _ = snapshot.states[0]
        calls = []
        for rank, actor in enumerate(self.actors):
            # There may be fewer than the snapshot was taken of, or more.
            metrics = snapshot.metrics[rank if rank < len(snapshot.metrics) else 0]
            calls.append(actor.apply.remote(_take_over, state, metrics))
        ray.get(calls)

    def _rebuild(self) -> None:
        """Ends all learners and builds them anew, in the same LearnerGroup: RLlib holds references to it."""
        group = self._group
        group._backend_executor.shutdown(graceful_termination=False)
        self.num_restarts += 1
        place, count = self._find_place()
        config = group.config.copy(copy_frozen=False)
        config.num_learners = count
        build: Any = type(group).__init__
        try:
            build(group, config=config, module_spec=group._module_spec, placement_group=place)
        except BaseException as error:
            if place is not None:
                remove_placement_group(place)
            if isinstance(error, TypeError) and isinstance(error.__context__, _DEATHS):
                raise error.__context__ from None  # what Ray Train tries to raise, but does not have at hand
            raise
        _raise_errors(group)

    def _find_place(self) -> tuple[PlacementGroup | None, int]:
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
            return None, self._wanted
        bundle = _bundle(self._group.config)
        if not bundle:
            return None, self._wanted
        patience = _PLACE_S
        for count in _fewer_and_fewer(self._wanted, bundle):
            # Unlike actors that wait for a place, a placement group can be waited for, and given up.
            place = placement_group([bundle] * count, strategy="PACK")
            if place.wait(patience):
                if count < self._wanted:
                    logger.warning(
                        "The cluster has room for %d of %d learners: the run goes on with them. It is slower, and "
                        "learns the same.",
                        count,
                        self._wanted,
                    )
                return place, count
            remove_placement_group(place)
            patience = _SMALLER_PLACE_S
        raise LearnersDiedError(
            f"In {_PLACE_S:.0f} s no node had room for a learner ({bundle}). When there is one again, the run goes on "
            "from its last checkpoint with --resume."
        )


class _ErrorsRaised(FaultTolerantActorManager):  # type: ignore[misc]
    """RLlib's, for learners: an error is raised. RLlib logs it, and saves a checkpoint with nothing in it."""

    def foreach_actor(self, func: Any, **settings: Any) -> RemoteCallResults:
        asked = super().foreach_actor(func, return_obj_refs=True, **settings)
        answers = RemoteCallResults()
        for call in asked:
            answers.add_result(call.actor_id, ResultOrError(result=ray.get(call.get())), call.tag)
        return answers


def _raise_errors(group: LearnerGroup) -> None:
    group._worker_manager = _ErrorsRaised(
        group._workers, max_remote_requests_in_flight_per_actor=group.config.max_requests_in_flight_per_learner
    )


def _raise_death(calls: Sequence[Any]) -> None:
    """Waits a little for calls that fail because their learner died, and raises the first."""
    done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=_GRACE_S) if calls else ([], [])
    for call in done:
        try:
            ray.get(call)
        except _DEATHS:
            raise
        except RayError:  # it stumbled over the same as the first, whose error is raised
            continue


def _that_answer(actors: Sequence[Any]) -> list[Any]:
    """Those that live and do not hang in an exchange with one that does not."""
    calls = {actor.ping.remote(): actor for actor in actors}
    answered, _ = ray.wait(list(calls), num_returns=len(calls), timeout=_GRACE_S) if calls else ([], [])
    living = []
    for call in answered:
        try:
            ray.get(call)
        except _DEATHS:
            continue
        living.append(calls[call])
    return living


def _ask_for_state(actor: Any, limit: float) -> tuple[Any, Any]:
    """References to a learner's state and to its _About. This process owns them, wherever they lie."""
    state, about = actor.apply.options(num_returns=2).remote(_copy_state, limit)
    return state, about


def _copy_state(learner: Any, limit: float) -> tuple[Any, _About]:
    """In a learner's process: its state, None if it is larger than so many bytes, and what is to be known of it."""
    size = learner.state_size()
    fits = size <= limit
    node = ray.get_runtime_context().get_node_id()
    about = _About(learner.policy_version, node, size, fits, learner.metrics.get_state())
    return (learner.snapshot() if fits else None), about


def _take_over(learner: Any, state: Any, metrics: Any) -> None:
    """In a learner's process."""
    learner.take_over(state | {COMPONENT_METRICS_LOGGER: metrics})


def _export(learner: Any, probe_ids: list[int]) -> tuple[Any, tuple[int, ProbeScores]]:
    """In the learner's process: its weights, version, the logprobs of the fixed prompt."""
    num_context = max(1, len(probe_ids) - _PROBE_TOKENS)
    policy = learner.policy
    probe = ProbeScores(
        trained=policy.score(probe_ids, num_context).numpy(),
        exact=policy.score(probe_ids, num_context, exact=True).numpy(),
    )
    return serialise(policy.exported_weights()), (learner.policy_version, probe)


def _object_stores() -> list[float]:
    """Bytes of each node's object store."""
    sizes = [node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"]]
    return [float(size) for size in sizes if size]


def _bundle(config: Any) -> dict[str, float]:
    """What a learner reserves, as LearnerGroup has it."""
    gpus = max(0, config.num_gpus_per_learner)
    cpus = config.num_cpus_per_learner
    if cpus == "auto":
        cpus = 0 if gpus else 1
    bundle = {"CPU": cpus, "GPU": gpus, **(config.custom_resources_per_learner or {})}
    return {name: float(amount) for name, amount in bundle.items() if amount}


def _fewer_and_fewer(wanted: int, bundle: Mapping[str, float]) -> list[int]:
    """Numbers of learners to find a place for: all; what the free resources carry if they lie well; half of it, ..."""
    counts = [wanted]
    free = ray.available_resources()
    count = min(wanted - 1, *(int(free.get(name, 0.0) / amount) for name, amount in bundle.items()))
    while count > 0:
        counts.append(count)
        count //= 2
    return counts


def _say_too_large(size: int) -> None:
    logger.warning(
        "The learners' state (%.1f GB) is larger than %.0f%% of Ray's object store, so there is no copy of it: where "
        "one learner of several dies, the others' is used; where all die, the run ends and goes on from its last "
        "checkpoint. A larger store (ray start --object-store-memory=...) makes room for a copy.",
        size / 1e9,
        100 * _SHARE,
    )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)

"""Learners in processes of their own, any of which may die: the run goes on as if none had.

update ──► every learner, its share of the groups; they exchange gradients, so one's death stops them all
   │ done: kept until a snapshot covers it
   ▼
snapshot ──► a copy of their state, taken while others play (`state_copies.py`)

A death: all learners end and start anew, take the newest snapshot, do the updates since it again, and then the one in
which the death was found. Updates depend on nothing but state and groups, so the result is the same, bit for bit.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
from ray.exceptions import RayError
from ray.rllib.core.learner.learner_group import LearnerGroup

from proxmo_rllib.faults import FaultLog
from proxmo_rllib.learner.agreement import ProbeScores
from proxmo_rllib.learner.sharded_state import require_files
from proxmo_rllib.learner.training_data import GroupedTrainingData
from proxmo_rllib.machine.actors import ACTOR_DEATHS, cause_of
from proxmo_rllib.orchestration import learner_group
from proxmo_rllib.orchestration.learner_group import LearnersDiedError
from proxmo_rllib.orchestration.learner_state import export_policy, export_weights, take_over
from proxmo_rllib.orchestration.state_copies import AS_BUILT, GRACE_S, Snapshot, StateCopies

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Deaths with no update finished between them, after which the run ends.
_MAX_DEATHS = 3


@dataclass(frozen=True, slots=True)
class _Update:
    """What the learners learned from."""

    groups: GroupedTrainingData
    settings: Mapping[str, Any]


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
        self._is_sharded = group.config.sharding is not None
        self._deaths = 0
        self._copies = StateCopies(group)
        self._since: list[_Update] = []  # what the newest copy does not cover
        self._running: list[Any] = []  # calls of the newest update
        if group.is_remote:
            learner_group.raise_errors(group)

    @property
    def actors(self) -> list[Any]:
        """The learners' actors, by rank; none with `num_learners=0`."""
        return learner_group.actors_of(self._group)

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
        if self._since and not self._copies.is_pending:
            self.snapshot()
        update = _Update(groups, settings)
        results = self.attempt(lambda: self._run(update))
        self._settle()
        self._since.append(update)
        self._deaths = 0
        return results

    def export(self, probe_ids: Sequence[int]) -> tuple[list[Any], int, ProbeScores]:
        """The weights as engines take them.

        Args:
            probe_ids: the fixed prompt.

        Returns:
            References to what `serialise` packed, owned by this process, of sharded learners one for each; the
            optimizer steps behind it; the learner's logprobs of the fixed prompt.
        """
        ids = list(probe_ids)
        if self._group.is_local:
            blob, (version, probe) = export_weights(self._group._learner, ids)
            return [ray.put(blob)], version, probe

        def ask() -> tuple[list[Any], int, ProbeScores]:
            # Two values, so that the large one stays where it is: this process owns it all the same.
            asked = [
                actor.apply.options(num_returns=2).remote(export_weights, ids)
                for actor in (self.actors if self._is_sharded else self.actors[:1])
            ]
            version, probe = self._wait_for_all([about for _, about in asked])[0]
            return [reference for reference, _ in asked], version, probe

        return self.attempt(ask)

    def change_settings(self, config: Any) -> None:
        """Has all learners go on with other settings, those too that take the place of one that dies.

        Args:
            config: see `ProxMOLearner.change_settings`.
        """
        self._group.config = config
        if self._group.is_local:
            self._group._learner.change_settings(config)
        else:
            self.attempt(lambda: self._wait_for_all([actor.change_settings.remote(config) for actor in self.actors]))

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """What a function of (learner, *arguments) returns in the first learner's process.

        Where they are sharded it is called in all, which have to take part in what the first does.
        """
        if self._group.is_local:
            return function(self._group._learner, *arguments)

        def ask() -> T:
            asked = self.actors if self._is_sharded else self.actors[:1]
            first: T = self._wait_for_all([actor.apply.remote(function, *arguments) for actor in asked])[0]
            return first

        return self.attempt(ask)

    def recorded_logprobs(self, episode_ids: Sequence[str]) -> dict[str, list[np.ndarray]]:
        """Of all learners; see `ProxMOLearner.recorded_logprobs`."""
        if self._group.is_local:
            found: dict[str, list[np.ndarray]] = self._group._learner.recorded_logprobs(episode_ids)
            return found
        shares = self.attempt(
            lambda: self._wait_for_all([actor.recorded_logprobs.remote(episode_ids) for actor in self.actors])
        )
        return {name: turns for share in shares for name, turns in share.items()}

    def save_shards(self, folder: Path) -> None:
        """Has sharded learners write their shares; of others there are none, nor of a checkpoint that was there before.

        Args:
            folder: that all of them see.

        Raises:
            ShardsError: some wrote where this process does not see it.
        """
        if folder.is_dir():
            shutil.rmtree(folder)
        if not self._is_sharded:
            return
        self.attempt(lambda: self._wait_for_all([a.save_shards.remote(str(folder)) for a in self.actors]))
        require_files(folder)

    def load_shards(self, folder: Path) -> None:
        """Has all learners read what sharded ones wrote. Called within `restore`.

        Raises:
            ShardsError: it is of another model.
        """
        if self._group.is_local:
            self._group._learner.load_shards(str(folder))
        else:
            self._wait_for_all([actor.load_shards.remote(str(folder)) for actor in self.actors])

    def export_policy(self) -> tuple[list[Any], Any]:
        """The policy as others load it.

        Returns:
            References to what `serialise` packed: the whole model, adapters merged, of sharded learners each one's
            part; and the adapters alone, or None in their place.
        """
        if self._group.is_local:
            whole, adapters = export_policy(self._group._learner)
            return [ray.put(whole)], ray.put(adapters)

        def ask() -> tuple[list[Any], Any]:
            asked = [
                actor.apply.options(num_returns=2).remote(export_policy)
                for actor in (self.actors if self._is_sharded else self.actors[:1])
            ]
            self._wait_for_all([adapters for _, adapters in asked])  # the smaller ones: a death shows now
            return [whole for whole, _ in asked], asked[0][1]

        return self.attempt(ask)

    def snapshot(self) -> None:
        """Has the whole state copied: weights, optimizer, counters. Does not wait: it is their next work."""
        if self._group.is_local:
            return
        self._settle()
        self._copies.begin(len(self._since))

    def restore(self, call: Callable[[], T]) -> T:
        """Calls what gives the learners another state, such as a checkpoint's: that is where they go back to then."""

        def restore_and_copy() -> T:
            result = call()
            self.snapshot()
            self._copies.require()  # a death now calls for the whole again
            return result

        result = self.attempt(restore_and_copy)
        self._settle()
        return result

    def attempt(self, call: Callable[[], T]) -> T:
        """What a call that needs the learners returns; after a death it is called again, of learners started anew."""
        while True:
            try:
                return call()
            except ACTOR_DEATHS as error:
                if not self._is_of_learner(error):
                    raise
                self._start_anew(error)

    def _run(self, update: _Update) -> list[Any]:
        """Does an update. Raises as soon as one learner fails."""
        actors = self.actors
        shares = update.groups.shard(len(actors))
        return self._wait_for_all(
            [
                actor.update.remote(training_data=share, **update.settings)
                for actor, (share, _) in zip(actors, shares, strict=True)
            ]
        )

    def _wait_for_all(self, calls: Sequence[Any]) -> list[Any]:
        """What calls return in which learners wait for each other. Raises as soon as one fails."""
        self._running = list(calls)
        waiting = list(calls)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            try:
                ray.get(done)
            except ACTOR_DEATHS:
                raise
            except Exception:
                # A learner whose partner died has an error too; that of the partner says more.
                _raise_death(waiting)
                self._end_all()  # they may wait for each other, also when they are told to stop
                raise
        results: list[Any] = ray.get(list(calls))
        return results

    def _settle(self, timeout_s: float | None = None) -> None:
        """Waits for the copy that is being made; what it covers need not be done again."""
        del self._since[: self._copies.settle(timeout_s)]

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
            seen = self._faults.causes.pop(str(getattr(error, "actor_id", "")), None)
            why = cause_of(error) if seen is None else seen.text
            if self._deaths > _MAX_DEATHS:
                raise LearnersDiedError(
                    f"{who} died ({why}), the {self._deaths}th death without a whole update between them. If memory is "
                    "the reason, lower max_tokens_per_microbatch or set gradient_checkpointing=True. The run goes on "
                    "from its last checkpoint with --resume."
                ) from error
            started = time.monotonic()
            self._settle(GRACE_S)
            snapshot = self._newest_state(f"{who} died ({why})", error)
            self._faults.report(
                "learner_replaced",
                f"{who} of {self._wanted} died ({why}); all start anew from optimizer step {snapshot.version} and "
                "do again what came after it.",
            )
            try:
                self._end_all()
                self.num_restarts += 1
                learner_group.build_again(self._group, self._wanted)
                self._hand_over(snapshot)
                for update in self._since:
                    self._run(update)
            except ACTOR_DEATHS as another:
                error = another
                continue
            logger.info("The learners (%d) are back after %.0f s.", len(self.actors), time.monotonic() - started)
            return

    def _newest_state(self, found: str, error: Exception) -> Snapshot:
        """What to start from."""
        if self._copies.newest is None:
            return AS_BUILT
        if (snapshot := self._copies.surviving()) is not None:
            return snapshot
        if not self._is_sharded and (snapshot := self._copies.rescue()) is not None:
            self._since.clear()  # the others are somewhere in the update: what they have learned of it is kept
            return snapshot
        lost = (
            "its share of the weights is nowhere else, and there is no copy of all shares"
            if self._is_sharded
            else "there is no other with its state, and no copy of it"
        )
        raise LearnersDiedError(f"{found}; {lost}. The run goes on from its last checkpoint with --resume.") from error

    def _end_all(self) -> None:
        learner_group.end(self._group)
        for call in self._running:
            # Ray logs an error that nobody has asked for.
            with contextlib.suppress(RayError):
                ray.get(call, timeout=GRACE_S)
        self._running = []

    def _hand_over(self, snapshot: Snapshot) -> None:
        """Gives learners that were just built the state of a snapshot."""
        if not snapshot.states:
            return
        if self._is_sharded and len(self.actors) != len(snapshot.states):
            raise LearnersDiedError(
                f"The learners' state is divided among {len(snapshot.states)}, and the cluster has room for "
                f"{len(self.actors)}. The run goes on from its last checkpoint, which any number reads: --resume with "
                f".learners(num_learners={len(self.actors)})."
            )
        calls = []
        for rank, actor in enumerate(self.actors):
            # There may be fewer than the snapshot was taken of, or more.
            metrics = snapshot.metrics[rank if rank < len(snapshot.metrics) else 0]
            state, _ = snapshot.states[rank if self._is_sharded else 0]
            calls.append(actor.apply.remote(take_over, state, metrics))
        ray.get(calls)


def _raise_death(calls: Sequence[Any]) -> None:
    """Waits a little for calls that fail because their learner died, and raises the first."""
    done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=GRACE_S) if calls else ([], [])
    for call in done:
        try:
            ray.get(call)
        except ACTOR_DEATHS:
            raise
        except RayError:  # it stumbled over the same as the first, whose error is raised
            continue

"""The loop of a run: evaluate, train until a criterion is reached or somebody interrupts, evaluate, save.

panel ──► [algo.train() ──► metrics.jsonl, observers ──► checkpoint when due] * n ──► panel, checkpoint, summary.json
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from proxmo_rllib import preemption
from proxmo_rllib.machine.disk import DiskError
from proxmo_rllib.metrics_file import flatten
from proxmo_rllib.stopping import StopCriteria
from proxmo_rllib.training_run.folder import RunFolder
from proxmo_rllib.training_run.grace import Grace
from proxmo_rllib.training_run.progress import PanelScore, Progress

logger = logging.getLogger(__name__)


class Trainable(Protocol):
    """What the loop needs of `ProxMO`."""

    config: Any
    iteration: int

    def train(self) -> dict[str, Any]: ...

    def evaluate(self) -> dict[str, Any]: ...

    def save_to_path(self, path: str) -> Any: ...


class Observer(Protocol):
    """Somebody who watches a run."""

    def on_panel(self, score: PanelScore, iteration: int) -> None:
        """The panel was played outside of an iteration: before the first one."""

    def on_iteration(
        self, progress: Progress, metrics: Mapping[str, float | None], episodes: Sequence[Mapping[str, Any]]
    ) -> None:
        """An iteration is over; with its numbers and its recorded episodes."""

    def on_checkpoint(self, checkpoint: Path) -> None:
        """A checkpoint was written."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    reason: str
    interrupted: bool
    iterations: int
    minutes: float
    before: PanelScore | None
    after: PanelScore | None
    checkpoint: Path | None
    unsaved: str | None = None  # why the last checkpoint is not there, if it is not

    def summary(self, config: Any) -> dict[str, Any]:
        """One JSON object that says how it went.

        Args:
            config: the ProxMOConfig that was trained.
        """
        scores: dict[str, Any] = {}
        if config.panel is not None:
            scores = {
                "success_before": None if self.before is None else self.before.rate,
                "success_after": None if self.after is None else self.after.rate,
                "interval_before": None if self.before is None else list(self.before.interval),
                "interval_after": None if self.after is None else list(self.after.interval),
                "panel": f"{config.panel.name}@{config.panel.digest[:12]}",
                "panel_size": len(config.panel),
            }
        return scores | {
            "iterations": self.iterations,
            "minutes": round(self.minutes, 3),
            "engine": config.engine,
            "seed": config.seed,
            "stopped": self.reason,
        }


class Run:
    """A run in its folder.

    Args:
        algo: the algorithm, restored if the run is resumed.
        folder: of the run.
        stop: when it ends.
        observers: who watches.
        interrupted: why to end after the present iteration; None to go on.
        started: `time.monotonic()` at which the command began, so that start-up counts.
        checkpoint_every: iterations between checkpoints; the last one is always saved.
        keep_checkpoints: how many are kept.
        stop_unsaved: whether a checkpoint that the disk does not take ends the run; else it goes on to the next.
        grace: a period within which a run that gets SIGTERM is to be saved.
    """

    def __init__(
        self,
        algo: Trainable,
        folder: RunFolder,
        stop: StopCriteria,
        *,
        observers: Sequence[Observer] = (),
        interrupted: Callable[[], str | None] = lambda: None,
        started: float | None = None,
        checkpoint_every: int = 10,
        keep_checkpoints: int = 3,
        stop_unsaved: bool = False,
        grace: Grace | None = None,
    ) -> None:
        self.algo = algo
        self.folder = folder
        self.stop = stop
        self._observers = observers
        self._interrupted = interrupted
        self._started = time.monotonic() if started is None else started
        self._checkpoint_every = checkpoint_every
        self._keep_checkpoints = keep_checkpoints
        self._stop_unsaved = stop_unsaved
        self._unsaved: str | None = None
        self._grace = Grace(0.0) if grace is None else grace
        self._record = folder.read_json("run.json")
        self._minutes_before = float(self._record.get("minutes", 0.0))
        self._checkpoint: Path | None = None
        self._iterated = False

    @property
    def minutes(self) -> float:
        """Wall time of the run, that before a resumption included."""
        return self._minutes_before + (time.monotonic() - self._started) / 60

    def train(self) -> Outcome:
        """Trains until the end, whatever brings it."""
        before = self._score_before()
        after = self._score_at_the_end()
        reason = self._interrupted() or self.stop.reached(self.algo.iteration, self.minutes)
        while reason is None:
            self._grace.remember(self.algo)
            try:
                with self._grace.may_cut():
                    result = self.algo.train()
            except KeyboardInterrupt:
                if not preemption.was_cut():
                    raise
                self._cut()
                reason = self._interrupted() or "pre-empted"
                break
            after = PanelScore.from_metrics(result.get("evaluation", {}))
            reason = self.stop.reached(self.algo.iteration, self.minutes, after.rate if after else None)
            if reason and after is None and self.algo.config.panel is not None and not self._interrupted():
                result["evaluation"] = self._evaluate()
                after = PanelScore.from_metrics(result["evaluation"])
            reason = self._interrupted() or reason
            self._iterated = True
            self._publish(result)
            if reason or self.algo.iteration % self._checkpoint_every == 0:
                self._save()
            if self._unsaved and self._stop_unsaved:
                reason = reason or "its checkpoint could not be saved"
        self._grace.over()
        outcome = Outcome(
            reason=reason,
            interrupted=self._interrupted() is not None,
            iterations=self.algo.iteration,
            minutes=self.minutes,
            before=before,
            after=after,
            checkpoint=self._checkpoint,
            unsaved=self._unsaved,
        )
        if self._iterated or not (self.folder.path / "summary.json").exists():
            self.folder.note("summary.json", outcome.summary(self.algo.config))
        return outcome

    def _evaluate(self) -> dict[str, Any]:
        """The panel's metrics; empty if it was cut."""
        with self._grace.may_cut():
            return self.algo.evaluate()

    def _score_before(self) -> PanelScore | None:
        """Of the untrained policy; a resumed run remembers it."""
        remembered = self._record.get("before")
        if remembered is not None:
            return PanelScore(**remembered)
        if self.algo.config.panel is None or self.algo.iteration:
            return None
        metrics = self._evaluate()
        score = PanelScore.from_metrics(metrics)
        if score is None:
            return None
        self._record["before"] = asdict(score)
        self.folder.note("run.json", self._record)
        self.folder.add_metrics({"iteration": 0, "minutes": self.minutes} | flatten({"evaluation": metrics}))
        for observer in self._observers:
            observer.on_panel(score, 0)
        return score

    def _score_at_the_end(self) -> PanelScore | None:
        """Of a run that is gone on with where it ended, as it was measured there."""
        last = self.folder.last_metrics()
        if last.get("iteration") != self.algo.iteration or not self.algo.iteration:
            return None
        prefix = "evaluation/"
        return PanelScore.from_metrics({key.removeprefix(prefix): last[key] for key in last if key.startswith(prefix)})

    def _cut(self) -> None:
        """There was no time for the iteration's end: saves the state at the end of the one before."""
        self._grace.go_back(self.algo)
        self.folder.forget_after(self.algo.iteration)
        newest = self.folder.saved.newest_whole()
        if self.algo.iteration and (newest is None or newest != self.folder.saved.place(self.algo.iteration)):
            self._save()

    def _publish(self, result: dict[str, Any]) -> None:
        progress = Progress.from_result(result, self.minutes)
        metrics = progress.as_metrics() | flatten(result)
        self.folder.add_metrics(metrics)
        episodes = list(self.folder.new_episodes())
        for observer in self._observers:
            observer.on_iteration(progress, metrics, episodes)

    def _save(self) -> None:
        """Saves a checkpoint; one that the disk does not take leaves the one before, and a warning."""
        began = time.monotonic()
        try:
            self._checkpoint = self.folder.save_checkpoint(
                self.algo.iteration, self.algo.save_to_path, self._keep_checkpoints
            )
        except DiskError as error:
            self._unsaved = str(error)
            last = self.folder.saved.newest_whole()
            there = "there is none yet" if last is None else f"the last one is {last.name}, and whole"
            logger.warning("%s Of the checkpoints, %s.", error, there)
            return
        self._unsaved = None
        self._grace.saved_in(time.monotonic() - began)
        # After the checkpoint: minutes belong to what a resumed run can go on from.
        self._record |= {"minutes": self.minutes, "iterations": self.algo.iteration}
        self.folder.note("run.json", self._record)
        for observer in self._observers:
            observer.on_checkpoint(self._checkpoint)

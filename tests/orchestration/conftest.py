"""Learners in processes of their own, on a tiny random model, that die when they are told to."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import cloudpickle
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from env_wrappers.core import AnyText
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.learner import GroupedTrainingData, ProxMOLearner
from proxmo_rllib.metrics_logger import LoggedMetrics
from proxmo_rllib.orchestration.learners import Learners
from proxmo_rllib.types import Episode, Group, Status, Turn

SPACES = {DEFAULT_MODULE_ID: (AnyText(), AnyText())}
PROBE = list(range(10, 30))


def mortal_learner(folder: Path) -> type[ProxMOLearner]:
    """A learner that obeys the files of a folder; made in a function, since Ray's processes know no tests.

    `kill-RANK-MOMENT` kills the learner of that rank at that moment, once; `raise-RANK` makes it fail every time.
    """

    class MortalLearner(ProxMOLearner):
        def build(self) -> None:
            super().build()
            self.minibatch = 0

        def obey(self, moment: str) -> None:
            order = folder / f"kill-{self._learner_index}-{moment}"
            if order.exists():
                order.rename(folder / f"done-{self._learner_index}-{moment}")
                os.kill(os.getpid(), signal.SIGKILL)
            if (folder / f"always-{moment}").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            if (folder / f"raise-{self._learner_index}").exists():
                raise FloatingPointError("Too hot.")

        def update(self, *args: Any, **kwargs: Any) -> Any:
            self.minibatch = 0
            return super().update(*args, **kwargs)

        def _update(self, *args: Any, **kwargs: Any) -> Any:
            self.minibatch += 1
            self.obey(f"minibatch_{self.minibatch}")
            return super()._update(*args, **kwargs)

        def snapshot(self) -> Any:
            self.obey("snapshot")
            return super().snapshot()

        def save_to_path(self, *args: Any, **kwargs: Any) -> Any:
            self.obey("checkpoint")
            return super().save_to_path(*args, **kwargs)

        @property
        def policy_version(self) -> int:
            self.obey("export")  # the first to ask for it
            return self._num_optimizer_steps

    return MortalLearner


def make_groups(num_groups: int, seed: int) -> GroupedTrainingData:
    """Groups of three random episodes."""
    rng = np.random.default_rng(seed)
    groups = []
    for number in range(num_groups):
        episodes = []
        for index in range(3):
            turns = tuple(_turn(rng, appended=place > 0) for place in range(int(rng.integers(1, 5))))
            status = [Status.SUCCESS, Status.FAILURE, Status.TRUNCATED][index]
            episodes.append(Episode(f"g{number}-{index}", f"g{number}", f"t{number}", "kind", number, turns, status))
        groups.append(Group(f"g{number}", f"t{number}", tuple(episodes)))
    return GroupedTrainingData(
        group_refs=[ray.put(group) for group in groups], group_tokens=[group.num_tokens for group in groups]
    )


def _turn(rng: np.random.Generator, *, appended: bool) -> Turn:
    response = rng.integers(0, 300, rng.integers(1, 6)).astype(np.int32)
    return Turn(
        context_ids=rng.integers(0, 300, rng.integers(2, 12)).astype(np.int32),
        appended=appended,
        response_ids=response,
        logprobs=(-np.log(600) + 0.3 * rng.standard_normal(len(response))).astype(np.float32),
        policy_version=0,
        anchor=f"You see thing {rng.integers(3)}.",
        response="go",
        action="go",
        action_valid=True,
        reward=float(rng.standard_normal()),
    )


class Run:
    """Learners, and what a run keeps of them."""

    def __init__(self, config: ProxMOConfig, num_learners: int, folder: Path, sharding: str | None) -> None:
        self.folder = folder  # of the orders to its learners
        config = config.copy(copy_frozen=False).learners(num_learners=num_learners, num_gpus_per_learner=0)
        config.learners(sharding=sharding)
        config.learners(learner_class=mortal_learner(folder))
        self.group = config.build_learner_group(spaces=SPACES)
        self.learners = Learners(self.group)
        self.metrics = LoggedMetrics.like(MetricsLogger(root=True))

    def iterate(self, seed: int, between: Callable[[], object] = lambda: None) -> dict[str, float]:
        """An iteration on the groups of a seed. Returns the metrics, without times."""
        between()
        results = self.learners.update(make_groups(4, seed), num_epochs=1)
        self.metrics.aggregate(results)
        self.learners.export(PROBE)
        self.learners.snapshot()
        return _numbers(self.metrics.reduce())

    def states(self) -> list[dict[str, Any]]:
        """Of each learner."""
        return list(ray.get([actor.snapshot.remote() for actor in self.learners.actors]))


def _numbers(tree: Any, path: str = "") -> dict[str, float]:
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in _numbers(value, f"{path}/{key}").items()}
    if "time" in path or "throughput" in path:
        return {}
    return {path: float(tree.peek() if hasattr(tree, "peek") else tree)}


@pytest.fixture
def config(tiny_policy: Path) -> ProxMOConfig:
    return (
        ProxMOConfig()
        .environment("env_wrappers/ALFWorld-v0")
        .policy(pretrained=tiny_policy)
        .inference(max_kl_to_engine=1e6)  # the episodes are made up: no engine sampled them
        .training(group_size=3, num_groups=4, num_minibatches=2, lr=1e-3)
    )


@pytest.fixture
def start(local_ray: None, config: ProxMOConfig, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts so many learners, which obey the files in their run's folder."""
    started: list[Run] = []

    def make(num_learners: int, sharding: str | None = None, **training: Any) -> Run:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Run(config.copy(copy_frozen=False).training(**training), num_learners, folder, sharding))
        return started[-1]

    yield make
    for run in started:
        run.group.shutdown()


@pytest.fixture
def run_class() -> Iterator[type[Run]]:
    """`Run`, for other processes, which know no tests."""
    module = sys.modules[Run.__module__]
    cloudpickle.register_pickle_by_value(module)
    yield Run
    cloudpickle.unregister_pickle_by_value(module)

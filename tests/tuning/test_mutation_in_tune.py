"""PBT in Ray Tune: settings change in a trial's own processes, and a trial after another finds engines that run."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.rllib.core import DEFAULT_MODULE_ID

from proxmo_rllib import ProxMO, ProxMOConfig, StopCriteria
from proxmo_rllib.monitoring import ray_loggers
from proxmo_rllib.tuning.pbt import InPlacePBT
from proxmo_rllib.tuning.trial import trial_class, trial_folder

LRS = [1e-3, 2e-3]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def seen_class() -> type[ProxMO]:
    """A run that says with each result what its processes have; Ray cannot import this file, so it travels whole."""

    class Seen(ProxMO):
        def step(self) -> dict[str, Any]:
            before = _moments(self.learner_group._learner)
            result: dict[str, Any] = super().step()
            learner = self.learner_group._learner  # a new trial's is another
            (optimizer,) = learner._optimizer_parameters
            result["seen"] = {
                "engine": ray.get(self.pool.handles[0].__ray_call__.remote(lambda actor: os.getpid())),
                "trial_process": os.getpid(),
                "lr": optimizer.param_groups[0]["lr"],
                "entropy_coef": learner._policy_loss.entropy_coef,
                "step_weight": learner._learner_connector.connectors[-2]._settings["step_weight"],
                "moments_before": before,
                "moments_after": _moments(learner),
                "weights": self._probe(),
                "score": self.config.lr,  # the donor is known beforehand
            }
            return result

        def _probe(self) -> float:
            weights = self.learner_group._learner.policy.lm.parameters()
            return float(sum(p.detach().double().abs().sum() for p in weights))

    return Seen


def _moments(learner: Any) -> float:
    (optimizer,) = learner._optimizer_parameters
    return float(sum(s["exp_avg"].double().abs().sum() for s in optimizer.state.values()))


def in_force(learner: Any) -> tuple[int, float, float, float]:
    """A learner's process, and lr, step_weight and entropy_coef as it has them."""
    (optimizer,) = learner._optimizer_parameters
    weight = learner._learner_connector.connectors[-2]._settings["step_weight"]
    return os.getpid(), optimizer.param_groups[0]["lr"], weight, learner._policy_loss.entropy_coef


def tuner(config: ProxMOConfig, folder: Path, iterations: int, **how: Any) -> tune.Tuner:
    run_config = tune.RunConfig(
        name="sweep",
        storage_path=str(folder),
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        verbose=0,
        callbacks=ray_loggers.callbacks(["json"]),  # of `proxmo tune`; Tune's own lose rows
    )
    stop = StopCriteria(iterations=iterations)
    return tune.Tuner(
        trial_class(seen_class(), stop),
        param_space=config,
        run_config=run_config,
        # As `proxmo tune` does: Tune names folders by settings, which PBT changes.
        tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=trial_folder, **how),
    )


def rows(result: Any) -> list[dict[str, Any]]:
    """What a trial said with each result."""
    frame = result.metrics_dataframe
    return [
        {key.removeprefix("seen/"): row[key] for key in frame if key.startswith("seen/")}
        | {"iteration": int(row["training_iteration"])}
        for _, row in frame.iterrows()
    ]


@pytest.mark.smoke
def test_a_run_that_takes_over_another_goes_on_in_its_own_processes(
    local_ray: None, config: ProxMOConfig, tmp_path: Path
):
    """What Tune asks of a trial's actor: other settings, and then another's checkpoint."""
    config.training(lr=1e-3, step_weight=0.5, entropy_coef=0.01)
    algorithm: Any = seen_class()(config=config.copy(copy_frozen=False))
    try:
        donor = algorithm.train()["seen"]
        checkpoint = algorithm.save_to_path(str(tmp_path / "donor"))
        algorithm.train()
        config.training(lr=4e-3, step_weight=4.0, entropy_coef=0.2)
        assert algorithm.reset(config.to_dict())
        algorithm.restore_from_path(checkpoint)
        result = algorithm.train()
        seen = result["seen"]
        assert (seen["trial_process"], seen["engine"]) == (donor["trial_process"], donor["engine"])
        assert (seen["lr"], seen["step_weight"], seen["entropy_coef"]) == (4e-3, 4.0, 0.2)
        assert seen["moments_before"] == pytest.approx(donor["moments_after"], rel=1e-12)
        assert result["policy_version"] == result["training_iteration"] == 2
        assert result["weight_transfer_error"] < 1e-4
    finally:
        algorithm.stop()


@pytest.mark.parametrize("num_learners", [1, 2])
def test_settings_change_in_each_learners_process(
    local_ray: None, config: ProxMOConfig, tmp_path: Path, num_learners: int
):
    config.learners(num_learners=num_learners, num_cpus_per_learner=0.25)
    config.training(lr=1e-3, step_weight=0.5, entropy_coef=0.01)
    algorithm: Any = ProxMO(config=config.copy(copy_frozen=False))

    def told() -> list[tuple[int, float, float, float]]:
        return [one.get() for one in algorithm.learner_group.foreach_learner(in_force)]

    try:
        algorithm.train()
        before = told()
        checkpoint = algorithm.save_to_path(str(tmp_path / "donor"))
        config.training(lr=4e-3, step_weight=4.0, entropy_coef=0.2)
        assert algorithm.reset(config.to_dict())
        algorithm.restore_from_path(checkpoint)
        result = algorithm.train()
        after = told()
    finally:
        algorithm.stop()
    processes = [{pid for pid, *_ in one} for one in (before, after)]
    assert processes[0] == processes[1]
    assert len(processes[0]) == num_learners
    assert {one[1:] for one in after} == {(4e-3, 4.0, 0.2)}
    assert result["learners"][DEFAULT_MODULE_ID]["default_optimizer_learning_rate"] == pytest.approx(4e-3)
    assert result["weight_transfer_error"] < 1e-4


def population(synch: bool) -> InPlacePBT:
    return InPlacePBT(
        time_attr="training_iteration",
        perturbation_interval=2,
        quantile_fraction=0.5,
        resample_probability=0.0,
        hyperparam_mutations={"lr": [*LRS, 4e-3], "step_weight": [0.5, 4.0], "entropy_coef": [0.01, 0.2]},
        synch=synch,
    )


def processes(rows: list[dict[str, Any]]) -> set[tuple[int, int]]:
    return {(row["trial_process"], row["engine"]) for row in rows}


def test_pbt_changes_running_trials_that_wait_for_each_other(local_ray: None, config: ProxMOConfig, tmp_path: Path):
    config.training(lr=tune.grid_search(LRS), step_weight=0.5, entropy_coef=0.01)
    results = tuner(config, tmp_path, 4, metric="seen/score", mode="max", scheduler=population(synch=True)).fit()
    assert not results.errors
    worse, better = sorted(results, key=lambda result: rows(result)[0]["lr"])
    assert [rows(one)[0]["lr"] for one in (worse, better)] == LRS
    first, last = rows(worse)[:2], rows(worse)[2:]
    donor = rows(better)[1]
    # The settings are the donor's, a step to the left or right in each list, and the processes have them.
    assert {row["lr"] for row in last} == {worse.config["lr"]} <= {1e-3, 4e-3}
    assert {row["step_weight"] for row in last} == {worse.config["step_weight"]}
    assert {row["entropy_coef"] for row in last} == {worse.config["entropy_coef"]}
    # The weights' and the optimizer's state are the donor's, not what the trial had.
    assert last[0]["moments_before"] == pytest.approx(donor["moments_after"], rel=1e-12)
    assert last[0]["moments_before"] != pytest.approx(first[1]["moments_after"], rel=1e-6)
    # Processes go on. Trials may change places, or share one where the other was slow to start.
    halves = [[row for one in results for row in rows(one)[half]] for half in (slice(2), slice(2, 4))]
    assert processes(halves[1]) <= processes(halves[0])
    # What the iteration reports was measured with the new settings.
    learned = worse.metrics["learners"][DEFAULT_MODULE_ID]
    assert learned["default_optimizer_learning_rate"] == pytest.approx(worse.config["lr"])
    assert worse.metrics["policy_version"] == 4
    assert worse.metrics["weight_transfer_error"] < 1e-4


def test_pbt_changes_a_trial_that_waits_for_none_in_its_own_processes(
    local_ray: None, config: ProxMOConfig, tmp_path: Path
):
    config.training(lr=tune.grid_search(LRS), step_weight=0.5, entropy_coef=0.01)
    results = tuner(config, tmp_path, 8, metric="seen/score", mode="max", scheduler=population(synch=False)).fit()
    assert not results.errors
    assert any(len({row["lr"] for row in rows(one)}) > 1 for one in results)
    for one in results:
        assert len(processes(rows(one))) == 1
        # It goes on behind the other's checkpoint, which may be before or behind its own place; no row is lost.
        places = [0, *(row["iteration"] for row in rows(one))]
        assert all(after == before + 1 or after % 2 for before, after in itertools.pairwise(places))


def test_a_trial_after_another_begins_anew_around_the_engines_that_run(
    local_ray: None, config: ProxMOConfig, tmp_path: Path
):
    """As if it had been the first: same settings, same result, bit for bit; also where only the learners' differ."""
    config.training(lr=tune.grid_search([1e-3, 2e-3, 1e-3])).debugging(seed=3)
    config.env_runners(max_turns=tune.sample_from(lambda spec: 2))
    results = tuner(config, tmp_path, 2, max_concurrent_trials=1).fit()
    assert not results.errors
    one, other, again = (rows(result) for result in results)
    assert len({row["engine"] for row in [*one, *other, *again]}) == 1
    assert [row["weights"] for row in one] == [row["weights"] for row in again]
    assert [row["weights"] for row in one] != [row["weights"] for row in other]
    assert [row["iteration"] for row in again] == [1, 2]
    panels = [result.metrics["evaluation"]["num_episodes"] for result in results]
    assert panels == [4, 4, 4]
    assert all((Path(result.path) / "episodes.jsonl.gz").is_file() for result in results)  # each in its own folder


def test_engines_of_another_kind_are_started_anew_in_the_trials_process(
    local_ray: None, config: ProxMOConfig, tmp_path: Path
):
    config.inference(max_num_seqs=tune.grid_search([8, 16]))
    results = tuner(config, tmp_path, 1, max_concurrent_trials=1).fit()
    assert not results.errors
    first, second = (rows(result)[0] for result in results)
    assert first["trial_process"] == second["trial_process"]
    assert first["engine"] != second["engine"]

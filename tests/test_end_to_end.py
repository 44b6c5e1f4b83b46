"""The whole thing: real Ray, real vLLM on the CPU, a tiny model. Two iterations, a panel, a checkpoint and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from ray.tune import register_env

from env_wrappers.core import AnyText
from env_wrappers.panels import Panel
from proxmo_rllib import ProxMO, ProxMOConfig, activity
from proxmo_rllib.metrics_file import flatten
from proxmo_rllib.policies.loading import load_causal_lm
from proxmo_rllib.record_file import NAME, record_lines
from proxmo_rllib.types import Assignment
from proxmo_rllib.viewer.run import ViewedRun

GROUPS, SIZE, TURNS = 3, 4, 3
PROBE = list(range(10, 40))


def guessing_env() -> type[gymnasium.Env[str, str]]:
    """An environment that chance solves now and then, so that even a random model has something to learn from.

    Made in a function, so that Ray's processes, which know no tests, get the class itself.
    """

    class GuessingEnv(gymnasium.Env[str, str]):
        metadata = {"render_modes": [], "blocking": False}

        def __init__(self) -> None:
            self.observation_space = self.action_space = AnyText()

        def tasks(self, split: str) -> list[str]:
            return [f"{split}-{index}" for index in range(10)]

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
            super().reset(seed=seed)
            self.task = options["task"]
            return f"You are in the room {self.task}.", self.info(False)

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            right = sum(action.encode()) % 4 == 0
            return "Nothing happens.", float(right), right, False, self.info(right)

        def info(self, success: bool) -> dict[str, Any]:
            kind = "even" if int(self.task[-1]) % 2 == 0 else "odd"
            return {"success": success, "task": self.task, "task_type": kind, "goal": "guess", "admissible_actions": []}

    return GuessingEnv


@dataclass
class Trained:
    """What two iterations left behind; the algorithm itself has been stopped."""

    results: list[dict[str, Any]]
    episodes_over: int
    weights_at_start: dict[str, torch.Tensor]
    learner_state: dict[str, Any]
    scores: torch.Tensor
    engine_scores: np.ndarray
    engine_versions: list[int]
    policy_version: int
    next_assignments: list[Assignment]
    checkpoint: Path
    run_folder: Path


def learner_of(algorithm: ProxMO) -> Any:
    return algorithm.learner_group._learner


@pytest.fixture(scope="module")
def config(local_ray: None, tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> ProxMOConfig:
    env = guessing_env()
    register_env("guessing", lambda settings: env())  # for the panel, which needs a name
    panel = Panel("guessing", 1, "guessing", {}, tuple(f"valid-{index}" for index in range(6)))
    return (
        ProxMOConfig()
        .environment(lambda settings: env())
        .policy(pretrained=tiny_policy)
        .inference(max_model_len=128, max_response_tokens=6, max_num_seqs=16)
        .env_runners(num_env_runners=1, max_turns=TURNS)
        .training(num_groups=GROUPS, group_size=SIZE, lr=1e-3)
        .evaluation(evaluation_interval=2, panel=panel, panel_temperature=1.0)
        .debugging(record_groups=GROUPS, run_folder=str(tmp_path_factory.mktemp("run")))
    )


@pytest.fixture(scope="module")
def trained(config: ProxMOConfig, tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    algorithm: Any = config.build_algo()
    try:
        results = [algorithm.train() for _ in range(2)]
        over = activity.episodes_over()
        learner = learner_of(algorithm)
        return Trained(
            results=results,
            episodes_over=over,
            weights_at_start={name: p.detach() for name, p in load_causal_lm(tiny_policy).named_parameters()},
            learner_state=learner.get_state(),
            scores=learner.policy.score(PROBE, 8),
            engine_scores=algorithm.pool.score(PROBE, 8),
            engine_versions=algorithm.pool.versions(),
            policy_version=algorithm.policy_version,
            checkpoint=Path(algorithm.save_to_path(str(tmp_path_factory.mktemp("checkpoint")))),
            next_assignments=algorithm._sampler.deal(5, SIZE),
            run_folder=Path(algorithm.logdir),
        )
    finally:
        algorithm.stop()


def test_an_iteration_plays_learns_and_reports(trained: Trained):
    for number, result in enumerate(trained.results, start=1):
        played, learned = result["env_runners"], result["learners"]["default_policy"]
        assert result["training_iteration"] == number
        assert played["num_episodes"] == GROUPS * SIZE
        assert played["num_episodes_lifetime"] == number * GROUPS * SIZE
        assert 0 < played["success_rate"] < 1
        assert 1 <= played["episode_len_mean"] <= TURNS
        assert played["num_errors"] == result["num_groups_dropped"] == result["num_engine_restarts"] == 0
        assert learned["gradient_norm"] > 0
        assert np.isfinite(learned["total_loss"])
        assert learned["num_sequences"] == GROUPS * SIZE
        for phase in ("env_runner_sampling_timer", "learner_update_timer", "synch_weights"):
            assert result["timers"][phase] > 0


def test_no_number_of_a_result_is_nan_and_the_timers_are_of_the_iteration(trained: Trained):
    def numbers(part: dict[str, Any], path: str = "") -> dict[str, float]:
        found: dict[str, float] = {}
        for key, value in part.items():
            if isinstance(value, dict):
                found |= numbers(value, f"{path}{key}/")
            elif isinstance(value, (int, float)):
                found[f"{path}{key}"] = float(value)
        return found

    for result in trained.results:
        found = numbers({key: value for key, value in result.items() if key != "config"})
        assert [key for key, value in found.items() if not np.isfinite(value)] == []
        timers = result["timers"]
        phases = sum(timers[name] for name in ("env_runner_sampling_timer", "learner_update_timer", "synch_weights"))
        assert phases < timers["training_step"] <= timers["training_iteration"] <= result["time_this_iter_s"]
        assert timers["training_iteration"] == pytest.approx(phases, rel=0.1, abs=0.2)


def test_the_reference_page_says_what_every_number_of_a_result_is(trained: Trained, reference: Any):
    for result in trained.results:
        assert [key for key in flatten(result) if not reference.documented(key)] == []


def test_whoever_watches_learns_how_many_episodes_are_over(trained: Trained):
    """Of the phase that was played last: the panel, since every second iteration is evaluated."""
    assert 1 <= trained.episodes_over <= 6


def test_the_engine_follows_the_learner(trained: Trained):
    """After each transfer the engine computes what the learner computes."""
    assert [result["policy_version"] for result in trained.results] == [1, 2]
    assert all(result["weight_transfer_error"] < 1e-4 for result in trained.results)
    assert trained.engine_versions == [2]
    assert trained.policy_version == 2
    np.testing.assert_allclose(trained.engine_scores[0], trained.scores.numpy(), atol=1e-4)
    weights = trained.learner_state["rl_module"]["default_policy"]
    for name, start in trained.weights_at_start.items():
        assert not np.array_equal(np.asarray(weights[name]), start.numpy())


def test_the_engines_logprobs_are_the_learners(trained: Trained):
    """Sampled by vLLM, and computed again by the learner under the same weights: the ratio starts at one."""
    for result in trained.results:
        learned = result["learners"]["default_policy"]
        assert learned["approximate_kl_to_old"] == pytest.approx(0.0, abs=1e-8)
        assert learned["clip_fraction"] == 0.0


def test_the_panel_is_played_as_a_whole(trained: Trained):
    assert "evaluation" not in trained.results[0]
    evaluated = trained.results[1]["evaluation"]
    assert evaluated["num_episodes"] == 6
    assert evaluated["success_low"] <= evaluated["success_rate"] <= evaluated["success_high"]
    assert set(evaluated["by_task_type"]) == {"even", "odd"}


def test_the_viewer_has_the_advantages_that_the_run_learnt_with(trained: Trained, config: ProxMOConfig):
    run = ViewedRun(trained.run_folder)
    for iteration, result in enumerate(trained.results, start=1):
        shown = [run.group(group)["credit"] for group in run.groups if group.iteration == iteration]
        assert len(shown) == GROUPS
        assert all(credit["notes"] == [] and credit["estimator"] == "proxmo" for credit in shown)
        assert all(credit["options"].items() >= config.estimator_settings().items() for credit in shown)
        totals = np.concatenate([credit["parts"]["total"] for credit in shown])
        logged = result["learners"]["default_policy"]["advantages"]
        assert np.abs(totals).max() == logged["total/abs_max"]
        assert totals.std() == pytest.approx(logged["total/std"], rel=1e-12)
        assert totals.mean() == pytest.approx(logged["total/mean"], abs=1e-12)


def test_every_token_is_recorded_with_the_engines_logprob(trained: Trained):
    for line in record_lines(trained.run_folder / NAME):
        for turn in json.loads(line)["turns"]:
            assert len(turn["tokens"]) == len(turn["logprobs"]) > 0
            assert sum(turn["logprobs"]) == pytest.approx(turn["logprob"], abs=1e-4 * len(turn["tokens"]))
            said = "".join(turn["tokens"])
            assert said.startswith(turn["response"]) or "\ufffd" in said  # a letter of several tokens


def test_episodes_are_recorded_as_text(trained: Trained):
    lines = [json.loads(line) for line in record_lines(trained.run_folder / NAME)]
    assert {line["iteration"] for line in lines} == {1, 2}
    assert {line["status"] for line in lines} <= {"success", "truncated"}
    assert lines[0]["turns"][0]["observation"].startswith("You are in the room train-")
    assert {turn["version"] for line in lines if line["iteration"] == 2 for turn in line["turns"]} == {1}


def test_the_policy_folder_loads_in_transformers(trained: Trained):
    lm = load_causal_lm(trained.checkpoint / "policy")
    with torch.no_grad():
        log_p = lm(torch.tensor([PROBE])).logits[0, 7:-1].log_softmax(-1)
    scores = log_p.gather(1, torch.tensor(PROBE[8:])[:, None])[:, 0]
    torch.testing.assert_close(scores, trained.scores, rtol=0, atol=1e-5)
    files = {path.name for path in (trained.checkpoint / "policy").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files


def test_a_checkpoint_brings_everything_back(trained: Trained):
    algorithm: Any = ProxMO.from_checkpoint(str(trained.checkpoint))
    try:
        assert algorithm.training_iteration == 2
        assert algorithm.policy_version == 2
        assert algorithm.pool.versions() == [2]
        np.testing.assert_allclose(algorithm.pool.score(PROBE, 8), trained.engine_scores, atol=1e-5)
        assert_equal(learner_of(algorithm).get_state(), trained.learner_state)
        sampler_state = algorithm._sampler.get_state()
        assert algorithm._sampler.deal(5, SIZE) == trained.next_assignments
        algorithm._sampler.set_state(sampler_state)
        result = algorithm.train()
    finally:
        algorithm.stop()
    assert result["training_iteration"] == 3
    assert result["policy_version"] == 3
    assert result["env_runners"]["num_episodes_lifetime"] == 3 * GROUPS * SIZE


def assert_equal(given: Any, expected: Any, path: str = "state") -> None:
    """Nested states are equal, but for the metrics, which know when they were taken."""
    if isinstance(expected, dict):
        assert given.keys() == expected.keys(), path
        for key, value in expected.items():
            if key != "metrics_logger":
                assert_equal(given[key], value, f"{path}/{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(given) == len(expected), path
        for index, value in enumerate(expected):
            assert_equal(given[index], value, f"{path}/{index}")
    elif isinstance(expected, (np.ndarray, torch.Tensor)):
        np.testing.assert_array_equal(np.asarray(given), np.asarray(expected), err_msg=path)
    else:
        assert given == expected, path

"""Each cause is found where it is provoked, and nothing is found where a run is well."""

from __future__ import annotations

import itertools
import json
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from proxmo_rllib.advantages import ESTIMATORS
from proxmo_rllib.cli.diagnose import main
from proxmo_rllib.diagnosis import diagnose
from proxmo_rllib.learner.advantages_connector import ProxMOAdvantages
from proxmo_rllib.metrics_file import flatten
from proxmo_rllib.metrics_logger import LoggedMetrics
from proxmo_rllib.rollouts.sampling_metrics import log_groups
from proxmo_rllib.types import Episode, Group, Status, Turn

LEARNER = "learners/default_policy/"
ACTIONS = ("go to shelf 1", "open drawer 2", "take mug 1", "look", "inventory", "go to bed 1", "examine pen 2", "help")


def turn(observation: str, action: str, valid: bool = True, cut: bool = False, reward: float = 0.0) -> Turn:
    return Turn(
        context_ids=np.zeros(5, np.int32),
        appended=True,
        response_ids=np.zeros(3, np.int32),
        logprobs=np.full(3, -0.5, np.float32),
        policy_version=0,
        anchor=observation,
        response=action,
        action=action,
        action_valid=valid,
        reward=reward,
        cut=cut,
    )


def play(
    act: Callable[[str], str] = lambda observation: ACTIONS[zlib.crc32(observation.encode()) % 8],
    status: Callable[[int], Status] = lambda index: Status.SUCCESS if index % 3 == 0 else Status.FAILURE,
    **turns: Any,
) -> list[Group]:
    """Groups of eight episodes of five turns, half of which part ways at each turn."""
    groups = []
    for number in range(6):
        episodes = []
        for index in range(8):
            seen = [f"task {number}", *(f"task {number}, turn {place}, way {index % 4}" for place in range(1, 5))]
            won = status(index) is Status.SUCCESS
            played = tuple(
                turn(what, act(what), reward=float(won and place == 4), **turns) for place, what in enumerate(seen)
            )
            broken = status(index) is Status.ERROR
            episodes.append(
                Episode(
                    f"{number}-{index}", str(number), "t", "pick", 0, () if broken else played, status(index),
                    error="it broke" if broken else None,
                )
            )  # fmt: skip
        groups.append(Group(str(number), "t", tuple(episodes)))
    return groups


def rows_of(groups: Sequence[Group], iterations: int = 12, **more: float) -> list[Any]:
    """Metrics as a run writes them: what the rollouts log of the groups, and the learner's connector of advantages."""
    rows: list[dict[str, Any]] = [{"iteration": 0, "evaluation/success_rate": 0.3}]
    root, runner = LoggedMetrics.like(MetricsLogger(root=True)), LoggedMetrics.like(MetricsLogger(root=False))
    log_groups(runner, groups)
    root.aggregate([runner.reduce()], key="env_runners")
    learner = LoggedMetrics.like(MetricsLogger(root=False))
    whole = [group.episodes for group in groups if all(e.status is not Status.ERROR for e in group.episodes)]
    if whole:
        connector = ProxMOAdvantages(ESTIMATORS["proxmo"], {}, 8)
        episodes = [*itertools.chain(*whole)]
        connector(rl_module=None, batch={}, episodes=episodes, shared_data={}, metrics=learner)
        root.aggregate([learner.reduce()], key="learners")
    seen = flatten(root.compile())
    return [*rows, *({"iteration": n, **seen, LEARNER + "entropy": 0.5, **more} for n in range(1, iterations + 1))]


def causes(rows: Sequence[Any], **settings: Any) -> list[str]:
    return [finding.cause for finding in diagnose(rows, settings)]


def test_nothing_is_off_in_a_run_that_is_well_or_has_not_begun():
    assert causes(rows_of(play()), num_minibatches=4) == []
    assert causes([]) == causes([{"iteration": 0, "evaluation/success_rate": 0.3}]) == []


def fails(index: int) -> Status:
    return Status.FAILURE


def breaks(index: int) -> Status:
    return Status.ERROR if index == 3 else fails(index)


PROVOKED = {
    "episodes break": lambda: play(status=breaks),
    "responses do not depend on the observation": lambda: play(act=lambda observation: "look"),
    "groups without contrast": lambda: play(status=fails),
    "responses are cut": lambda: play(cut=True),
    "actions are invalid": lambda: play(valid=False),
    "episodes are truncated": lambda: play(status=lambda index: Status.SUCCESS if index == 0 else Status.TRUNCATED),
}


@pytest.mark.parametrize("cause", PROVOKED)
def test_what_the_episodes_show_is_found(cause: str):
    assert cause in causes(rows_of(PROVOKED[cause]()))


@pytest.mark.parametrize(
    ("cause", "metrics"),
    [
        ("gradients are not finite", {"num_skipped_steps": 1.0}),
        ("engine and learner disagree", {"mismatch/kl": 0.05}),
        ("the policy jumps", {"clip_fraction": 0.5}),
        ("the policy stands still", {"approximate_kl_to_old": 1e-12, "default_optimizer_learning_rate": 1e-9}),
    ],
)
def test_what_the_learner_shows_is_found(cause: str, metrics: dict[str, float]):
    rows = rows_of(play(), **{LEARNER + name: value for name, value in metrics.items()})
    assert causes(rows, num_minibatches=4) == [cause]


def test_a_single_step_has_no_policy_before_it_to_differ_from():
    rows = rows_of(
        play(), **{LEARNER + "approximate_kl_to_old": 0.0, LEARNER + "default_optimizer_learning_rate": 1e-3}
    )
    assert causes(rows, num_minibatches=1) == []


def test_entropy_that_is_gone_is_found_unless_the_agent_succeeds():
    for groups, expected in ((play(), ["entropy is gone"]), (play(status=lambda index: Status.SUCCESS), [])):
        rows = rows_of(groups, iterations=30)
        for row in rows[-12:]:
            row[LEARNER + "entropy"] = 0.01
        assert causes(rows) == expected


def test_step_advantages_that_drown_the_others_are_found():
    rows = rows_of(play())
    assert causes(rows, step_weight=1.0) == []
    assert causes(rows, step_weight=1e4) == ["step advantages drown episode advantages"]


def test_groups_that_are_lost_are_found():
    assert causes(rows_of(play(), num_groups_dropped=4.0)) == ["groups are lost"]


def test_groups_that_always_succeed_are_no_fault_and_have_another_remedy_than_those_that_never_do():
    mixed = play(status=fails)[:5] + play(status=lambda index: Status.SUCCESS)[5:]
    (finding,) = diagnose(rows_of(mixed))
    assert "never" in finding.seen
    assert "easier tasks" in finding.remedy
    easy = play(status=fails)[:2] + play(status=lambda index: Status.SUCCESS)[2:]
    assert "harder tasks" in diagnose(rows_of(easy))[0].remedy
    assert causes(rows_of(play(status=lambda index: Status.SUCCESS))) == []


def test_only_the_last_iterations_count():
    bad, good = rows_of(play(valid=False)), rows_of(play())
    assert causes([*bad, *good]) == []
    assert "actions are invalid" in causes([*good, *bad])


def test_actions_drawn_among_many_have_not_collapsed():
    rng = random.Random(0)
    assert causes(rows_of(play(act=lambda observation: f"guess {rng.randrange(20)}"))) == []


def test_a_finding_has_numbers_settings_and_a_remedy():
    (finding,) = diagnose(rows_of(play(cut=True)), {"max_response_tokens": 16})
    assert str(finding) == (
        "responses are cut: 100% of the responses have no end: the limit of tokens cut them. "
        "Raise max_response_tokens (now 16), and max_model_len with it."
    )


@pytest.fixture
def run(tmp_path):
    rows = [*rows_of(play()), *rows_of(play(cut=True))[1:]]
    for number, row in zip(itertools.count(), rows, strict=False):
        row["iteration"] = number
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"iterat'
    )  # being written
    (tmp_path / "config.json").write_text('{"max_response_tokens": 16}')
    return tmp_path


def test_the_command_says_it_and_its_status_tells(run, capsys):
    assert main([str(run)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("iterations 15 to 24:\n\nresponses are cut\n")
    assert "(now 16)" in said
    assert main([str(run), "--iteration", "12"]) == 0
    assert capsys.readouterr().out == "iterations 3 to 12:\nnothing is off\n"
    assert main([str(run / "metrics.jsonl"), "--json"]) == 1
    assert [finding["cause"] for finding in json.loads(capsys.readouterr().out)] == ["responses are cut"]


def test_what_cannot_be_read_is_named(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 2
    assert "metrics.jsonl: there is no such file. Name the folder of a run" in capsys.readouterr().err
    (run / "metrics.jsonl").write_text('{"iteration": 0}\n')
    assert main([str(run)]) == 2
    assert "no iteration has ended yet" in capsys.readouterr().err
    for damaged in ("not so", '{"iteration": 2, "env_runners/num_errors": "many"}'):
        (run / "metrics.jsonl").write_text('{"iteration": 1}\n' + damaged + "\n")
        assert main([str(run)]) == 2
        assert "metrics.jsonl, line 2 is damaged" in capsys.readouterr().err

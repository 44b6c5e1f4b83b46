"""The audit of estimators: the worlds are written down right, and what is known of estimators comes out of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evidence.audit import cells
from benchmarks.evidence.audit.__main__ import BEGIN, END, PAGE, main, tables
from benchmarks.evidence.audit.cells import RESULTS, Cell, audit, read, settings_of
from benchmarks.evidence.audit.estimate import audit_of, draw, every_group, gradients, redrawn
from benchmarks.evidence.audit.exact import Episodes, episodes_of, with_success_rate
from benchmarks.evidence.audit.methods import BY_TURN, METHODS, Method
from benchmarks.evidence.audit.worlds import WORLDS
from proxmo_rllib.advantages import TurnTable, estimate_advantages

SMALL = ("tree", "loop", "paid loop", "two safes")  # of which all pairs are few


@pytest.fixture(params=list(WORLDS))
def world(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def episodes(world: str, rate: float = 0.3) -> Episodes:
    return episodes_of(WORLDS[world], with_success_rate(WORLDS[world], rate))


def test_the_episodes_are_all_there_are_and_the_policy_has_the_success_rate_that_was_asked_for(world: str):
    one = episodes(world)
    assert np.bincount(one.task_of, one.probability) == pytest.approx(np.ones(one.tasks), abs=1e-12)
    assert one.success_rates.mean() == pytest.approx(0.3, abs=1e-8)
    assert one.length.max() == WORLDS[world].turns
    assert len(one.anchor) == len(one.reward) == one.length.sum() == len(one.score)


def test_the_true_gradient_is_what_the_expected_return_does_when_a_parameter_moves(world: str):
    parameters = with_success_rate(WORLDS[world], 0.3)
    gradient = episodes_of(WORLDS[world], parameters).gradient
    for place in range(len(parameters)):
        values = []
        for step in (-1e-5, 1e-5):
            moved = parameters.copy()
            moved[place] += step
            one = episodes_of(WORLDS[world], moved)
            values.append(np.bincount(one.task_of, one.probability * one.returns).mean())
        assert (values[1] - values[0]) / 2e-5 == pytest.approx(gradient[place], abs=1e-9)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    ("method", "share"),
    [
        (METHODS["REINFORCE"], 1.0),
        (METHODS["REINFORCE, return to go"], 1.0),
        (Method("rloo", {"outcome": "return"}), 1.0),
        (Method("dr_grpo", {"outcome": "return"}), 0.5),
    ],
)
def test_what_is_unbiased_has_the_true_gradient_over_all_groups_of_two(name: str, method: Method, share: float):
    """To the last digits: no group is drawn, all are counted. Dr. GRPO's own return is in its baseline: half of it."""
    one = episodes(name)
    groups, probability = every_group(one, 2)
    assert probability.sum() == pytest.approx(1.0, abs=1e-12)
    expected = probability @ gradients(one, groups, method)
    assert expected == pytest.approx(share * one.gradient, abs=1e-12)


def test_a_drawn_expectation_is_that_of_all_groups():
    one = episodes("loop")
    groups, probability = every_group(one, 2)
    rng = np.random.default_rng(0)
    for name in ("GiGPO", "ProxMO", "ProxMO, official arithmetic"):
        exact = probability @ gradients(one, groups, METHODS[name])
        rows = gradients(one, draw(one, 1000, 2, rng), METHODS[name])
        error = rows.std(axis=0) / np.sqrt(len(rows))
        assert (np.abs(rows.mean(axis=0) - exact) < 4.5 * error + 1e-12).all()


def test_a_baseline_by_turn_index_pays_for_stopping_early():
    """verl RFC 7244: each turn that an episode has costs the mean that is paid at its index; closed form."""
    one = episodes("paid loop")
    groups = draw(one, 1500, 64, np.random.default_rng(0))  # large, so that an episode hardly knows its own baseline
    step = np.concatenate([np.arange(length) for length in one.length])
    reached = [one.probability[one.length > index].sum() for index in range(int(one.length.max()))]
    paid = np.bincount(step, one.probability[one.episode_of] * one.reward) / reached
    cost = np.array([paid[:length].sum() for length in one.length])
    predicted = one.gradient - (one.probability * cost)[one.episode_of] @ one.score
    rows = gradients(one, groups, BY_TURN["by turn index"])
    error = rows.std(axis=0) / np.sqrt(len(rows))
    assert (np.abs(rows.mean(axis=0) - predicted) < 5 * error + 0.02 * np.linalg.norm(predicted)).all()
    assert audit_of(rows, one.gradient).angle > 30
    padded = gradients(one, groups, BY_TURN["by turn index, ended episodes counted"])
    assert audit_of(padded, one.gradient).angle < 2


def test_dividing_by_the_std_weights_tasks_by_their_difficulty():
    one = episodes("two safes", 0.2)
    groups = draw(one, 2000, 64, np.random.default_rng(0))
    task_of = one.task_of[groups[:, 0]]
    assert 0.3 < one.success_rates[0] < 0.6
    assert one.success_rates[1] < 0.05
    rows = {name: gradients(one, groups, METHODS[name]) for name in ("GRPO", "Dr. GRPO")}
    lengths = {
        name: [float(found[task_of == task].mean(axis=0) @ one.gradients[task]) for task in (0, 1)]
        for name, found in rows.items()
    }
    weights = np.array(lengths["GRPO"]) / np.array(lengths["Dr. GRPO"])
    rates = one.success_rates
    assert weights[0] == pytest.approx(1 / np.sqrt(rates[0] * (1 - rates[0])), rel=0.05)
    assert weights[1] / weights[0] > 2  # towards 1 / std of the rare one, which small groups do not know


def test_the_official_arithmetic_loses_the_modulation_of_successes():
    """A success is paid 10 there, and a mean above 1 is cut to 1: one of eight already looks like all."""

    def modulation(estimator: str, successes: int, paid: float) -> float:
        table = TurnTable(
            group=["task"] * 8,
            episode=list(range(8)),
            reward=[paid * (place < successes) for place in range(8)],
            success=[place < successes for place in range(8)],
            anchor=["You see a box."] * 8,
        )
        return float(estimate_advantages(table, estimator).modulation[0])

    assert all(modulation("proxmo_official", successes, 10.0) == pytest.approx(1.0) for successes in range(1, 8))
    assert all(modulation("proxmo", successes, 10.0) > 1.0 for successes in range(1, 8))


def test_angle_noise_and_the_episodes_that_follow_are_those_of_the_gradients():
    rng = np.random.default_rng(0)
    true = np.array([2.0, 0.0, 0.0])
    mean = 3.0 * np.array([np.cos(np.radians(10)), np.sin(np.radians(10)), 0.0])
    rows = mean + rng.normal(size=(40_000, 3)) * [5.0, 1.5, 2.0]
    found = audit_of(rows, true)
    assert found.angle == pytest.approx(10.0, abs=0.6)
    assert found.length == pytest.approx(1.5 * np.cos(np.radians(10)), rel=0.02)
    assert found.noise == pytest.approx(2.5 / (3 * np.cos(np.radians(10))), rel=0.02)
    assert found.episodes_to(9.0, 8) == np.inf
    needed = found.episodes_to(20.0, 8) / 8
    sample = rows[rng.integers(len(rows), size=(4000, round(needed)))].mean(axis=1)
    along = mean[0]
    tangent = np.sqrt((sample[:, 1:] ** 2).sum(axis=1).mean()) / along
    assert np.degrees(np.arctan(tangent)) == pytest.approx(20.0, abs=0.5)
    low, high = np.quantile([one.angle for one in redrawn(rows, true, rng)], (0.025, 0.975))
    assert low < 10.0 < high


def test_finite_groups_are_not_taken_for_bias():
    rows = np.random.default_rng(0).normal(size=(500, 10)) + [1.0, *[0.0] * 9]
    naive = np.degrees(np.arccos(rows.mean(axis=0)[0] / np.linalg.norm(rows.mean(axis=0))))
    found = audit_of(rows, np.array([1.0, *[0.0] * 9]))
    assert found.angle < 0.6 * naive


def test_what_is_kept_is_read_again_and_what_is_committed_is_what_the_command_finds(tmp_path: Path):
    known = settings_of()
    assert known is not None
    groups, seed = known
    cell = Cell("paid loop", 0.2, 8)
    found = {cell: audit(cell, list(BY_TURN), groups, seed)}
    cells.write(found, groups, seed, tmp_path / "audit.json")
    again = read(tmp_path / "audit.json")[cell]
    committed = read()[cell]
    for method, row in again.items():
        for key, one in row.items():
            assert (one.value, one.low, one.high) == pytest.approx(
                (committed[method][key].value, committed[method][key].low, committed[method][key].high), rel=2e-3
            )
    assert set(read()) == set(cells.cells())
    assert json.loads(RESULTS.read_text())["groups"] == 2_000


def test_the_page_has_the_tables_of_what_is_committed():
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0].strip() == "\n".join(tables(read())).strip()


def test_the_command_computes_what_is_missing_and_mixes_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    results = tmp_path / "audit.json"
    words = ["audit", "--results", str(results), "--worlds", "paid loop", "--groups", "20"]
    monkeypatch.setattr("sys.argv", words)
    main()
    said = capsys.readouterr().out
    assert "6 of 6: paid loop, 20%, 16 a group" in said
    assert "| by turn index | " in said
    before = results.read_bytes()
    main()
    assert " of " not in capsys.readouterr().out.partition("**")[0]
    assert results.read_bytes() == before
    monkeypatch.setattr("sys.argv", [*words[:-1], "30"])
    with pytest.raises(SystemExit, match="--groups 20 --seed 0; say the same"):
        main()

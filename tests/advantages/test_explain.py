"""An advantage says where it comes from, and an iteration what its credit assignment was worth."""

import math
import pickle

import numpy as np
import pytest

from proxmo_rllib.advantages import TurnTable, estimate_advantages


@pytest.mark.parametrize("name", ["proxmo", "proxmo_official", "gigpo", "proxmo_without_aggregation"])
def test_an_explanation_adds_up(small_table, name):
    advantages = estimate_advantages(small_table, name, **({"normalization": "mean"} if name == "gigpo" else {}))
    for turn in range(len(small_table)):
        why = advantages.explain(turn, k=10)
        assert why.total == pytest.approx(why.episode + why.step)
        assert why.step == pytest.approx(why.return_to_go - why.baseline)
        assert sum(n.weight for n in why.neighbours) == pytest.approx(1.0)
        assert why.baseline == pytest.approx(sum(n.weight * n.return_to_go for n in why.neighbours))
        assert [n.weight for n in why.neighbours] == sorted((n.weight for n in why.neighbours), reverse=True)
        assert all(small_table.group[n.turn] == small_table.group[turn] for n in why.neighbours)


def test_the_nearest_turns_come_first_and_only_so_many(small_table):
    why = estimate_advantages(small_table, "proxmo").explain(0, k=2)
    assert [n.turn for n in why.neighbours] == [0, 2]
    assert why.neighbours[1].anchor == "You see drawer 1."
    assert "turn 2 (episode 1, step 0): 'You see drawer 1.'" in str(why)


def test_an_estimator_without_step_advantage_has_no_neighbours(small_table):
    why = estimate_advantages(small_table, "grpo").explain(1)
    assert why.neighbours == ()
    assert why.total == why.episode


def test_a_turn_that_is_not_there_is_an_error(small_table):
    with pytest.raises(IndexError, match="turn=6: the table has the turns 0 to 5"):
        estimate_advantages(small_table, "grpo").explain(6)


def test_diagnostics_are_finite_floats_of_a_group_with_and_one_without_contrast(small_table):
    advantages = estimate_advantages(small_table, "proxmo")
    scalars = advantages.diagnostics()
    assert all(type(value) is float and math.isfinite(value) for value in scalars.values())
    assert scalars["groups"] == 2
    assert scalars["groups_of_one"] == 0
    assert scalars["groups_without_contrast"] == 0.5
    assert scalars["success_rate/mean"] == 0.25
    assert scalars["success_rate/share_0"] == 0.5
    assert scalars["success_rate/share_50_to_75"] == 0.5
    assert scalars["anchors/singleton_share"] == pytest.approx(2 / 6)
    assert scalars["anchors/distinct_share"] == pytest.approx(4 / 6)
    assert scalars["total/mean"] == pytest.approx(advantages.total.mean())
    assert scalars["step/self_weight_mean"] == pytest.approx(advantages.comparison.self_weight.mean())
    assert 1.0 <= scalars["step/neighbourhood_min"] <= scalars["step/neighbourhood_mean"]
    assert scalars["modulation/min"] < 1.0 < scalars["modulation/max"]


def test_the_histogram_covers_every_success_rate():
    for wins in range(9):
        success = [True] * wins + [False] * (8 - wins)
        table = TurnTable(group=[0] * 8, episode=range(8), reward=[0.0] * 8, success=success, anchor=["x"] * 8)
        scalars = estimate_advantages(table, "grpo").diagnostics()
        shares = {key: value for key, value in scalars.items() if key.startswith("success_rate/share_")}
        assert sum(shares.values()) == 1.0
        assert (shares["success_rate/share_0"], shares["success_rate/share_100"]) == (wins == 0, wins == 8)


def test_a_group_of_one_has_no_advantage_and_is_reported():
    table = TurnTable(
        group=[0, 0, 1, 1], episode=[0, 0, 0, 1], reward=[0.0, 1.0, 0.0, 1.0], success=[True, True, False, True],
        anchor=["x", "y", "x", "y"],
    )  # fmt: skip
    for name in ("proxmo", "gigpo", "grpo", "rloo", "maxrl", "dr_grpo", "proxmo_without_aggregation"):
        advantages = estimate_advantages(table, name)
        assert advantages.total[:2].tolist() == [0.0, 0.0]
        assert advantages.diagnostics()["groups_of_one"] == 1


def test_advantages_travel_between_processes(small_table):
    advantages = pickle.loads(pickle.dumps(estimate_advantages(small_table, "proxmo")))
    assert np.isfinite(advantages.total).all()
    assert advantages.explain(0).neighbours

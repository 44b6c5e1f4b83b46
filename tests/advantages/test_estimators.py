"""Each estimator against numbers worked out by hand, and the switches that all of ProxMO's have."""

import numpy as np
import pytest

from proxmo_rllib.advantages import ESTIMATORS, TurnTable, estimate_advantages
from proxmo_rllib.advantages.estimators.graphgpo import distances_after

BUILT_IN = [
    "proxmo",
    "proxmo_official",
    "proxmo_without_modulation",
    "proxmo_without_aggregation",
    "grpo",
    "dr_grpo",
    "rloo",
    "gigpo",
    "hgpo",
    "graphgpo",
    "reinforce_plus_plus_baseline",
    "maxrl",
]


def table_of_outcomes(*groups: list[bool], turns: int = 1) -> TurnTable:
    """Groups of episodes with these outcomes; a success takes one turn and a failure `turns`."""
    rows = [
        (group, episode, success, turn)
        for group, outcomes in enumerate(groups)
        for episode, success in enumerate(outcomes)
        for turn in range(1 if success else turns)
    ]
    group, episode, success, turn = zip(*rows, strict=True)
    return TurnTable(
        group=group,
        episode=episode,
        reward=[float(won) for won in success],
        success=success,
        anchor=[f"place {step}" for step in turn],
    )


EIGHT = [True] + [False] * 7  # one success in eight: p = 0.125, std with Bessel's correction = sqrt(0.125)
STD = np.sqrt(0.125)


def test_every_promised_estimator_is_there():
    assert set(BUILT_IN) <= set(ESTIMATORS)


@pytest.mark.parametrize(
    ("name", "won", "lost"),
    [
        ("grpo", 0.875 / STD, -0.125 / STD),
        ("dr_grpo", 0.875, -0.125),
        ("rloo", 1.0, -1 / 7),
        ("maxrl", 7.0, -1.0),
        ("reinforce_plus_plus_baseline", 0.875 / STD, -0.125 / STD),
        ("proxmo_without_modulation", 0.875 / STD, -0.125 / STD),
    ],
)
def test_one_success_in_eight(name, won, lost):
    episode = estimate_advantages(table_of_outcomes(EIGHT), name).episode
    np.testing.assert_allclose(episode, [won] + [lost] * 7, rtol=1e-5)


def test_a_rare_success_is_amplified_and_a_rare_failure_attenuated():
    advantages = estimate_advantages(table_of_outcomes(EIGHT, [False] + [True] * 7), "proxmo")
    up = 1 + 0.1 * (1 / (1 + np.exp(-(0.875**4))) - 0.5)
    down = 1 + 0.1 * (1 / (1 + np.exp(0.875**4)) - 0.5)
    assert advantages.modulation[0] == pytest.approx(up)
    assert advantages.modulation[8] == pytest.approx(down)
    assert advantages.episode[0] == pytest.approx(up * 0.875 / (STD + 1e-6))
    assert advantages.success_rate == {0: 0.125, 1: 0.875}


def test_psc_range_is_the_largest_deviation_of_the_modulation():
    table = table_of_outcomes([True] * 3)  # a failure at p = 1 cannot be; the bound is reached by a success at p = 0
    from proxmo_rllib.advantages.modulation import modulation, resolve_beta

    assert len(table) == 3
    factor = modulation(np.ones(1), np.zeros(1), alpha=4.0, beta=resolve_beta(None, 0.05))
    assert factor[0] == pytest.approx(1.05)
    with pytest.raises(ValueError, match="give one of them"):
        resolve_beta(0.1, 0.05)


def test_reinforce_plus_plus_takes_the_std_of_the_batch():
    table = table_of_outcomes([True, False], [True, True, True, False])
    difference = np.array([0.5, -0.5, 0.25, 0.25, 0.25, -0.75])
    expected = difference / np.sqrt((difference**2).sum() / 5)
    np.testing.assert_allclose(estimate_advantages(table, "reinforce_plus_plus_baseline").total, expected, rtol=1e-5)


def test_long_failures_weigh_more_only_if_the_mean_is_over_turns():
    table = table_of_outcomes([True, False], turns=9)
    over_episodes = estimate_advantages(table, "dr_grpo")
    over_turns = estimate_advantages(table, "dr_grpo", episode_mean_over="turns")
    assert over_episodes.episode[0] == pytest.approx(0.5)
    assert over_turns.episode[0] == pytest.approx(0.9)
    # The number of turns cannot move ProxMO's success rate either.
    assert over_turns.success_rate == {0: 0.5}


def test_gigpo_compares_identical_anchors_of_a_group_only(small_table):
    advantages = estimate_advantages(small_table, "gigpo", gamma=0.5, normalization="mean")
    np.testing.assert_allclose(advantages.returns, [0.5, 1.0, 0.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(advantages.step, [0.25, 0.0, -0.25, 0.0, 0.0, 0.0])
    scaled = estimate_advantages(small_table, "gigpo", gamma=0.5, normalization="mean_std")
    np.testing.assert_allclose(scaled.step[[0, 2]], [np.sqrt(0.5), -np.sqrt(0.5)], rtol=1e-4)


def test_gigpo_with_a_similarity_threshold_joins_anchors_that_differ_little(small_table):
    joined = estimate_advantages(small_table, "gigpo", gamma=0.5, normalization="mean", similarity_threshold=0.9)
    # "You see drawer 1." twice and "You see drawer 2." once: returns 0.5, 0, 0.
    np.testing.assert_allclose(joined.step, [1 / 3, 0.0, -1 / 6, -1 / 6, 0.0, 0.0], atol=1e-12)
    assert joined.comparison.neighbourhood.tolist() == [3, 1, 3, 3, 2, 2]


def test_return_as_outcome_is_the_undiscounted_sum_of_rewards():
    table = TurnTable(group=[0, 0, 0], episode=[0, 0, 1], reward=[2.0, 3.0, 1.0], success=[False] * 3, anchor=["x"] * 3)
    assert estimate_advantages(table, "dr_grpo").episode.tolist() == [0.0, 0.0, 0.0]
    assert estimate_advantages(table, "dr_grpo", outcome="return").episode.tolist() == [2.0, 2.0, -2.0]


def test_the_reward_scale_of_the_environment_cannot_switch_the_modulation_off():
    """The official code takes p from returns: with rewards of 10 it is 1 at three successes in eight already."""
    outcomes = [True] * 3 + [False] * 5
    table = TurnTable(
        group=[0] * 8, episode=range(8), reward=[10.0 * won for won in outcomes], success=outcomes, anchor=["x"] * 8
    )
    ours, official = estimate_advantages(table, "proxmo"), estimate_advantages(table, "proxmo_official")
    assert ours.modulation[0] > 1.0
    assert official.modulation[0] == 1.0


def test_one_character_words_tell_places_apart_unless_the_official_code_is_asked_for():
    table = TurnTable(
        group=[0, 0], episode=[0, 1], reward=[1.0, 0.0], success=[True, False], anchor=["drawer 1", "drawer 2"]
    )
    ours, official = estimate_advantages(table, "proxmo"), estimate_advantages(table, "proxmo_official")
    np.testing.assert_allclose(official.step, [0.5, -0.5])
    assert ours.step[0] < 0.1


def test_official_code_gives_zero_step_advantage_without_any_word():
    table = TurnTable(group=[0, 0], episode=[0, 1], reward=[1.0, 0.0], success=[True, False], anchor=["?", "1 2 3"])
    assert estimate_advantages(table, "proxmo_official").step.tolist() == [0.0, 0.0]


def test_the_penalty_never_reaches_the_episode_advantage(small_table):
    for name in ("proxmo", "proxmo_without_aggregation", "gigpo"):
        plain = estimate_advantages(small_table, name)
        fined = estimate_advantages(small_table, name, invalid_action_penalty=5.0)
        assert fined.episode.tolist() == plain.episode.tolist()
        assert fined.success_rate == plain.success_rate
        assert not np.allclose(fined.returns, plain.returns)


def test_hgpo_compares_turns_with_ever_more_history_in_common():
    """By hand: mug after drawer twice, mug after shelf once; returns of the mugs 1, 0 and 1."""
    table = TurnTable(
        group=[0] * 6,
        episode=[0, 0, 1, 1, 2, 2],
        reward=[0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        success=[True, True, False, False, True, True],
        anchor=["drawer", "mug", "drawer", "mug", "shelf", "mug"],
    )
    total = estimate_advantages(table, "hgpo", gamma=1.0, normalization="mean").total
    # k=1: 1 - 2/3 and 0 - 2/3, weight 2; k=2, drawer and mug: 1 - 1/2 and 0 - 1/2, weight 3; the shelf is alone.
    mugs = [(2 * 1 / 3 + 3 * 1 / 2) / 5, (2 * -2 / 3 + 3 * -1 / 2) / 5, 1 / 3]
    assert total[1::2] == pytest.approx(mugs)
    assert total[::2] == pytest.approx([0.5, -0.5, 0.0])  # no history yet
    without = estimate_advantages(table, "hgpo", gamma=1.0, normalization="mean", history=0).total
    assert without[1::2] == pytest.approx([1 / 3, -2 / 3, 1 / 3])
    # Two values divided by their std, without Bessel's correction, are 1 and -1.
    divided = estimate_advantages(table, "hgpo", gamma=1.0, history_exponent=0.0).total
    assert divided[1] == pytest.approx((1 / 3 / np.sqrt(2 / 9) + 1) / 2, abs=1e-4)


@pytest.mark.parametrize("history", [0, 1, 3])
@pytest.mark.parametrize("normalization", ["mean", "mean_std"])
def test_hgpo_is_what_a_loop_over_all_turns_finds(history, normalization):
    rng = np.random.default_rng(history)
    lengths = rng.integers(1, 7, size=24)
    episode = np.repeat(np.arange(24), lengths)
    table = TurnTable(
        group=episode // 8,
        episode=episode,
        reward=rng.choice([0.0, 1.0], size=len(episode)),
        success=np.repeat(rng.random(24) < 0.5, lengths),
        anchor=[f"room {place}" for place in rng.integers(0, 3, size=len(episode))],
    )
    advantages = estimate_advantages(table, "hgpo", history=history, normalization=normalization)
    seen: dict[int, list[str]] = {}
    past: list[list[str]] = []
    for who, anchor in zip(episode, table.anchor, strict=True):
        seen.setdefault(who, []).append(anchor)
        past.append(list(seen[who]))
    for turn, values in enumerate(past):
        total = weights = 0.0
        for k in range(1, min(history + 1, len(values)) + 1):
            same = [
                advantages.returns[other]
                for other, others in enumerate(past)
                if episode[other] // 8 == episode[turn] // 8 and others[-k:] == values[-k:] and len(others) >= k
            ]
            relative = advantages.returns[turn] - np.mean(same)
            if len(same) == 1 or abs(relative) < 1e-12:
                continue
            relative /= np.std(same) + 1e-6 if normalization == "mean_std" else 1.0
            total += (k + 1) * relative
            weights += k + 1
        assert advantages.total[turn] == pytest.approx(total / weights if weights else 0.0, abs=1e-9)


def test_graphgpo_puts_the_ways_of_several_episodes_together():
    """By hand. Won: hall, shelf, mug. Lost: hall, mug, hall, bin. The bin is a way that nobody won from."""
    table = TurnTable(
        group=[0] * 7,
        episode=[0, 0, 0, 1, 1, 1, 1],
        reward=[0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        success=[True] * 3 + [False] * 4,
        anchor=["hall", "shelf", "mug", "hall", "mug", "hall", "bin"],
    )
    # Distances: mug 1, shelf 2, hall 2 (by the mug), the bin has none: 3.
    assert distances_after(table).tolist() == [2, 1, 0, 1, 2, 3, 3]
    advantages = estimate_advantages(table, "graphgpo", distance_decay=0.5, normalization="mean")
    halls, mugs = [0.25, 0.5, 0.125], [1.0, 0.25]
    expected = [0.25 - np.mean(halls), 0.0, 1.0 - np.mean(mugs)]
    expected += [0.5 - np.mean(halls), 0.25 - np.mean(mugs), 0.125 - np.mean(halls), 0.0]
    assert advantages.step == pytest.approx(expected)
    assert advantages.total == pytest.approx(np.array(expected) + np.repeat([0.5, -0.5], [3, 4]))
    divided = estimate_advantages(table, "graphgpo", distance_decay=0.5).step
    assert divided[2] == pytest.approx(0.375 / np.std(mugs, ddof=1), abs=1e-4)


def test_graphgpo_has_no_step_advantage_in_a_group_without_success():
    table = TurnTable(
        group=[0] * 4, episode=[0, 0, 1, 1], reward=[0.0] * 4, success=[False] * 4, anchor=["a", "b", "a", "a"]
    )
    assert distances_after(table).tolist() == [1.0] * 4
    assert estimate_advantages(table, "graphgpo").total.tolist() == [0.0] * 4


@pytest.mark.parametrize("seed", range(6))
def test_graphgpo_finds_the_distances_that_a_search_from_every_node_finds(seed):
    """As in the authors' code, but for where a failed episode's last turn led to, which the table does not have."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, size=12)
    episode = np.repeat(np.arange(12), lengths)
    won = rng.random(12) < 0.4
    table = TurnTable(
        group=episode // 6,
        episode=episode,
        reward=np.zeros(len(episode)),
        success=np.repeat(won, lengths),
        anchor=[f"room {place}" for place in rng.integers(0, 8, size=len(episode))],
    )
    ends = np.append(episode[1:] != episode[:-1], True)
    leads_to = [
        (("won",) if won[who] else ("lost", who)) if end else (who // 6, table.anchor[row + 1])
        for row, (who, end) in enumerate(zip(episode, ends, strict=True))
    ]
    for group in (0, 1):
        rows = np.flatnonzero(episode // 6 == group)
        ways: dict[object, set[object]] = {}
        for row in rows:
            ways.setdefault((group, table.anchor[row]), set()).add(leads_to[row])
        distance = {("won",): 0}
        for node in ways:
            reached, steps = {node}, 0
            while ("won",) not in reached and steps <= len(rows):
                reached, steps = {there for one in reached for there in ways.get(one, ())}, steps + 1
            if ("won",) in reached:
                distance[node] = steps
        unknown = max(distance.values()) + 1
        assert distances_after(table)[rows].tolist() == [distance.get(leads_to[row], unknown) for row in rows]

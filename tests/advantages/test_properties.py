"""What holds for every table: order, sharding, limits, bounds, shifts."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxmo_rllib.advantages import ESTIMATORS, TurnTable, estimate_advantages
from proxmo_rllib.advantages.modulation import modulation
from proxmo_rllib.advantages.proximity import SoftAggregation, soft_baseline

PLACES = ("drawer 1", "drawer 2", "shelf 1", "fridge 1")
# No two of them have the same words: to TF-IDF those would be the same anchor.
ANCHORS = (
    *(f"You arrive at {place}. On it, you see a mug {n}." for place in PLACES for n in (3, 4)),
    *(f"You open the {place}." for place in PLACES),
    "Nothing happens.",
)
BLANK = ("", "  \n", "?!")
REWARDS = st.sampled_from([0.0, 1.0, -0.1, 0.5, 10.0])
COLUMNS = ("group", "episode", "reward", "success", "anchor", "action_valid")


def table_of(rows) -> TurnTable:
    return TurnTable(**dict(zip(COLUMNS, zip(*rows, strict=True), strict=True)))


def rows_of(table: TurnTable) -> list[tuple]:
    return list(zip(*(getattr(table, column) for column in COLUMNS), strict=True))


def interleaved(queues: list[list], seed: int) -> list:
    """The rows of all queues, each queue's in their order, in any order between queues."""
    rng = np.random.default_rng(seed)
    queues = [list(queue) for queue in queues]
    rows = []
    while queues:
        rows.append(queues[rng.integers(len(queues))].pop(0))
        queues = [queue for queue in queues if queue]
    return rows


@st.composite
def tables(draw, max_groups=3, anchors=ANCHORS + BLANK):
    queues = []
    for group in range(draw(st.integers(1, max_groups))):
        for episode in range(draw(st.integers(1, 4))):
            success = draw(st.booleans())
            turns = draw(st.lists(st.tuples(REWARDS, st.sampled_from(anchors), st.booleans()), min_size=1, max_size=5))
            queues.append([(f"g{group}", episode, reward, success, text, valid) for reward, text, valid in turns])
    return table_of(interleaved(queues, draw(st.integers(0, 2**16))))


def queues_of(table: TurnTable) -> list[list[int]]:
    return [np.flatnonzero(table.episode_of == episode).tolist() for episode in range(table.num_episodes)]


@given(table=tables(), seed=st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_the_order_of_rows_between_episodes_does_not_matter(table, seed):
    order = interleaved(queues_of(table), seed)
    rows = rows_of(table)
    other = table_of([rows[row] for row in order])
    for name in ESTIMATORS:
        shuffled, straight = estimate_advantages(other, name), estimate_advantages(table, name)
        for part in ("total", "episode", "step", "returns", "modulation"):
            np.testing.assert_allclose(getattr(shuffled, part), getattr(straight, part)[order], atol=1e-9, err_msg=name)
        assert shuffled.success_rate == straight.success_rate


@given(table=tables(max_groups=4))
@settings(max_examples=40, deadline=None)
def test_whole_groups_may_be_sharded_over_learners(table):
    rows = rows_of(table)
    shards = [np.flatnonzero(table.group_of % 2 == parity) for parity in (0, 1)]
    # The other two look at the whole batch, and say so.
    for name in set(ESTIMATORS) - {"proxmo_official", "reinforce_plus_plus_baseline"}:
        whole = estimate_advantages(table, name)
        for shard in shards:
            if len(shard):
                part = estimate_advantages(table_of([rows[row] for row in shard]), name)
                np.testing.assert_allclose(part.total, whole.total[shard], atol=1e-9, err_msg=name)


def test_other_groups_change_no_bit_of_a_groups_advantages():
    """Words of several groups are worked on together: which groups those are must not show."""
    rng = np.random.default_rng(1)
    words = [f"wörd{number}" if number % 7 == 0 else f"word{number}" for number in range(90)]
    rows = []
    for group in range(12):
        own = words[: 20 + 5 * group] if group % 2 else [word for word in words if word.isascii()]
        for turn in range(40):
            text = " ".join(rng.choice(own, size=12))
            rows.append((f"g{group}", turn // 8, float(rng.random()), (turn // 8 + group) % 2 == 0, text, True))
    whole = estimate_advantages(table_of(rows), "proxmo")
    for group in range(12):
        alone = estimate_advantages(table_of(rows[40 * group : 40 * group + 40]), "proxmo")
        np.testing.assert_array_equal(alone.total, whole.total[40 * group : 40 * group + 40])


@given(table=tables())
@settings(max_examples=60, deadline=None)
def test_the_cold_limit_is_exact_grouping(table):
    soft = estimate_advantages(table, "proxmo", psa_temperature=1e-6)
    hard = estimate_advantages(table, "proxmo_without_aggregation")
    np.testing.assert_allclose(soft.total, hard.total, atol=1e-6)


@given(table=tables())
@settings(max_examples=60, deadline=None)
def test_the_hot_limit_is_the_mean_of_the_group(table):
    advantages = estimate_advantages(table, "proxmo", psa_temperature=1e9)
    returns = advantages.returns
    for rows in table.rows_by_group():
        expected = 0.0 if table.in_group_of_one()[rows[0]] else returns[rows] - returns[rows].mean()
        np.testing.assert_allclose(advantages.step[rows], expected, atol=1e-6)


@given(
    success=st.booleans(),
    rate=st.floats(0, 1),
    alpha=st.floats(0.01, 20),
    beta=st.floats(0, 5),
)
def test_the_modulation_is_bounded_and_polarised(success, rate, alpha, beta):
    factor = modulation(np.array([float(success)]), np.array([rate]), alpha=alpha, beta=beta)[0]
    assert abs(factor - 1.0) <= beta * 0.2311 + 1e-12
    assert factor >= 1.0 if success else factor <= 1.0
    if beta == 0.0:
        assert factor == 1.0


@given(table=tables(), beta=st.floats(0, 2))
@settings(max_examples=40, deadline=None)
def test_the_modulation_scales_the_episode_advantage_and_nothing_else(table, beta):
    plain = estimate_advantages(table, "proxmo_without_modulation")
    modulated = estimate_advantages(table, "proxmo", psc_beta=beta)
    np.testing.assert_allclose(modulated.episode, modulated.modulation * plain.episode, atol=1e-12)
    np.testing.assert_array_equal(modulated.step, plain.step)


@given(table=tables())
@settings(max_examples=40, deadline=None)
def test_groups_without_contrast_have_no_episode_advantage(table):
    rate = table.success_rate()[table.group_of]
    for name in set(ESTIMATORS) - {"proxmo_official"}:  # which judges by returns, and gives one turn alone its raw one
        episode = estimate_advantages(table, name).episode
        assert (episode[(rate == 0.0) | (rate == 1.0)] == 0.0).all(), name


@given(table=tables(), shift=st.floats(-100, 100))
@settings(max_examples=40, deadline=None)
def test_a_constant_shift_of_the_returns_leaves_the_step_advantage(table, shift):
    returns = np.random.default_rng(0).normal(size=len(table))
    for options in (SoftAggregation(), SoftAggregation(include_self=False), SoftAggregation(time_pooling=1)):
        plain = returns - soft_baseline(table, returns, options).baseline
        shifted = (returns + shift) - soft_baseline(table, returns + shift, options).baseline
        np.testing.assert_allclose(shifted, plain, atol=1e-9)


@given(table=tables(), temperature=st.floats(1e-3, 1e3), self_included=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_baseline_lies_between_the_returns_of_its_group(table, temperature, self_included):
    advantages = estimate_advantages(table, "proxmo", psa_temperature=temperature, include_self=self_included)
    comparison = advantages.comparison
    for rows in table.rows_by_group():
        returns = advantages.returns[rows]
        assert (comparison.baseline[rows] >= returns.min() - 1e-9).all()
        assert (comparison.baseline[rows] <= returns.max() + 1e-9).all()
        assert (comparison.neighbourhood[rows] <= len(rows) + 1e-6).all()
    assert (comparison.self_weight >= 0.0).all()
    assert (comparison.self_weight <= 1.0 + 1e-12).all()


@given(table=tables(anchors=("", "  ", "?!", "?!?")))
@settings(max_examples=20, deadline=None)
def test_anchors_without_words_give_finite_advantages(table):
    for name in ESTIMATORS:
        advantages = estimate_advantages(table, name)
        assert np.isfinite(advantages.total).all(), name
        assert np.isfinite(list(advantages.diagnostics().values())).all(), name


@given(table=tables(anchors=("Nothing happens.",)))
@settings(max_examples=20, deadline=None)
def test_identical_anchors_are_compared_with_the_mean_of_the_group(table):
    assume(table.episodes_per_group().min() > 1)
    advantages = estimate_advantages(table, "proxmo")
    for rows in table.rows_by_group():
        expected = advantages.returns[rows] - advantages.returns[rows].mean()
        np.testing.assert_allclose(advantages.step[rows], expected, atol=1e-9)

"""Advantages for other programs are those of `proxmo_rllib.advantages`, each at its token."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from proxmo_rllib.advantages import ESTIMATORS, TurnTable, estimate_advantages
from proxmo_rllib.integrations import PlayedEpisode, token_advantages, turn_advantages
from proxmo_rllib.integrations.credit import turn_spans
from proxmo_rllib.integrations.tensors import advantage_tensor

PLACES = ("You see a mug.", "You are in the kitchen.", "Nothing happens.", "You see a mug and a cup.")


def some_episodes(seed: int = 0, groups: int = 3, size: int = 4) -> list[PlayedEpisode]:
    """Of several groups, in no order, of several lengths."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(groups * size):
        turns = int(rng.integers(1, 6))
        won = bool(rng.random() < 0.5)
        made.append(
            PlayedEpisode(
                group=f"task {index % groups}",
                success=won,
                observations=[str(rng.choice(PLACES)) for _ in range(turns)],
                rewards=[*rng.random(turns - 1).tolist(), float(won)],
                valid=(rng.random(turns) < 0.8).tolist(),
            )
        )
    return [made[place] for place in rng.permutation(len(made))]


def some_mask(episodes: Sequence[PlayedEpisode], seed: int = 1) -> np.ndarray:
    """What the policy said in each: several tokens a turn, some of the environment's between, padding behind."""
    rng = np.random.default_rng(seed)
    rows = []
    for episode in episodes:
        row: list[int] = []
        for turn in range(len(episode)):
            row += [0] * int(rng.integers(1, 4) if turn else 0) + [1] * int(rng.integers(1, 5))
        rows.append(row)
    width = max(map(len, rows)) + 3
    return np.array([row + [0] * (width - len(row)) for row in rows])


def table_of(episodes: Sequence[PlayedEpisode]) -> TurnTable:
    """By hand, in the order of the groups: as a learner of this project would have them."""
    rows = sorted(
        ((episode.group, place, turn) for place, episode in enumerate(episodes) for turn in range(len(episode))),
        key=lambda row: (str(row[0]), row[1], row[2]),
    )
    return TurnTable(
        group=[group for group, _, _ in rows],
        episode=[place for _, place, _ in rows],
        reward=[episodes[place].rewards[turn] for _, place, turn in rows],
        success=[episodes[place].success for _, place, _ in rows],
        anchor=[episodes[place].observations[turn] for _, place, turn in rows],
        action_valid=[(episodes[place].valid or ())[turn] for _, place, turn in rows],
    )


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_turns_get_what_the_estimator_gives_them_whatever_the_order_of_the_episodes(estimator: str):
    episodes = some_episodes()
    table = table_of(episodes)
    expected = estimate_advantages(table, estimator).total
    found = turn_advantages(episodes, estimator)
    for row in range(len(table)):
        assert found[table.episode[row]][table.time_step[row]] == pytest.approx(expected[row], abs=1e-12)


def test_every_token_of_a_turn_has_its_advantage_and_no_other_token_has_one():
    episodes = some_episodes()
    mask = some_mask(episodes)
    by_turn = turn_advantages(episodes, "proxmo", gamma=0.9, invalid_action_penalty=0.1)
    found = token_advantages(episodes, mask, "proxmo", gamma=0.9, invalid_action_penalty=0.1)
    assert found.dtype == np.float32
    assert not found[mask == 0].any()
    for row, values in enumerate(by_turn):
        for (start, stop), value in zip(turn_spans(mask[row]), values, strict=True):
            assert (found[row, start:stop] == np.float32(value)).all()
    assert len(set(found[mask == 1].tolist())) > len(episodes), "turns of an episode differ: observations count"


def test_the_tensor_is_the_same_numbers_without_a_gradient():
    import torch

    episodes = some_episodes()
    mask = torch.tensor(some_mask(episodes), dtype=torch.bool)
    found = advantage_tensor(episodes, mask, "gigpo")
    assert torch.equal(found, torch.from_numpy(token_advantages(episodes, mask.numpy(), "gigpo")))
    assert not found.requires_grad
    assert found.dtype == torch.float32


def test_a_group_with_a_broken_episode_is_left_out():
    whole, other = some_episodes(groups=1), some_episodes(seed=5, groups=1)
    other = [PlayedEpisode("other", e.success, e.observations, e.rewards, e.valid) for e in other]
    broken = PlayedEpisode("other", success=False, observations=[], rewards=[])
    found = turn_advantages([*other, broken, *whole])
    assert not any(values.any() for values in found[: len(other) + 1])
    for values, alone in zip(found[len(other) + 1 :], turn_advantages(whole), strict=True):
        assert values.tolist() == alone.tolist()
    assert not token_advantages([broken], [[1, 1]]).any()


def test_what_does_not_fit_is_named():
    episodes = some_episodes()
    mask = some_mask(episodes)
    torn = mask.copy()
    start, stop = turn_spans(torn[0])[0]
    torn[0, start:stop] = 0
    turns = len(episodes[0])
    with pytest.raises(ValueError, match=rf"Episode 0 .* has {turns} turns, and its mask has {turns - 1} runs of ones"):
        token_advantages(episodes, torn)
    with pytest.raises(ValueError, match=r"mask has shape \(12, \d+, 1\); it is \[episodes, tokens\]"):
        token_advantages(episodes, mask[..., None])
    with pytest.raises(ValueError, match=r"there are 11 episodes"):
        token_advantages(episodes[1:], mask)
    with pytest.raises(ValueError, match=r"group 'a': \{'observations': 1, 'rewards': 2\}"):
        PlayedEpisode("a", True, ["x"], [1.0, 2.0])
    with pytest.raises(ValueError, match="no episodes"):
        turn_advantages([])


def test_it_needs_neither_ray_nor_torch():
    code = (
        "import sys, proxmo_rllib.integrations as i; "
        "i.token_advantages([i.PlayedEpisode('a', True, ['x'], [1.0])] * 2, [[1], [1]]); "
        "assert not {'ray', 'torch', 'transformers', 'gymnasium'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

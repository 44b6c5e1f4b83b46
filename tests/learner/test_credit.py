"""Credit stays where it belongs: how episodes are laid out, divided and ordered changes no token's part.

What an observation adds, how much padding there is, which micro-batch, learner or layout a turn is in: none of it is
the agent's doing. Others were bitten by it (SkyRL 1492, verl 6362 and 7278).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from proxmo_rllib.advantages import ESTIMATORS, estimate_advantages
from proxmo_rllib.learner.advantages_connector import turn_table
from proxmo_rllib.types import Episode, Group

SEEDS = range(4)
Change = Callable[[list[Group], np.random.Generator], list[Group]]


def each_episode(change: Callable[[Episode, np.random.Generator], Episode]) -> Change:
    def changed(groups: list[Group], rng: np.random.Generator) -> list[Group]:
        return [
            Group(group.group_id, group.task, tuple(change(episode, rng) for episode in group.episodes))
            for group in groups
        ]

    return changed


def a_row_a_turn(episode: Episode, rng: np.random.Generator) -> Episode:
    """The same prompts, each as one of its own: what a window does that forgets nothing."""
    said: list[np.ndarray] = []
    turns = []
    for turn in episode.turns:
        said.append(turn.context_ids)
        turns.append(dataclasses.replace(turn, context_ids=np.concatenate(said), appended=False))
        said.append(turn.response_ids)
    return dataclasses.replace(episode, turns=tuple(turns))


def shuffled(groups: list[Group], rng: np.random.Generator) -> list[Group]:
    return [
        Group(g.group_id, g.task, tuple(g.episodes[i] for i in rng.permutation(len(g.episodes))))
        for g in (groups[i] for i in rng.permutation(len(groups)))
    ]


def longer_observations(episode: Episode, rng: np.random.Generator) -> Episode:
    def more(ids: np.ndarray) -> np.ndarray:
        return np.concatenate([ids, rng.integers(0, 300, rng.integers(1, 9)).astype(ids.dtype)])

    turns = tuple(dataclasses.replace(turn, context_ids=more(turn.context_ids)) for turn in episode.turns)
    return dataclasses.replace(episode, turns=turns)


LAYOUTS: dict[str, Change] = {
    "a row a turn": each_episode(a_row_a_turn),
    "another order": shuffled,
    "both": lambda groups, rng: shuffled(each_episode(a_row_a_turn)(groups, rng), rng),
}


def loss_tokens(learner: Any, groups: list[Group]) -> dict[tuple[int, ...], list[float]]:
    """Of every response, found by its logprobs, the advantages and weights that its tokens have in the batch."""
    data = [episode for group in groups for episode in group.episodes]
    batch = learner._learner_connector(rl_module=learner.module, batch={}, episodes=data, shared_data={})
    rows = batch["default_policy"]
    found = {}
    for ids, mask, advantages, weights, behaviour in zip(
        *(rows[n] for n in ("token_ids", "loss_mask", "advantages", "loss_weights", "behaviour_logprobs")), strict=True
    ):
        keys = behaviour[mask].tolist()
        for key, token, a, w in zip(keys, ids[mask], advantages[mask], weights[mask], strict=True):
            assert key not in found
            found[key] = (int(token), round(float(a), 5), round(float(w), 6))
    return found


def gradient_of(tools: Any, config: Any, groups: list[Group], **settings: Any) -> dict[str, torch.Tensor]:
    config = config.copy(copy_frozen=False).training(lr=1e-12, entropy_coef=0.1, **settings)
    learner = tools.build(config)
    tools.update(learner, groups)
    return tools.gradients(learner)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(found[name], value, atol=2e-5 * scale + 1e-9, rtol=1e-3, msg=name)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("change", LAYOUTS)
def test_the_layout_changes_neither_advantages_nor_gradient(tools, config, change, seed):
    groups = tools.groups(2, 3, seed=seed)
    laid = LAYOUTS[change](groups, np.random.default_rng(seed))
    learner = tools.build(config)
    assert loss_tokens(learner, laid) == loss_tokens(learner, groups)
    assert_same(gradient_of(tools, config, laid), gradient_of(tools, config, groups))


@pytest.mark.parametrize("weighting", ["token", "episode"])
@pytest.mark.parametrize("budget", [1, 40, 150, 10_000])
def test_the_budget_of_a_micro_batch_changes_no_gradient(tools, config, budget, weighting):
    groups = tools.groups(2, 3, seed=7)
    expected = gradient_of(tools, config, groups, loss_weighting=weighting)
    assert_same(
        gradient_of(tools, config, groups, max_tokens_per_microbatch=budget, loss_weighting=weighting), expected
    )


def test_padding_changes_no_gradient(tools, config, monkeypatch):
    """Rows packed, padded to the longest of a micro-batch, and padded to one that is far longer."""
    groups = tools.groups(2, 3, seed=3)
    expected = gradient_of(tools, config, groups)
    from proxmo_rllib.learner import module as module_file

    monkeypatch.setattr(module_file, "use_packed_attention", lambda lm: "for the test")
    assert_same(gradient_of(tools, config, groups), expected)
    longest = [t for g in groups for e in g.episodes for t in e.turns]
    assert longest
    from proxmo_rllib.learner import token_batches

    pad = token_batches.pad_sequences

    def padded_more(*args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        arrays = pad(*args, **kwargs)
        return {n: np.pad(a, ((0, 0), (0, 57))) if a.ndim == 2 else a for n, a in arrays.items()}

    monkeypatch.setattr(token_batches, "pad_sequences", padded_more)
    assert_same(gradient_of(tools, config, groups), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_an_environment_says_moves_no_credit(tools, config, seed):
    groups = tools.groups(2, 3, seed=seed)
    longer = each_episode(longer_observations)(groups, np.random.default_rng(seed))
    learner = tools.build(config)
    assert loss_tokens(learner, longer) == loss_tokens(learner, groups)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
@pytest.mark.parametrize("change", [*LAYOUTS, "longer observations"])
def test_no_estimator_looks_at_the_layout(tools, name, change):
    """One advantage a turn, whatever its tokens are; by episode and turn, since their order may be another."""
    changes = LAYOUTS | {"longer observations": each_episode(longer_observations)}
    groups = tools.groups(3, 4, seed=5)

    def advantages(given: list[Group]) -> dict[tuple[str, int], float]:
        # Some estimators work on all of a learner's turns, in whatever order they come.
        episodes = [episode for group in given for episode in group.episodes]
        total = estimate_advantages(turn_table(episodes), name).total
        keys = [(episode.episode_id, turn) for episode in episodes for turn in range(len(episode.turns))]
        return dict(zip(keys, total.tolist(), strict=True))

    expected = advantages(groups)
    assert advantages(changes[change](groups, np.random.default_rng(0))) == pytest.approx(expected, abs=1e-9)

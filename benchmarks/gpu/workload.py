"""Made-up episodes of several turns, as long as those of household tasks in an instructed model's tokens.

Token ids are random: arithmetic does not care. The episodes of a group share their first prompt; with windows all
prompts share the instructions too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proxmo_rllib.types import Episode, Group, Status, Turn

LAYOUTS = ("append", "window")
_HISTORY = 2  # turns that a window shows


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of each part, and turns of an episode, both ends included."""

    instructions: int = 250
    task: int = 150
    observation: tuple[int, int] = (30, 90)
    response: tuple[int, int] = (20, 80)
    turns: tuple[int, int] = (5, 20)


TINY = Lengths(20, 12, (3, 8), (2, 6), (2, 4))


def make_groups(
    layout: str, num_groups: int, group_size: int, vocab_size: int, lengths: Lengths, seed: int = 0
) -> list[Group]:
    """Groups that a learner can learn from.

    Args:
        layout: "append", a row an episode; or "window", a row a turn.
        num_groups: of them.
        group_size: episodes of each.
        vocab_size: ids are below it.
        lengths: of their parts.
        seed: of all that is drawn.
    """
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int) -> np.ndarray:
        return rng.integers(0, vocab_size, rng.integers(low, high + 1)).astype(np.int32)

    instructions = draw(lengths.instructions, lengths.instructions)
    groups = []
    for number in range(num_groups):
        beginning = np.concatenate([instructions, draw(lengths.task, lengths.task)])
        episodes = []
        for index in range(group_size):
            told = [
                (draw(*lengths.observation), draw(*lengths.response))
                for _ in range(rng.integers(lengths.turns[0], lengths.turns[1] + 1))
            ]
            turns = tuple(_turn(rng, layout, vocab_size, beginning, told, place) for place in range(len(told)))
            status = Status.SUCCESS if index % 2 else Status.FAILURE
            name = f"g{number}"
            episodes.append(Episode(f"{name}-{index}", name, f"task-{number}", "kind", number, turns, status))
        groups.append(Group(f"g{number}", f"task-{number}", tuple(episodes)))
    return groups


def _turn(
    rng: np.random.Generator,
    layout: str,
    vocab_size: int,
    beginning: np.ndarray,
    told: list[tuple[np.ndarray, np.ndarray]],
    place: int,
) -> Turn:
    """One turn of an episode.

    Args:
        rng: of what is drawn.
        layout: of the episode.
        vocab_size: of the model.
        beginning: tokens of every first prompt of the group.
        told: observation and response of every turn.
        place: of this one.
    """
    observation, response = told[place]
    if layout == "append":
        context = np.concatenate([beginning, observation]) if place == 0 else observation
    else:
        past = [part for turn in told[max(0, place - _HISTORY) : place] for part in turn]
        context = np.concatenate([beginning, *past, observation])
    # Near those of a model that knows nothing, so that the surrogate's ratio is near 1.
    logprobs = -np.log(vocab_size) + 0.1 * rng.standard_normal(len(response))
    return Turn(
        context_ids=context,
        appended=layout == "append" and place > 0,
        response_ids=response,
        logprobs=logprobs.astype(np.float32),
        policy_version=0,
        anchor=f"You are in room {rng.integers(6)} and see thing {rng.integers(20)}.",
        response="go",
        action="go",
        action_valid=True,
        reward=float(place == len(told) - 1),
    )

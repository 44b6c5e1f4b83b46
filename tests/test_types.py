"""An episode's turns as token sequences: exact ids, exact spans."""

from __future__ import annotations

import numpy as np
import pytest

from proxmo_rllib.types import Episode, Status, Turn


def turn(context: list[int], response: list[int], *, appended: bool, reward: float = 0.0) -> Turn:
    return Turn(
        context_ids=np.asarray(context, np.int32),
        appended=appended,
        response_ids=np.asarray(response, np.int32),
        logprobs=np.full(len(response), -0.5, np.float32),
        policy_version=0,
        anchor="anchor",
        response="response",
        action="action",
        action_valid=True,
        reward=reward,
    )


def episode(*turns: Turn, status: Status = Status.FAILURE) -> Episode:
    return Episode("g-0", "g", "task", "kind", seed=0, turns=turns, status=status)


def test_an_append_only_episode_is_one_sequence():
    played = episode(
        turn([1, 2], [3, 4], appended=False), turn([5], [6], appended=True), turn([7, 8, 9], [10, 11], appended=True)
    )
    (sequence,) = played.sequences()
    assert sequence.token_ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert sequence.turns == (0, 1, 2)
    assert sequence.spans == ((2, 4), (5, 6), (9, 11))
    for index, (start, stop) in zip(sequence.turns, sequence.spans, strict=True):
        assert sequence.token_ids[start:stop].tolist() == played.turns[index].response_ids.tolist()


def test_a_windowed_episode_is_one_sequence_a_turn():
    played = episode(turn([1, 2], [3], appended=False), turn([1, 2, 3, 4], [5, 6], appended=False))
    first, second = played.sequences()
    assert (first.token_ids.tolist(), first.turns, first.spans) == ([1, 2, 3], (0,), ((2, 3),))
    assert (second.token_ids.tolist(), second.turns, second.spans) == ([1, 2, 3, 4, 5, 6], (1,), ((4, 6),))


def test_a_conversation_that_starts_anew_midway_starts_a_new_sequence():
    played = episode(
        turn([1], [2], appended=False),
        turn([3], [4], appended=True),
        turn([5, 6], [7], appended=False),
        turn([8], [9], appended=True),
    )
    sequences = list(played.sequences())
    assert [s.token_ids.tolist() for s in sequences] == [[1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert [s.turns for s in sequences] == [(0, 1), (2, 3)]
    assert [s.spans for s in sequences] == [((1, 2), (3, 4)), ((2, 3), (4, 5))]


def test_an_episode_without_turns_has_no_sequence():
    assert list(episode().sequences()) == []
    assert episode().num_tokens == 0


def test_tokens_and_turns_are_counted():
    played = episode(turn([1, 2], [3, 4], appended=False), turn([5], [6], appended=True))
    assert played.num_tokens == 6
    assert played.num_response_tokens == 3
    assert len(played) == played.env_steps() == played.agent_steps() == 2


@pytest.mark.parametrize("status", list(Status))
def test_only_the_status_decides_on_success(status: Status):
    """A reward, however high, is not success, and a penalty does not take it away."""
    rich = episode(turn([1], [2], appended=False, reward=100.0), status=status)
    poor = episode(turn([1], [2], appended=False, reward=-100.0), status=status)
    assert rich.success == poor.success == (status is Status.SUCCESS)
    assert (rich.episode_return, poor.episode_return) == (100.0, -100.0)

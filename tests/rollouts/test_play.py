"""Many episodes at once: nobody waits for the slowest, what breaks ends alone, every episode ends in one state."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from env_wrappers.prompting import wrap
from proxmo_rllib.rollouts.env_pool import EnvPool
from proxmo_rllib.types import Group, Status


def statuses(groups: tuple[Group, ...]) -> list[list[Status]]:
    return [[episode.status for episode in group.episodes] for group in groups]


def test_an_episode_holds_exactly_what_was_said(play: Any, make_client: Any, assignments: Any, chat: Any):
    client = make_client(lambda prompt, turn: ["go", "look", "win"][turn - 1])
    (group,) = play(client, assignments("train-0", size=1)).groups
    (episode,) = group.episodes
    assert (episode.status, episode.success, episode.task_type) == (Status.SUCCESS, True, "train")
    assert [turn.action for turn in episode.turns] == ["go", "look", "win"]
    assert [turn.action_valid for turn in episode.turns] == [True, False, True]
    assert [turn.anchor for turn in episode.turns] == ["train-0 begins with 0", "step 1", "step 2"]
    assert [turn.reward for turn in episode.turns] == [0.0, 0.0, 1.0]
    assert [turn.policy_version for turn in episode.turns] == [3, 3, 3]
    (sequence,) = episode.sequences()
    assert chat.tokenizer.decode(sequence.token_ids) == client.requests[-1][0] + "win<|end|>"
    for (start, stop), turn in zip(sequence.spans, episode.turns, strict=True):
        assert np.array_equal(sequence.token_ids[start:stop], turn.response_ids)
        assert len(turn.logprobs) == stop - start


def test_a_window_shows_fresh_prompts_with_the_last_turns(play: Any, make_client: Any, assignments: Any):
    client = make_client(lambda prompt, turn: "win" if "step 2" in prompt else "go")
    (group,) = play(client, assignments("train-0", size=1), history=1).groups
    (episode,) = group.episodes
    assert episode.success
    assert not any(turn.appended for turn in episode.turns)
    prompts = [prompt for prompt, _, _ in client.requests]
    assert "begins" in prompts[1]
    assert "step 1" in prompts[2]
    assert "begins" not in prompts[2]


def test_a_slow_environment_holds_nobody_up(play: Any, make_client: Any, assignments: Any, obedient_env: Any):
    """The slow one finishes its first step only after all the others have finished their episodes."""
    others = 6
    done = threading.Semaphore(0)

    class Env(obedient_env):
        metadata = {"render_modes": []}  # nothing said: taken to block

        def step(self, action: str) -> Any:
            if self.task == "slow-0" and self.steps == 0:
                assert all(done.acquire(timeout=30) for _ in range(others)), "the others waited for the slow one"
            result = super().step(action)
            if self.task != "slow-0" and result[2]:
                done.release()
            return result

    client = make_client(lambda prompt, turn: "win" if turn == 3 else "go")
    tasks = ["slow-0", *(f"train-{index}" for index in range(others))]
    result = play(client, assignments(*tasks, size=1), Env)
    assert statuses(result.groups) == [[Status.SUCCESS]] * (others + 1)


def test_requests_of_all_episodes_are_under_way_together(play: Any, make_client: Any, assignments: Any):
    everyone = 12
    waiting = 0
    all_there: list[asyncio.Event] = []

    async def say(prompt: str, turn: int) -> str:
        nonlocal waiting
        if not all_there:
            all_there.append(asyncio.Event())
        waiting += 1
        if waiting == everyone:
            all_there[0].set()
        await asyncio.wait_for(all_there[0].wait(), 30)
        return "win"

    result = play(make_client(say), assignments(*(f"train-{index}" for index in range(3)), size=4))
    assert statuses(result.groups) == [[Status.SUCCESS] * 4] * 3


def test_no_more_episodes_at_once_than_the_limit(play: Any, make_client: Any, assignments: Any, obedient_env: Any):
    made = []

    def make() -> Any:
        made.append(obedient_env())
        return made[-1]

    client = make_client(lambda prompt, turn: "win" if turn == 2 else "go")
    result = play(client, assignments(*(f"train-{index}" for index in range(5)), size=4), make, limit=3)
    assert statuses(result.groups) == [[Status.SUCCESS] * 4] * 5
    assert client.most_under_way == 3
    assert len(made) == 3


def test_a_broken_environment_ends_its_own_episode_and_is_replaced(
    play: Any, make_client: Any, assignments: Any, obedient_env: Any
):
    made = []

    def make() -> Any:
        made.append(obedient_env())
        return made[-1]

    client = make_client(lambda prompt, turn: "boom" if "bad" in prompt and turn == 2 else "win" if turn == 2 else "go")
    result = play(client, assignments("bad-0", "train-1", "train-2", size=1), make, limit=1)
    assert statuses(result.groups) == [[Status.ERROR], [Status.SUCCESS], [Status.SUCCESS]]
    broken = result.groups[0].episodes[0]
    assert broken.error == "task 'bad-0': the environment's step raised OSError: the disk is on fire"
    assert len(broken) == 1
    assert [env.closed for env in made] == [True, False]


def test_an_environment_that_cannot_be_made_is_an_error_of_its_episode(
    play: Any, make_client: Any, assignments: Any, obedient_env: Any
):
    made = 0

    def make() -> Any:
        nonlocal made
        made += 1
        if made == 2:
            raise FileNotFoundError("games.jsonl")
        return obedient_env()

    # The first environment breaks, the second cannot be made, the third serves.
    client = make_client(lambda prompt, turn: "boom" if "bad" in prompt else "win")
    result = play(client, assignments("bad-0", "train-1", "train-2", size=1), make, limit=1)
    assert statuses(result.groups) == [[Status.ERROR], [Status.ERROR], [Status.SUCCESS]]
    assert "FileNotFoundError: games.jsonl" in result.groups[1].episodes[0].error


def test_a_group_that_the_engine_fails_is_lost_and_the_others_go_on(play: Any, make_client: Any, assignments: Any):
    def say(prompt: str, turn: int) -> str:
        if "train-1" in prompt and turn == 2:
            raise ConnectionError("the engine is dead")
        return "win" if turn == 3 else "go"

    result = play(make_client(say), assignments("train-0", "train-1", "train-2", size=3), limit=4)
    assert result.group_ids == ("group-0", "group-2")
    assert result.lost == {"group-1": "ConnectionError: the engine is dead"}
    assert statuses(result.groups) == [[Status.SUCCESS] * 3] * 2


def test_every_end_has_its_status(play: Any, make_client: Any, assignments: Any):
    ends = {"win": Status.SUCCESS, "lose": Status.FAILURE, "stop": Status.TRUNCATED, "go": Status.TRUNCATED}
    client = make_client(lambda prompt, turn: prompt.split("<|user|>")[1].split("-")[0])
    result = play(client, assignments(*(f"{action}-0" for action in ends), size=1))
    assert [group.episodes[0].status for group in result.groups] == list(ends.values())
    assert [len(group.episodes[0]) for group in result.groups] == [1, 1, 1, 5]


def test_an_assignment_may_have_a_horizon_of_its_own(play: Any, make_client: Any, assignments: Any):
    """As long as the others go on to the whole."""
    short, whole, long = assignments("go-0", "go-1", "win-2", size=2)
    client = make_client(lambda prompt, turn: "win" if turn == 3 and "win-2" in prompt else "go")
    dealt = [replace(short, max_turns=2), whole, replace(long, max_turns=4)]
    result = play(client, dealt, max_turns=5)
    assert [[len(episode) for episode in group.episodes] for group in result.groups] == [[2, 2], [5, 5], [3, 3]]
    assert statuses(result.groups) == [[Status.TRUNCATED] * 2, [Status.TRUNCATED] * 2, [Status.SUCCESS] * 2]


def test_a_context_that_is_full_truncates_the_episode(play: Any, make_client: Any, assignments: Any, chat: Any):
    client = make_client(lambda prompt, turn: "go")
    first = len(chat.prompt([chat.user_message("train-0 begins with 0")]))
    result = play(client, assignments("train-0", size=1), max_prompt_tokens=first, max_turns=50)
    assert statuses(result.groups) == [[Status.TRUNCATED]]
    assert len(result.groups[0].episodes[0]) == 1
    assert max(len(chat.tokenizer(prompt)["input_ids"]) for prompt, _, _ in client.requests) <= first


def test_a_first_prompt_that_does_not_fit_is_an_error(play: Any, make_client: Any, assignments: Any):
    result = play(make_client(lambda prompt, turn: "go"), assignments("train-0", size=1), max_prompt_tokens=3)
    (episode,) = result.groups[0].episodes
    assert episode.status is Status.ERROR
    assert "there is room for 3" in episode.error
    assert "raise max_model_len" in episode.error


def test_penalties_lower_the_return_and_leave_success_alone(play: Any, make_client: Any, assignments: Any):
    client = make_client(lambda prompt, turn: "win" if turn == 4 else "nonsense")
    (group,) = play(client, assignments("train-0", size=1), penalty=2.0).groups
    (episode,) = group.episodes
    assert episode.success
    assert episode.episode_return == 1.0 - 3 * 2.0


def test_a_reply_cut_by_length_is_followed_by_the_end_of_its_turn(
    play: Any, make_client: Any, assignments: Any, chat: Any
):
    client = make_client(lambda prompt, turn: "win" if turn == 3 else "go", cut=True)
    (group,) = play(client, assignments("train-0", size=1)).groups
    turns = group.episodes[0].turns
    assert [turn.action for turn in turns] == ["go", "go", "win"]
    end = chat.stop_token_ids[0]
    assert [int(turn.context_ids[0]) for turn in turns[1:]] == [end, end]
    assert all(end not in turn.response_ids for turn in turns)


@pytest.mark.parametrize(
    ("flaw", "complaint"),
    [
        ({"success": None}, "info has no key 'success'.*False until the task is solved"),
        ({"reward": float("nan")}, "the reward is nan.*finite"),
        ({"observation": None}, "observation is None of type NoneType.*Return a str"),
    ],
    ids=["no success", "reward that is no number", "observation that is no text"],
)
def test_an_environment_that_breaks_the_contract_is_named(
    play: Any, make_client: Any, assignments: Any, obedient_env: Any, flaw: dict[str, Any], complaint: str
):
    class Env(obedient_env):
        def step(self, action: str) -> Any:
            observation, reward, terminated, truncated, info = super().step(action)
            if "success" in flaw:
                del info["success"]
            observation = flaw.get("observation", observation)
            return observation, flaw.get("reward", reward), terminated, truncated, info

    result = play(make_client(lambda prompt, turn: "win" if turn == 2 else "go"), assignments("train-0", size=1), Env)
    (episode,) = result.groups[0].episodes
    assert episode.status is Status.ERROR
    with pytest.raises(AssertionError, match=complaint):
        raise AssertionError(episode.error)


def test_every_request_has_a_seed_of_its_own_and_groups_share_an_engine(play: Any, make_client: Any, assignments: Any):
    client = make_client(lambda prompt, turn: "win" if turn == 3 else "go")
    play(client, assignments("train-0", "train-1", size=2))
    by_group: dict[str, list[int]] = {}
    for prompt, params, affinity in client.requests:
        group = prompt.split(" begins")[0]
        by_group.setdefault(group, []).append(params.seed)
        assert affinity == int(group[-1])
    assert all(sorted(seeds) == [0, 1, 2, 100, 101, 102] for seeds in by_group.values())


@pytest.mark.parametrize(
    ("metadata", "threaded"),
    [
        ({}, True),
        ({"blocking": True, "thread_safe": True}, True),
        ({"blocking": False}, False),
        ({"blocking": True, "thread_safe": False}, False),
    ],
)
def test_only_environments_that_block_and_bear_it_are_called_in_threads(
    play: Any, make_client: Any, assignments: Any, obedient_env: Any, metadata: dict[str, Any], threaded: bool
):
    callers: set[str] = set()

    class Env(obedient_env):
        def step(self, action: str) -> Any:
            callers.add(threading.current_thread().name)
            return super().step(action)

    Env.metadata = {"render_modes": [], **metadata}
    play(make_client(lambda prompt, turn: "win"), assignments("train-0"), Env)
    assert all(name.startswith("env") == threaded for name in callers)
    assert callers


def test_environments_are_used_again_by_the_next_call(play: Any, make_client: Any, assignments: Any, obedient_env: Any):
    made: list[Any] = []

    def make() -> Any:
        made.append(obedient_env())
        return wrap(made[-1], style="bare", template="bare")

    pool = EnvPool(make, 4)
    say: Callable[[str, int], str] = lambda prompt, turn: "win"  # noqa: E731
    for _ in range(3):
        play(make_client(say), assignments("train-0", "train-1", size=2), pool=pool)
    assert len(made) == 4
    pool.close()
    assert all(env.closed for env in made)


def test_a_call_that_never_returns_ends_its_episode_and_no_other(
    play: Any, make_client: Any, assignments: Any, obedient_env: Any, chat: Any
):
    stuck = threading.Event()

    class Env(obedient_env):
        metadata = {"render_modes": []}

        def step(self, action: str) -> Any:
            if self.task == "bad-0":
                stuck.wait()
            return super().step(action)

    pool = EnvPool(lambda: wrap(Env(), style="bare", template="bare"), 4, call_timeout_s=0.2)
    client = make_client(lambda prompt, turn: "win")
    for _ in range(3):  # threads that are stuck are no others' loss
        result = play(client, assignments("bad-0", "train-1", size=2), pool=pool)
        assert statuses(result.groups) == [[Status.ERROR] * 2, [Status.SUCCESS] * 2]
    error = result.groups[0].episodes[0].error
    assert error == "task 'bad-0': the environment's step did not return within 0.2 s (env_call_timeout_s)"
    stuck.set()


def test_an_environment_whose_iterator_ends_is_an_error_and_no_hang(
    play: Any, make_client: Any, assignments: Any, obedient_env: Any
):
    class Env(obedient_env):
        metadata = {"render_modes": []}

        def step(self, action: str) -> Any:
            return next(iter(()))

    result = play(make_client(lambda prompt, turn: "win"), assignments("train-0", size=1), Env)
    assert "raised" in result.groups[0].episodes[0].error
    assert "StopIteration" in result.groups[0].episodes[0].error


@pytest.mark.parametrize("turn", [0, 1])
def test_an_observation_far_beyond_the_context_is_not_read(
    play: Any, make_client: Any, assignments: Any, obedient_env: Any, turn: int
):
    """A tokenizer takes minutes over 100 MB."""

    class Env(obedient_env):
        def reset(self, **kwargs: Any) -> Any:
            observation, info = super().reset(**kwargs)
            return ("room " * 4_000_000 if turn == 0 else observation), info

        def step(self, action: str) -> Any:
            _, *rest = super().step(action)
            return "room " * 4_000_000, *rest

    result = play(make_client(lambda prompt, turn: "go"), assignments("train-0", size=1), Env)
    (episode,) = result.groups[0].episodes
    assert episode.status is (Status.TRUNCATED if turn else Status.ERROR)
    if turn == 0:
        assert "its first prompt has 20000000 characters, and there is room for 10000 tokens" in episode.error


def test_what_has_not_ended_in_time_is_given_up(play: Any, make_client: Any, assignments: Any):
    async def say(prompt: str, turn: int) -> str:
        if "train-0" in prompt:
            await asyncio.Event().wait()
        return "win"

    result = play(make_client(say), assignments("train-0", "train-1"), seconds=0.5)
    assert result.lost == {"group-0": "it had not ended after 0.5 s (sample_timeout_s)"}
    assert statuses(result.groups) == [[Status.SUCCESS] * 2]


def test_what_breaks_in_our_own_code_costs_one_group_and_is_named(
    play: Any, make_client: Any, assignments: Any, chat: Any
):
    class Client:
        async def generate(self, prompt: list[int], params: Any, affinity: int = 0) -> Any:
            return None  # whose token ids are then asked for

    result = play(Client(), assignments("train-0", size=1))
    assert result.lost == {"group-0": "AttributeError: 'NoneType' object has no attribute 'token_ids'"}

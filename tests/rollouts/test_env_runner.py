"""The environment runner without Ray: any environment, whole groups, the counts behind every rate."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from ray.tune import register_env

from env_wrappers.panels import Panel
from proxmo_rllib import ProxMO, ProxMOConfig
from proxmo_rllib.rollouts.agents import RandomScript
from proxmo_rllib.rollouts.env_runner import TextEnvRunner
from proxmo_rllib.rollouts.environments import check_first_prompt, env_name, make_text_env, split_tasks
from proxmo_rllib.types import Assignment, Episode, Status


@pytest.fixture
def config(tiny_policy: Path, obedient_env: Any) -> ProxMOConfig:
    return (
        ProxMOConfig()
        .environment(obedient_env)
        .policy(pretrained=tiny_policy)
        .inference(max_model_len=200, max_response_tokens=8)
        .env_runners(max_turns=5, max_concurrent_episodes=8)
        .training(group_size=2, num_groups=2)
    )


def runner_with(config: ProxMOConfig, client: Any) -> TextEnvRunner:
    runner = TextEnvRunner(config=config)
    runner.connect(client)
    return runner


def test_broken_groups_are_dropped_and_counted(config: ProxMOConfig, make_client: Any, assignments: Any):
    def say(prompt: str, turn: int) -> str:
        if "train-1" in prompt:
            return "boom"
        return ("win" if "train-0" in prompt else "lose") if turn == 2 else "nonsense"

    config.debugging(record_groups=1)
    runner = runner_with(config, make_client(say))
    result = runner.sample(assignments=assignments("train-0", "train-1", "train-2", size=2))
    metrics = {key: value.peek() for key, value in runner.get_metrics().items()}
    runner.stop()
    assert result.group_ids == ("group-0", "group-1", "group-2")
    assert [group.group_id for group in result.groups] == ["group-0", "group-2"]
    assert len(result.errors) == 2
    assert [group.group_id for group in result.records] == ["group-0"]
    counts = {key: metrics[key] for key in ("num_episodes", "num_successes", "num_errors", "num_truncated")}
    assert counts == {"num_episodes": 4, "num_successes": 2, "num_errors": 2, "num_truncated": 0}
    assert metrics["success_rate"] == 0.5  # of the episodes that could be played
    assert metrics["episode_return_mean"] == 0.5
    assert metrics["episode_len_mean"] == 2.0
    assert metrics["num_invalid_actions"] == 4
    assert metrics["invalid_action_rate"] == 0.5
    assert metrics["num_env_steps_sampled"] == metrics["num_env_steps_sampled_lifetime"] == 8


def test_what_was_played_is_not_written_out_on_the_way(
    config: ProxMOConfig, make_client: Any, assignments: Any, monkeypatch: Any
):
    """What an event loop's main task returns, the signal module has Python write out: seconds for a batch's arrays."""
    written = []
    monkeypatch.setattr(Episode, "__repr__", lambda episode: str(written.append(episode.episode_id)))
    runner = runner_with(config, make_client(lambda prompt, turn: "win"))
    assert len(runner.sample(assignments=assignments("train-0")).groups) == 1
    assert written == []


def test_penalties_never_touch_the_success_rate(config: ProxMOConfig, make_client: Any, assignments: Any):
    config.prompting(invalid_action_penalty=10.0)
    runner = runner_with(config, make_client(lambda prompt, turn: "win" if turn == 2 else "nonsense"))
    runner.sample(assignments=assignments("train-0"))
    metrics = {key: value.peek() for key, value in runner.get_metrics().items()}
    assert metrics["success_rate"] == 1.0
    assert metrics["episode_return_mean"] == -9.0


def test_a_run_is_a_function_of_its_seed(config: ProxMOConfig, make_client: Any, assignments: Any):
    def record(seed_of_group: int) -> list[tuple[str, int | None]]:
        client = make_client(lambda prompt, turn: "win" if turn == 3 else "go")
        dealt = [Assignment("group", "train-0", seed=seed_of_group, size=2)]
        runner_with(config, client).sample(assignments=dealt)
        return sorted((prompt, params.seed) for prompt, params, _ in client.requests)

    first = record(1)
    assert record(1) == first
    assert not {seed for _, seed in record(2)} & {seed for _, seed in first}
    assert len({seed for _, seed in first}) == len(first)


def test_a_script_plays_in_the_format_of_the_policy(config: ProxMOConfig, make_client: Any, assignments: Any):
    config.prompting(response_style="tagged", template="instructed")
    config.inference(max_model_len=1000)
    runner = runner_with(config, make_client(lambda prompt, turn: "never asked"))
    (group,) = runner.play(assignments("train-0", size=8), script=RandomScript).groups
    turns = [turn for episode in group.episodes for turn in episode.turns]
    assert all(turn.action_valid for turn in turns)
    assert {turn.action for turn in turns} == {"win", "lose", "go"}
    assert turns[0].response == f"<think></think><action>{turns[0].action}</action>"
    assert not all(episode.status is Status.SUCCESS for episode in group.episodes)


def test_a_panel_may_have_another_environment_than_training(
    config: ProxMOConfig, make_client: Any, obedient_env: Any, assignments: Any
):
    class PanelEnv(obedient_env):
        def reset(self, **kwargs: Any) -> Any:
            observation, info = super().reset(**kwargs)
            return f"panel of {self.size}: {observation}", info

    register_env("panel_env", lambda settings: PanelEnv(**settings))
    panel = Panel("mine", 1, "panel_env", {"size": 9}, ("valid-7",))
    runner = runner_with(config, make_client(lambda prompt, turn: "win"))
    for _ in range(2):
        (group,) = runner.play(assignments(*panel.tasks, size=1), panel=panel).groups
        assert group.episodes[0].turns[0].anchor == "panel of 9: valid-7 begins with 0"


def as_class(env: Any) -> Any:
    return env


def as_creator(env: Any) -> Any:
    return lambda settings: env(**settings)


def as_function_with_keywords(env: Any) -> Any:
    return lambda size=1: env(size)


def as_partial(env: Any) -> Any:
    return functools.partial(env)


def as_class_in_a_module(env: Any) -> Any:
    sys.modules["another_module"] = types.ModuleType("another_module")
    sys.modules["another_module"].Own = env  # type: ignore[attr-defined]
    return "another_module:Own"


def as_registered_with_ray(env: Any) -> Any:
    register_env("obedient", lambda settings: env(**settings))
    return "obedient"


def as_registered_with_gymnasium(env: Any) -> Any:
    gymnasium.register("Obedient-v0", entry_point=env)
    return "Obedient-v0"


def as_module(env: Any) -> Any:
    """An id that names the module which registers it, as every process needs that has not imported it."""
    sys.modules["obedient_module"] = types.ModuleType("obedient_module")
    gymnasium.register("ObedientToo-v0", entry_point=env)
    return "obedient_module:ObedientToo-v0"


@pytest.mark.parametrize(
    "name",
    [
        as_class,
        as_creator,
        as_function_with_keywords,
        as_partial,
        as_class_in_a_module,
        as_registered_with_ray,
        as_registered_with_gymnasium,
        as_module,
    ],
)
def test_an_environment_is_named_in_every_way_that_rllib_and_gymnasium_know(
    config: ProxMOConfig, obedient_env: Any, name: Callable[[Any], Any]
):
    config.environment(name(obedient_env), env_config={"size": 3})
    env = make_text_env(config)
    assert split_tasks(env, config) == ["train-0", "train-1", "train-2"]
    assert env.reset(seed=0, options={"task": "train-1"})[0] == "train-1 begins with 0"
    assert env_name(config.env)
    assert ProxMO._get_env_id_and_creator(config.env, config)[0] == config.env, "RLlib takes what a dry run takes"


class PlainEnv(gymnasium.Env[str, str]):
    """As little as Gymnasium and an honest success rate ask for."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.secret = int(self.np_random.integers(10))
        return "Guess a digit.", {"success": False}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        right = action == str(self.secret)
        return "No.", float(right), right, False, {"success": right}


def test_a_plain_environment_needs_no_tasks_nor_actions(config: ProxMOConfig, make_client: Any):
    config.environment(PlainEnv)
    config.validate()
    assert check_first_prompt(config)
    assert split_tasks(make_text_env(config), config) == [""]
    runner = runner_with(config, make_client(lambda prompt, turn: str(turn)))
    dealt = [Assignment(f"group-{seed}", "", seed=seed, size=2) for seed in range(8)]
    groups = runner.play(dealt, temperature=1.0).groups
    episodes: list[Episode] = [episode for group in groups for episode in group.episodes]
    assert {episode.status for episode in episodes} == {Status.SUCCESS, Status.TRUNCATED}
    for group in groups:  # one seed, one initial state
        assert len({(episode.status, len(episode)) for episode in group.episodes}) == 1


class DishonestEnv(PlainEnv):
    """Leaves it to the reward to tell success, which no success rate may be made of."""

    def reset(self, **kwargs: Any) -> Any:
        return super().reset(**kwargs)[0], {}


class NumbersEnv(gymnasium.Env[Any, Any]):
    def reset(self, **kwargs: Any) -> Any:
        return 3.5, {"success": False}


class WantsSettings(PlainEnv):
    def __init__(self, config: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        (DishonestEnv, "no key 'success'.*False until the task is solved"),
        (NumbersEnv, "observation is 3.5 of type float.*Return a str"),
        (WantsSettings, "env_config={}.*keyword arguments.*lambda config"),
        (PlainEnv(), "one environment, and a rollout makes many; pass its class"),
        ("NoSuchEnv-v0", "NoSuchEnv.*env_wrappers/ALFWorld-v0.*register_env"),
        ("no_such_module:Env-v0", "no_such_module"),
    ],
)
def test_a_wrong_environment_is_named_before_anything_starts(config: ProxMOConfig, env: Any, complaint: str):
    config.environment(env)
    with pytest.raises(ValueError, match=complaint):
        check_first_prompt(config)


def test_a_split_without_tasks_is_named(config: ProxMOConfig, obedient_env: Any):
    config.environment(obedient_env, env_config={"size": 0})
    with pytest.raises(ValueError, match=r"split='train'.*no task.*another split"):
        check_first_prompt(config)


def test_a_prompt_longer_than_the_context_is_named(config: ProxMOConfig):
    config.inference(max_model_len=12, max_response_tokens=8)
    with pytest.raises(ValueError, match=r"max_model_len=12: the first prompt of task 'train-0' has \d+ tokens"):
        check_first_prompt(config)


def test_a_context_longer_than_the_model_is_named(config: ProxMOConfig):
    config.inference(max_model_len=5000)
    with pytest.raises(ValueError, match=r"max_model_len=5000.*1024 positions"):
        check_first_prompt(config)


def test_a_runner_without_engines_says_so(config: ProxMOConfig, assignments: Any):
    with pytest.raises(RuntimeError, match="no engines"):
        TextEnvRunner(config=config).sample(assignments=assignments("train-0"))

"""What environments return: taken or refused alike, and in the same words, by doctor, dry run and rollout."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from env_wrappers.conformance import NONSENSE, Finding, check_environment
from env_wrappers.core import AnyText
from env_wrappers.prompting import wrap
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.cli.preflight import dry_run
from proxmo_rllib.rollouts.environments import check_first_prompt, make_text_env, split_tasks
from proxmo_rllib.types import Status

HALF = "\ud83e"  # of an emoji

Values = dict[str, Any]  # of a step, and of the info in it, by name


def info(**changes: Any) -> Callable[[Values], Any]:
    """Changes an info, of every reset and step; a function makes the value from the right one."""

    def change(values: Values) -> None:
        for key, value in changes.items():
            values["info"][key] = value(values["info"].get(key)) if callable(value) else value

    return change


def result(**changes: Any) -> Callable[[Values], Any]:
    """Changes what else is returned, likewise."""

    def change(values: Values) -> None:
        for key, value in changes.items():
            if key in values:
                values[key] = value(values[key]) if callable(value) else value

    return change


# With one exact meaning: played as if the environment had said it plainly.
EXACT: dict[str, Callable[[Values], Any]] = {
    "nothing": info(),
    "numpy's bool as success": info(success=np.bool_),
    "an array of one as success": info(success=lambda won: np.array([won])),
    "a tensor as success": info(success=torch.tensor),
    "a tuple of actions": info(admissible_actions=tuple),
    "a set of actions": info(admissible_actions=set),
    "an array of actions": info(admissible_actions=np.array),
    "actions of numpy": info(admissible_actions=lambda actions: [np.str_(action) for action in actions]),
    "no actions": info(admissible_actions=None),
    "None for what may be absent": info(score=None, task_type=None, goal=None),
    "a score of numpy": info(score=np.float32(0.5)),
    "numbers of numpy": result(reward=np.float64, terminated=np.bool_, truncated=np.bool_),
    "arrays of one": result(reward=lambda reward: np.array([reward]), terminated=lambda over: np.array(over)),
    "a bool as reward": result(reward=bool),
    "a text of numpy": result(observation=np.str_),
    "half an emoji in an observation": result(observation=lambda text: text + HALF),
    "half an emoji in an action": info(admissible_actions=lambda actions: [*actions, HALF]),
    "half an emoji in a goal": info(goal=HALF),
}

# Refused, by words that name key, value, type and remedy.
REFUSED: dict[str, tuple[Callable[[Values], Any], str]] = {
    "a word as success": (info(success=str), r"info\['success'\] is 'False' of type str\. Return True or False"),
    "1 and 0 as success": (info(success=int), r"info\['success'\] is 0 of type int\. Return True or False"),
    "numpy's 1 and 0 as success": (
        info(success=np.int64),
        r"info\['success'\] is .*0.* of type int64\. Return True or",
    ),
    "an array of 1 or 0 as success": (
        info(success=lambda won: np.array([int(won)])),
        r"info\['success'\] is array\(\[0",
    ),
    "None as success": (info(success=None), r"info\['success'\] is None of type NoneType\. Return True or False"),
    "a score as success": (info(success=0.5), r"info\['success'\] is 0\.5 of type float\. Return True or False"),
    "an array as success": (info(success=np.zeros(2)), r"info\['success'\] is array.* of type ndarray\. Return True"),
    "no success": (lambda values: values["info"].pop("success"), "info has no key 'success'. Put it into the info of"),
    "a fraction in words": (info(score="1/2"), r"info\['score'\] is '1/2' of type str\. Make it a finite number"),
    "a score that is none": (info(score=float("nan")), r"info\['score'\] is nan of type float\. Make it a finite"),
    "None among actions": (
        info(admissible_actions=["win", None]),
        r"info\['admissible_actions'\]\[1\] is None of",
    ),
    "numbers as actions": (
        info(admissible_actions=np.arange(2)),
        r"info\['admissible_actions'\]\[0\] is 0 of",
    ),
    "a word as actions": (
        info(admissible_actions="win"),
        r"info\['admissible_actions'\] is 'win' of type str",
    ),
    "a number as task type": (info(task_type=3), r"info\['task_type'\] is 3 of type int\. Make it a str"),
    "bytes as observation": (result(observation=str.encode), r"observation is b'.*' of type bytes\. Return a str"),
    "an image": (result(observation=np.zeros((2, 2))), r"observation is array.* of type ndarray\. Return a str"),
    "no observation": (result(observation=None), r"observation is None of type NoneType\. Return a str"),
    "a reward that is none": (result(reward=float("nan")), r"reward is nan of type float\. Return a finite number"),
    "an endless reward": (result(reward=np.float32("inf")), r"reward is .*inf.* of type float32\. Return a finite"),
    "a reward in words": (result(reward="1"), r"reward is '1' of type str\. Return a finite number"),
    "1 and 0 as end": (result(terminated=int), r"terminated is 0 of type int\. Return True or False as terminated"),
    "a word as end": (result(terminated="False"), r"terminated is 'False' of type str\. Return True or False"),
    "an info that is none": (lambda values: values.update(info=None), r"no info: .*\. Return \(observation, "),
    "an old step": (lambda values: values.pop("truncated", None), r"returned 4 things and not 5.*truncated, info\)"),
    "a reset without info": (
        lambda values: values.pop("info") if "reward" not in values else None,
        r"returned .*Return \(observation, info\)",
    ),
}

FLAWS = EXACT | {name: flaw for name, (flaw, _) in REFUSED.items()}


class Flawed(gymnasium.Env[Any, Any]):
    """Three steps, the last of which wins; in task 1 it has a flaw, or in all tasks."""

    metadata = {"render_modes": []}

    def __init__(self, flaw: str, everywhere: bool = True) -> None:
        self.observation_space = self.action_space = AnyText()
        self.flaw, self.everywhere = flaw, everywhere
        self.place = 0
        self.task = ""

    def tasks(self, split: str) -> list[str]:
        return [f"{split}-{number}" for number in range(3)]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.task = (options or {}).get("task", "train-0")
        if "-" not in self.task:
            raise ValueError(self.task)
        self.place = 0
        return self.answer({"observation": f"{self.task} begins"})

    def step(self, action: str) -> Any:
        self.place = min(3, self.place + (action == "go"))
        won = self.place == 3
        seen = "What?" if action == NONSENSE else f"place {self.place}"
        values = {"observation": seen, "reward": float(won), "terminated": won, "truncated": False}
        return self.answer(values)

    def answer(self, values: Values) -> Any:
        values["info"] = {
            "success": self.place == 3,
            "admissible_actions": ["go", "stay"],
            "task": self.task,
            "task_type": "walk",
            "goal": "place 3",
        }
        if self.everywhere or self.task.endswith("-1"):
            FLAWS[self.flaw](values)
        return tuple(values.values()) if len(values) > 1 else values["observation"]


class OldReset(Flawed):
    """As written for OpenAI's Gym."""

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()[0]


class Quitting(Flawed):
    def step(self, action: str) -> Any:
        sys.exit("no licence")


@pytest.fixture
def config(tiny_policy: Path) -> ProxMOConfig:
    return (
        ProxMOConfig()
        .environment(Flawed)
        .policy(pretrained=tiny_policy)
        .inference(max_model_len=200, max_response_tokens=8)
    )


def said(findings: list[Finding]) -> list[str]:
    """In the order in which a refusal says it."""
    return [f"{finding.where}: {finding.what}. {finding.remedy}" for finding in findings]


def go(make_client: Any) -> Any:
    return make_client(lambda prompt, turn: "go")


@pytest.mark.parametrize("flaw", EXACT)
def test_what_has_one_exact_meaning_is_taken(
    config: ProxMOConfig, play: Any, make_client: Any, assignments: Any, flaw: str
) -> None:
    assert check_environment(Flawed, arguments={"flaw": flaw}) == []
    assert check_first_prompt(config.environment(Flawed, env_config={"flaw": flaw}))
    (group,) = play(go(make_client), assignments("train-1", size=2), lambda: Flawed(flaw)).groups
    for episode in group.episodes:
        assert (episode.status, episode.episode_return, len(episode)) == (Status.SUCCESS, 1.0, 3)
        assert episode.error is None
        assert all(turn.action_valid is True and type(turn.reward) is float for turn in episode.turns)
        assert "".join(turn.anchor for turn in episode.turns).encode()
        assert episode.score is None or type(episode.score) is float


@pytest.mark.parametrize("flaw", REFUSED)
def test_what_has_not_is_refused_in_the_same_words_everywhere(
    config: ProxMOConfig, play: Any, make_client: Any, assignments: Any, flaw: str
) -> None:
    words = REFUSED[flaw][1]
    findings = said(check_environment(Flawed, arguments={"flaw": flaw}))
    assert any(re.search(words, found) for found in findings), findings
    with pytest.raises(ValueError, match=words) as error:
        check_first_prompt(config.environment(Flawed, env_config={"flaw": flaw}))
    assert str(error.value).startswith("Flawed, ")
    dealt = assignments("train-0", "train-1", "train-2", size=2)
    groups = play(go(make_client), dealt, lambda: Flawed(flaw, everywhere=False)).groups
    ends = [{episode.status for episode in group.episodes} for group in groups]
    assert ends == [{Status.SUCCESS}, {Status.ERROR}, {Status.SUCCESS}], "others have suffered"
    for episode in groups[1].episodes:
        assert re.search(words, episode.error or ""), episode.error
        assert (episode.error or "").startswith("task 'train-1': Flawed, ")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (OldReset, r"reset.*cannot be called as Gymnasium does.*def reset\(self, \*, seed=None, options=None\)"),
        (Quitting, r"step.*: called sys\.exit\('no licence'\)\. Raise an exception instead"),
    ],
)
def test_an_environment_for_another_interface_or_that_quits_ends_its_own_episodes_only(
    config: ProxMOConfig, play: Any, make_client: Any, assignments: Any, env: Any, words: str
) -> None:
    found = said(check_environment(env, arguments={"flaw": "nothing"}))
    assert any(re.search(words, text) for text in found), found
    with pytest.raises(ValueError, match=words):
        check_first_prompt(config.environment(env, env_config={"flaw": "nothing"}))
    made = iter([env, Flawed, Flawed])
    dealt = assignments("train-0", "train-1", size=1)
    groups = play(go(make_client), dealt, lambda: next(made)("nothing"), limit=1).groups
    assert [group.episodes[0].status for group in groups] == [Status.ERROR, Status.SUCCESS]
    assert re.search(words, groups[0].episodes[0].error or "")


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([np.int64(3)], r"tasks.*number 0 is .*3.* of type int64\. Use non-empty strings"),
        (["a-0", None], r"tasks.*number 1 is None of type NoneType\. Use non-empty strings"),
        (["a-0", ""], r"tasks.*number 1 is '' of type str\. Use non-empty strings"),
        ("a-0", r"tasks.*'a-0' of type str\. Return a list of str"),
        (None, r"tasks.*None of type NoneType\. Return a list of str"),
        (np.array(["a-0", "a-1"]), None),
        (("a-0", "a-1"), None),
    ],
)
def test_task_ids_are_words(config: ProxMOConfig, tasks: Any, words: str | None) -> None:
    class Env(Flawed):
        splits = ("train",)

        def tasks(self, split: str) -> Any:
            return tasks

    config.environment(Env, env_config={"flaw": "nothing"})
    found = said(check_environment(Env, arguments={"flaw": "nothing"}))
    if words is None:
        assert split_tasks(make_text_env(config), config) == ["a-0", "a-1"]
        assert not [text for text in found if text.startswith("tasks")]
        return
    with pytest.raises(ValueError, match=words):
        split_tasks(make_text_env(config), config)
    assert any(re.search(words, text) for text in found), found


@pytest.mark.parametrize("method", ["__init__", "tasks", "reset", "step"])
@pytest.mark.parametrize("failure", [KeyError("key"), TypeError("type"), ImportError("package"), SystemExit(3)])
def test_what_an_environment_raises_before_the_start_is_said_in_words(
    config: ProxMOConfig, method: str, failure: BaseException
) -> None:
    def fail(self: Any, *arguments: Any, **keywords: Any) -> Any:
        raise failure

    config.environment(type("Env", (Flawed,), {method: fail}), env_config={"flaw": "nothing"})
    with pytest.raises(ValueError, match=rf"Env, .*({type(failure).__name__}|sys\.exit)"):
        check_first_prompt(config)


def test_a_dry_run_takes_a_function_and_names_it(config: ProxMOConfig) -> None:
    def make_flawed(settings: dict[str, Any]) -> Flawed:
        return Flawed(settings["flaw"])

    config.environment(make_flawed, env_config={"flaw": "nothing"})
    rows = {check.what: check.found for check in dry_run(config)[0]}
    assert "make_flawed, 3 tasks in split 'train'" in rows["environment"]


def test_an_environment_is_never_shown_half_an_emoji() -> None:
    shown = []

    class Env(Flawed):
        def step(self, action: str) -> Any:
            shown.append(action)
            return super().step(action)

    env = wrap(Env("nothing"), style="bare", template="bare")
    env.reset()
    for action in (f"say {HALF}", "say \ud83e\ude91"):
        env.step(action)
    assert shown == ["say \ufffd", "say 🪑"]


class Unspeakable:
    def __repr__(self) -> str:
        raise OSError("no words")

    def __eq__(self, other: object) -> bool:
        raise OSError("no comparison")

    __hash__ = None  # type: ignore[assignment]


def raises(*arguments: Any, **keywords: Any) -> Any:
    raise KeyError(Unspeakable())


@pytest.mark.parametrize(
    "attributes",
    [
        {"reset": raises},
        {"reset": None},
        {"reset": lambda self, seed=None, options=None: (Unspeakable(), {"success": Unspeakable()})},
        {"reset": lambda self, seed=None, options=None: sys.exit(3)},
        {"step": lambda self, action: sys.exit(3)},
        {"step": lambda self, action: None},
        {"step": lambda self, action: ("text", Unspeakable(), None, Unspeakable(), {"success": Unspeakable})},
        {"step": lambda self, action: ("text", 0.0, False, False, {"success": False, Unspeakable: Unspeakable()})},
        {"metadata": None},
        {"metadata": ["blocking"]},
        {"metadata": {"blocking": Unspeakable()}},
        {"splits": property(raises)},
        {"splits": 3},
        {"tasks": raises},
        {"tasks": 3},
        {"tasks": lambda self, split: 3},
        {"tasks": lambda self, split: [Unspeakable()]},
        {"tasks": lambda self, split: [[]]},
        {"unwrapped": property(raises)},
        {"close": raises},
        {"close": lambda self: sys.exit(3)},
        {"__init__": raises},
        {"__deepcopy__": raises},
        {"__reduce__": raises},
        {"action_space": property(raises, lambda self, value: None)},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_the_conformance_check_never_ends_in_a_traceback(attributes: dict[str, Any]) -> None:
    findings = check_environment(type("Env", (Flawed,), attributes), arguments={"flaw": "nothing"})
    assert findings
    assert all(str(finding) for finding in findings)

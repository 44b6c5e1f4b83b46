"""Does an environment keep the contract of `env_wrappers.core`? For environments of one's own, and for ours.

    findings = check_environment(MyEnv)
    assert not findings, "\\n".join(map(str, findings))

`proxmo doctor --env my_module:MyEnv` prints the same. It proves nothing: a few episodes of a few tasks are played.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import pickle
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium

SPLIT_NAMES = ("train", "valid", "test", "valid_seen", "valid_unseen")
NONSENSE = "xyzzy plugh 42"  # an action that no environment knows
# What a language model may say, and what it may not; an environment gets it all.
ODD_ACTIONS = {
    "the empty string": "",
    "spaces": "   ",
    "a line break": "look\r\nlook",
    "a NUL character": "\0",
    "control characters": "\x07\x1b[31m\x7f",
    "an unknown word": NONSENSE,
    "braces and percent signs": "{} {0.x} %s %d",
    "a path": "../../etc/passwd",
    "other alphabets": "äß漢字 نص",
    "emoji": "🪑👩‍🚀" * 20,
    "half an emoji": "\ud83e",
    "a number": "-1",
    "a million characters": "x" * 1_000_000,
}
PLAIN_ACTIONS = ("look", "help", "inventory", "yes", "no", "1", "2", "left", "right", NONSENSE)

Step = tuple[Any, Any, Any, Any, dict[str, Any]]
Make = Callable[[], "gymnasium.Env[Any, Any]"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong.

    Attributes:
        rule: short name of the rule that is broken.
        where: what was called when it showed.
        what: what was found.
        remedy: what to do about it.
    """

    rule: str
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.where}: {self.what} -> {self.remedy}"


def check_environment(
    env: gymnasium.Env[Any, Any] | Callable[..., gymnasium.Env[Any, Any]] | str,
    *,
    tasks: int = 2,
    steps: int = 12,
    actions: Sequence[str] = PLAIN_ACTIONS,
    seed: int = 0,
    arguments: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Play a few episodes and say what is wrong.

    Args:
        env: a class or a function that makes the environment; the id of a registered one; "module:Name" of any of
            these; or an environment, of which copies are then made as others of its group.
        tasks: how many tasks are played, where the environment has tasks.
        steps: length of the episodes that are played.
        actions: what is said to an environment that lists no admissible actions.
        seed: of the resets and of the choice of actions.
        arguments: of the environment, where it is made by a class, a function or an id.

    Returns:
        What was found, the gravest first; empty if nothing is wrong.
    """
    check = _Check(_maker(env, dict(arguments or {})), steps, tuple(actions), seed)
    check.run(tasks)
    return check.findings


def resolve(name: str) -> Any:
    """What "module:Name" names, or the name itself if it is the id of a registered environment.

    Raises:
        ValueError: there is no such thing.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        if name not in gymnasium.registry:
            known = sorted(entry for entry in gymnasium.registry if entry.startswith("env_wrappers/"))
            raise ValueError(
                f"env={name!r} is not registered with Gymnasium; registered here: {', '.join(known)}. Name your own as "
                "my_module:MyEnv."
            )
        return name
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"env={name!r}: importing {module} failed: {type(error).__name__}: {error}. Is it on the path?"
        ) from error
    if hasattr(found, attribute):
        return getattr(found, attribute)
    if attribute in gymnasium.registry:
        return attribute
    raise ValueError(f"env={name!r}: the module {module} neither has nor registers {attribute!r}.")


def _maker(env: Any, arguments: dict[str, Any]) -> Make:
    if isinstance(env, str):
        env = resolve(env)
    if isinstance(env, str):
        return lambda: gymnasium.make(env, disable_env_checker=True, **arguments)
    if callable(env) and not isinstance(env, gymnasium.Env):
        return lambda: env(**arguments)
    if getattr(env, "spec", None) is not None:
        return lambda: gymnasium.make(env.spec, disable_env_checker=True)
    return lambda: copy.deepcopy(env)


class _Stop(Exception):
    """The rest cannot be checked."""


class _Check:
    """The findings so far, and what is needed to get more."""

    def __init__(self, make: Make, steps: int, actions: tuple[str, ...], seed: int) -> None:
        self._make = make
        self._steps = steps
        self._plain = actions
        self._seed = seed
        self.findings: list[Finding] = []

    def run(self, tasks: int) -> None:
        try:
            self.env = self._new()
            self._spaces_and_metadata()
            self._signatures()
            chosen = self._tasks(tasks)
            for task in chosen:
                self._episode(task)
            self._group(chosen)
            self._odd_actions(chosen[0])
            self._admissible(chosen[0])
            self._copies(chosen[0])
            self._after_the_end(chosen[0])
            self._call("close()", self.env.close)
        except _Stop:
            pass

    def _report(self, rule: str, where: str, what: str, remedy: str) -> None:
        # Of each kind once: the second says nothing new.
        if all((finding.rule, finding.remedy) != (rule, remedy) for finding in self.findings):
            self.findings.append(Finding(rule, where, what, remedy))

    def _call(self, where: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what must not raise."""
        try:
            return function(*arguments)
        except Exception as error:
            what = f"raised {type(error).__name__}: {str(error)[:300]}"
            self._report("exception", where, what, "Do what it says, or mend it: an episode would end as an error.")
            raise _Stop from error

    def _new(self) -> gymnasium.Env[Any, Any]:
        env = self._call("making the environment", self._make)
        if not isinstance(env, gymnasium.Env):
            self._report(
                "interface",
                "making the environment",
                f"it is a {type(env).__name__}, no gymnasium.Env",
                "Derive it from gymnasium.Env (or env_wrappers.TextEnv), with reset and step.",
            )
            raise _Stop
        return env

    def _spaces_and_metadata(self) -> None:
        for name in ("observation_space", "action_space"):
            space = getattr(self.env, name, None)
            if not isinstance(space, gymnasium.spaces.Text):
                remedy = f"Set self.{name} = env_wrappers.core.AnyText(), or another gymnasium.spaces.Text."
                self._report("spaces", name, f"is {space!r}, no Text space", remedy)
        for key in ("blocking", "thread_safe"):
            value = (self.env.unwrapped.metadata or {}).get(key, True)
            if not isinstance(value, bool):
                self._report("metadata", f"metadata[{key!r}]", f"is {value!r}, no bool", "Set it to True or False.")

    def _signatures(self) -> None:
        for name, arguments, keywords in (("reset", (), {"seed": 0, "options": None}), ("step", ("",), {})):
            method = getattr(self.env.unwrapped, name)
            try:
                inspect.signature(method).bind(*arguments, **keywords)
            except TypeError as error:
                form = "def reset(self, *, seed=None, options=None)" if keywords else "def step(self, action)"
                self._report("signature", name, f"cannot be called as Gymnasium does: {error}", f"Write it as {form}.")
                raise _Stop from error

    def _tasks(self, number: int) -> list[str | None]:
        """Some tasks of the first split; [None] where the environment has none."""
        bare: Any = self.env.unwrapped
        if not hasattr(bare, "tasks"):
            return [None]
        names = getattr(bare, "splits", None) or SPLIT_NAMES
        lists: dict[str, list[str]] = {}
        for split in names:
            try:
                lists[split] = list(bare.tasks(split))
            except Exception as error:  # noqa: BLE001 (a split that it does not have, or a bug in one that it has)
                if split == "train" or hasattr(bare, "splits"):
                    remedy = "List the task ids of every split that the environment has; training asks for 'train'."
                    self._report("tasks", f"tasks({split!r})", f"raised {type(error).__name__}: {error}", remedy)
        everything = [task for tasks in lists.values() for task in tasks]
        if not all(isinstance(task, str) and task for task in everything):
            self._report("tasks", "tasks(...)", "lists ids that are no words", "Use non-empty strings as task ids.")
            raise _Stop
        if len(set(everything)) < len(everything):
            remedy = "List each id once, and in one split only: results on tasks of the training are no test."
            self._report("tasks", "tasks(...)", "lists an id twice", remedy)
        if any(list(bare.tasks(split)) != tasks for split, tasks in lists.items()):
            self._report("tasks", "tasks(...)", "gives another order the second time", "List them in a fixed order.")
        if not lists.get("train"):
            raise _Stop
        try:
            self.env.reset(seed=self._seed, options={"task": "no such task"})
        except Exception:  # noqa: BLE001 (as it should)
            pass
        else:
            self._report(
                "tasks",
                "reset(options={'task': 'no such task'})",
                "plays something else instead",
                "Raise a ValueError that names the task; else a mistyped one trains on another.",
            )
        return list(random.Random(self._seed).sample(lists["train"], min(number, len(lists["train"]))))

    def _options(self, task: str | None) -> dict[str, Any] | None:
        return None if task is None else {"task": task}

    def _reset(self, env: gymnasium.Env[Any, Any], task: str | None) -> tuple[Any, dict[str, Any]]:
        options = self._options(task)
        where = f"reset(seed={self._seed}, options={options})"
        result = self._call(where, lambda: env.reset(seed=self._seed, options=options))
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            self._report("signature", where, f"returned {_short(result)}", "Return (observation, info), info a dict.")
            raise _Stop
        self._look_at(where, env, *result)
        if task is not None and result[1].get("task", task) != task:
            what = f"info['task'] is {result[1]['task']!r}"
            self._report("tasks", where, what, "Play the task that is asked for, and name it in info['task'].")
        return result

    def _step(self, env: gymnasium.Env[Any, Any], action: str, where: str = "") -> Step:
        where = where or f"step({_short(action)})"
        result = self._call(where, env.step, action)
        if not (isinstance(result, tuple) and len(result) == 5 and isinstance(result[4], dict)):
            form = "(observation, reward, terminated, truncated, info)"
            self._report("signature", where, f"returned {_short(result)}", f"Return {form}, info a dict.")
            raise _Stop
        observation, reward, terminated, truncated, info = result
        if not _is_number(reward):
            remedy = "Return a finite number, float(...); what cannot be averaged cannot be learned from."
            self._report("reward", where, f"the reward is {_short(reward)}", remedy)
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(flag, bool):
                self._report("signature", where, f"{name} is {_short(flag)}", f"Return bool(...) as {name}.")
        self._look_at(where, env, observation, info)
        return observation, reward, terminated, truncated, info

    def _look_at(self, where: str, env: gymnasium.Env[Any, Any], observation: Any, info: dict[str, Any]) -> None:
        """Observation and info of a reset or a step."""
        if not isinstance(observation, str):
            remedy = "Return a str, the observation in words; to leave it to a wrapper, check the wrapped environment."
            self._report("observation", where, f"is of type {type(observation).__name__}", remedy)
        elif isinstance(env.observation_space, gymnasium.spaces.Text) and observation not in env.observation_space:
            remedy = "Use env_wrappers.core.AnyText(): Gymnasium's Text fixes an alphabet and a length."
            self._report("spaces", where, f"{_short(observation)} is not in observation_space", remedy)
        if "success" not in info:
            remedy = "Put it into the info of reset and of every step: False until the task is solved, then True."
            self._report("success", where, "info has no key 'success'", remedy)
        elif not isinstance(info["success"], bool):
            what = f"info['success'] is {_short(info['success'])} of type {type(info['success']).__name__}"
            self._report("success", where, what, "Make it a bool: bool(...).")
        actions = info.get("admissible_actions", [])
        if not isinstance(actions, list) or not all(isinstance(action, str) for action in actions):
            remedy = "Make it a list of str, empty or absent if the environment does not list actions."
            self._report("admissible_actions", where, f"info['admissible_actions'] is {_short(actions)}", remedy)
        for key in ("task", "task_type", "goal"):
            if not isinstance(info.get(key, ""), str):
                self._report("info", where, f"info[{key!r}] is {_short(info[key])}", "Make it a str, or leave it out.")
        if "score" in info and not _is_number(info["score"]):
            remedy = "Make it a finite number, or leave it out."
            self._report("info", where, f"info['score'] is {_short(info['score'])}", remedy)

    def _actions(self, info: dict[str, Any]) -> list[str]:
        """What may be done now, without patterns that stand for free text."""
        listed = info.get("admissible_actions", [])
        words = [a for a in listed if isinstance(a, str) and "<" not in a] if isinstance(listed, list) else []
        return words or list(self._plain)

    def _walk(
        self, env: gymnasium.Env[Any, Any], info: dict[str, Any], script: Sequence[str] = ()
    ) -> Iterator[tuple[str, Step]]:
        """Play a script, or at random, to the end of the episode or of `steps`."""
        rng = random.Random(self._seed)
        for turn in range(len(script) or self._steps):
            action = script[turn] if script else rng.choice(self._actions(info))
            outcome = self._step(env, action)
            yield action, outcome
            info = outcome[4]
            if outcome[2] or outcome[3]:
                return

    def _episode(self, task: str | None) -> None:
        """One after another on one instance: the second must be as the first was."""
        first = self._reset(self.env, task)
        walked = list(self._walk(self.env, first[1]))
        again = self._reset(self.env, task)
        remedy = (
            "Draw everything random in reset from self.np_random after super().reset(seed=seed), or from the task id, "
            "and set all state anew; no global random, no time, no order of a set."
        )
        if difference := _difference(first, again):
            where = f"reset(seed={self._seed}, options={self._options(task)}), twice"
            self._report("determinism", where, f"the second differs in {difference}", remedy)
            return
        repeated = self._walk(self.env, again[1], [action for action, _ in walked])
        for (action, one), (_, other) in zip(walked, repeated, strict=False):
            if difference := _difference(one, other):
                where = f"step({_short(action)}) in two episodes that went the same way"
                self._report("determinism", where, f"they differ in {difference}", remedy)
                return

    def _group(self, tasks: Sequence[str | None]) -> None:
        """Members of a group are instances of their own; they begin alike, and play at once without disturbance."""
        other = self._new()
        for task in tasks[::-1]:  # in another order: what was played before must not matter
            mine = self._reset(self.env, task)
            if difference := _difference(mine, self._reset(other, task)):
                self._report(
                    "group",
                    f"reset(seed={self._seed}, options={self._options(task)}) of two instances",
                    f"they differ in {difference}",
                    "Let seed and task alone determine the start: the members of a group are compared with each other.",
                )
                return
        alone = list(self._walk(self.env, mine[1]))
        self._reset(self.env, task)
        _, others = self._reset(other, task)
        rng = random.Random(self._seed + 1)
        over = False
        for action, wanted in alone:
            if not over:
                _, _, terminated, truncated, others = self._step(other, rng.choice(self._actions(others)))
                over = terminated or truncated
            if difference := _difference(wanted, self._step(self.env, action)):
                self._report(
                    "group",
                    f"step({_short(action)}) while another instance plays the same task",
                    f"it is answered otherwise than alone: {difference}",
                    "Keep all state of the episode in attributes of the instance: a group plays one task at once.",
                )
                return

    def _odd_actions(self, task: str | None) -> None:
        for name, action in ODD_ACTIONS.items():
            self._reset(self.env, task)
            where = f"step({_short(action)}), {name}"
            try:
                self.env.step(action)
            except Exception as error:  # noqa: BLE001 (whatever it is, it is the finding)
                self._report(
                    "odd actions",
                    where,
                    f"raised {type(error).__name__}: {str(error)[:200]}",
                    "Answer any string, for a language model says any: an unknown action changes nothing and says so.",
                )
                self.env = self._new()  # nobody knows what state it is in
            else:
                self._reset(self.env, task)
                self._step(self.env, action, where)

    def _admissible(self, task: str | None) -> None:
        """Every action that is listed at the start means something."""
        before, info = self._reset(self.env, task)
        refusal = self._step(self.env, NONSENSE)
        if not info.get("admissible_actions") or _same(refusal[0], before):
            return  # nothing is listed, or a refusal cannot be told from an answer
        for action in random.Random(self._seed).sample(self._actions(info), min(10, len(self._actions(info)))):
            self._reset(self.env, task)
            if _difference(self._step(self.env, action), refusal) == "":
                remedy = "List only what does something now, in the words that step understands."
                what = f"it is answered as {NONSENSE!r} is: {_short(refusal[0])}"
                self._report("admissible_actions", f"step({_short(action)}), which is listed", what, remedy)
                return

    def _copies(self, task: str | None) -> None:
        """A copy of the middle of an episode goes on as the original does, and leaves it alone."""
        ways: dict[str, Callable[[Any], Any]] = {
            "copy.deepcopy": copy.deepcopy,
            "pickle": lambda env: pickle.loads(pickle.dumps(env)),
        }
        _, info = self._reset(self.env, task)
        script = [action for action, _ in self._walk(self.env, info)]
        half = len(script) // 2
        for name, way in ways.items():
            _, info = self._reset(self.env, task)
            reference = [outcome for _, outcome in self._walk(self.env, info, script)][half:]
            self._reset(self.env, task)
            for action in script[:half]:
                self._step(self.env, action)
            where = f"{name} after {half} steps"
            try:
                twin = way(self.env.unwrapped)
            except Exception as error:  # noqa: BLE001 (whatever it is, it is the finding)
                remedy = "Leave open files, locks, sockets and lambdas out of the state (__getstate__, __setstate__)."
                self._report("copies", where, f"raised {type(error).__name__}: {str(error)[:200]}", remedy)
                continue
            for whose, env in (("the copy", twin), ("the original, after its copy was played,", self.env)):
                for action, wanted in zip(script[half:], reference, strict=False):
                    if difference := _difference(wanted, self._step(env, action)):
                        remedy = "Keep all state of the episode in attributes of the instance, and share none of it."
                        what = f"{whose} goes on differently: {difference} after {_short(action)}"
                        self._report("copies", where, what, remedy)
                        break

    def _after_the_end(self, task: str | None) -> None:
        """A rollout does not step after the end; one that did must not get a new episode for it."""
        for attempt in range(5):
            _, info = self._reset(self.env, task)
            rng = random.Random(self._seed + attempt)
            for _ in range(4 * self._steps):
                _, _, terminated, truncated, info = self._step(self.env, rng.choice(self._actions(info)))
                if terminated or truncated:
                    self._one_more(info)
                    return

    def _one_more(self, info: dict[str, Any]) -> None:
        action = self._actions(info)[0]
        where = f"step({_short(action)}) after the end"
        remedy = "Say the same again with terminated=True, or raise RuntimeError('call reset()'); start nothing new."
        try:
            _, _, terminated, truncated, later = self.env.step(action)
        except (RuntimeError, gymnasium.error.Error):
            return
        except Exception as error:  # noqa: BLE001 (whatever it is, it is the finding)
            self._report("after the end", where, f"raised {type(error).__name__}: {str(error)[:200]}", remedy)
            return
        if not (terminated or truncated):
            self._report("after the end", where, "the episode goes on", remedy)
        elif later.get("success") != info.get("success"):
            self._report("after the end", where, "info['success'] changes", remedy)


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, (str, bytes, bool)) and math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _difference(one: Sequence[Any], other: Sequence[Any]) -> str:
    """In what two results of reset or step differ; empty if in nothing."""
    names = ("observation", "info") if len(one) == 2 else ("observation", "reward", "terminated", "truncated", "info")
    for name, mine, theirs in zip(names, one, other, strict=True):
        if name == "info":
            for key in sorted({*mine, *theirs}, key=str):
                if key not in mine or key not in theirs or not _same(mine[key], theirs[key]):
                    return f"info[{key!r}]: {_short(mine.get(key))} and {_short(theirs.get(key))}"
        elif not _same(mine, theirs):
            return f"the {name}: {_short(mine)} and {_short(theirs)}"
    return ""


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 (arrays and the like do not compare to a bool)
        return repr(one) == repr(other)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"

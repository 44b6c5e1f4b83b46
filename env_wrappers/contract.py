"""What comes out of an environment, held to the contract of `env_wrappers.core` in one place.

The conformance check, a dry run and a rollout read what `reset` and `step` return through the same functions, so an
environment that one of them accepts is accepted by all, and refused by all in the same words. What has one exact
meaning is brought to its form: a numpy bool or number, a tuple, set or array of actions, None for something that may be
absent, half an emoji (it becomes U+FFFD, as nothing can be made of it). Everything else is refused, never guessed.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import gymnasium
import numpy as np

# Told of what breaks the contract: rule, what was found, remedy. One that raises ends the reading.
Report = Callable[[str, str, str], None]

TEXTS = ("task", "task_type", "goal")  # of an info; each may be absent
_SUCCESS_REMEDY = "Put it into the info of reset and of every step: False until the task is solved, then True."
_FORMS = {
    2: "(observation, info), info a dict",
    5: "(observation, reward, terminated, truncated, info), info a dict",
}
_SIGNATURES = {
    "reset": ((), {"seed": 0, "options": None}, "def reset(self, *, seed=None, options=None)"),
    "step": (("",), {}, "def step(self, action)"),
}


class ContractError(ValueError):
    """An environment returned something that the contract does not allow."""


class KeptContract(gymnasium.Wrapper[str, str, str, str]):
    """Passes on what the environment returns, in its exact form, or raises `ContractError`."""

    def __init__(self, env: Any) -> None:
        """Args: env: a text environment.

        Raises:
            ContractError: it is no environment of Gymnasium.
        """
        if not isinstance(env, gymnasium.Env):
            self._name = "the environment"
            check_interface(env, self._refuse("making it"))
        super().__init__(env)
        self._name = type(env.unwrapped).__name__

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """As the environment's.

        Raises:
            ContractError: it broke the contract.
        """
        result = self._call("reset", seed=seed, options=options)
        read = read_reset(result, self._refuse("reset"))
        assert read is not None
        return read

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """As the environment's. Raises as `reset`."""
        result = self._call("step", whole_text(action))
        read = read_step(result, self._refuse(f"step({short(action)})"))
        assert read is not None
        return read

    def _call(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        try:
            return getattr(self.env, method)(*arguments, **keywords)
        except TypeError:
            # Perhaps it was written for an interface that Gymnasium no longer has; else the error is its own.
            check_signature(self.env, method, self._refuse(method))
            raise
        except SystemExit as error:  # it would end the process, and every other episode with it
            self._refuse(method)("exception", *quits(error))

    def _refuse(self, where: str) -> Callable[[str, str, str], NoReturn]:
        def refuse(rule: str, what: str, remedy: str) -> NoReturn:
            raise ContractError(f"{self._name}, {where}: {what}. {remedy}") from None

        return refuse


def quits(error: SystemExit) -> tuple[str, str]:
    """What to say of an environment that ends the process: what it did, and the remedy."""
    return f"called sys.exit({error.code!r})", "Raise an exception instead: it ends this episode and no other."


def construct(maker: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """An environment from its class, by keyword arguments, or from a function, by them or by one dictionary.

    RLlib's functions take one dictionary. What a class makes of one would be a guess.

    Raises:
        ValueError: it does not accept the arguments.
        Exception: whatever the class or the function raises.
    """
    try:
        signature = inspect.signature(maker)
    except ValueError:  # of something built in
        return maker(**arguments)
    ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((), dict(arguments))]
    if not isinstance(maker, type):
        ways.append(((dict(arguments),), {}))
    for positional, keywords in ways:
        try:
            signature.bind(*positional, **keywords)
        except TypeError:
            continue
        return maker(*positional, **keywords)
    name = getattr(maker, "__qualname__", type(maker).__name__)
    raise ValueError(
        f"env_config={dict(arguments)!r}: {name}{signature} does not accept it as keyword arguments; change one of the "
        "two. What takes one dictionary is to be given as a function: lambda config: MyEnv(config)."
    )


def check_interface(env: Any, report: Report) -> None:
    """Whether it is an environment of Gymnasium at all."""
    if not isinstance(env, gymnasium.Env):
        remedy = "Derive it from gymnasium.Env (or env_wrappers.TextEnv), with reset and step."
        report("interface", f"it is a {type(env).__name__}, no gymnasium.Env", remedy)


def check_signature(env: gymnasium.Env[Any, Any], method: str, report: Report) -> bool:
    """Whether "reset" or "step" can be called as Gymnasium does."""
    arguments, keywords, form = _SIGNATURES[method]
    try:
        inspect.signature(getattr(env.unwrapped, method)).bind(*arguments, **keywords)
    except TypeError as error:
        report("signature", f"it cannot be called as Gymnasium does: {error}", f"Write it as {form}.")
        return False
    except ValueError:  # of something built in, which has no signature to look at
        pass
    return True


def read_reset(result: Any, report: Report) -> tuple[str, dict[str, Any]] | None:
    """Observation and info of a reset, in their exact form; None if there are no two.

    Args:
        result: what the environment returned.
        report: is told of all that breaks the contract.
    """
    parts = _parts(result, 2, report)
    if parts is None:
        return None
    return _observation(parts[0], report), _info(parts[1], report)


def read_step(result: Any, report: Report) -> tuple[str, float, bool, bool, dict[str, Any]] | None:
    """Observation, reward, terminated, truncated and info of a step, in their exact form; None if there are no five.

    Args:
        result: what the environment returned.
        report: is told of all that breaks the contract.
    """
    parts = _parts(result, 5, report)
    if parts is None:
        return None
    observation, reward, terminated, truncated, info = parts
    number = as_number(reward)
    if number is None:
        remedy = "Return a finite number, float(...); what cannot be averaged cannot be learned from."
        report("reward", f"the reward is {described(reward)}", remedy)
    flags = []
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        flags.append(as_bool(flag))
        if flags[-1] is None:
            report("signature", f"{name} is {described(flag)}", f"Return True or False as {name}.")
    return (
        _observation(observation, report),
        number or 0.0,
        bool(flags[0]),
        bool(flags[1]),
        _info(info, report),
    )


def read_tasks(tasks: Any, report: Report) -> list[str] | None:
    """The ids of a split as a list; None if they are none."""
    try:
        listed = None if isinstance(tasks, str | bytes | Mapping) else list(tasks)
    except Exception:  # noqa: BLE001 (it is foreign: whatever keeps it from being a list)
        listed = None
    if listed is None:
        report("tasks", f"lists {described(tasks)}", "Return a list of str, the task ids.")
        return None
    for place, task in enumerate(listed):
        if not isinstance(task, str) or not task or task != whole_text(task):
            what = f"lists ids that are no words: number {place} is {described(task)}"
            report("tasks", what, "Use non-empty strings as task ids, such as str(number).")
            return None
    return [str.__str__(task) for task in listed]


def _parts(result: Any, number: int, report: Report) -> tuple[Any, ...] | None:
    if isinstance(result, tuple | list) and len(result) == number and isinstance(result[-1], Mapping):
        return tuple(result)
    what = f"returned {short(result)}"
    if isinstance(result, tuple | list):
        what = f"returned {len(result)} things and not {number}, or no info: {short(result)}"
    report("signature", what, f"Return {_FORMS[number]}.")
    return None


def _observation(observation: Any, report: Report) -> str:
    if isinstance(observation, str):
        return whole_text(observation)
    remedy = "Return a str, the observation in words; to leave it to a wrapper, check the wrapped environment."
    report("observation", f"the observation is {described(observation)}", remedy)
    return short(observation)


def _info(given: Mapping[str, Any], report: Report) -> dict[str, Any]:
    # None is how some say that there is nothing.
    optional = ("admissible_actions", "score", *TEXTS)
    info = {key: value for key, value in given.items() if not (value is None and key in optional)}
    if "success" not in info:
        report("success", "info has no key 'success'", _SUCCESS_REMEDY)
        info["success"] = False
    elif (success := as_bool(info["success"])) is None:
        remedy = "Return True or False, by the environment's own rule for a solved task; a word or a score is neither."
        report("success", f"info['success'] is {described(info['success'])}", remedy)
        info["success"] = False
    else:
        info["success"] = success
    if "admissible_actions" in info:
        info["admissible_actions"] = _actions(info["admissible_actions"], report)
    for key in TEXTS:
        if key not in info:
            continue
        if isinstance(info[key], str):
            info[key] = whole_text(info[key])
        else:
            report("info", f"info[{key!r}] is {described(info[key])}", "Make it a str, or leave it out.")
            info[key] = short(info[key])
    if "score" in info:
        score = as_number(info["score"])
        if score is None:
            what = f"info['score'] is {described(info['score'])}"
            report("info", what, "Make it a finite number, float(...), or leave it out.")
            del info["score"]
        else:
            info["score"] = score
    return info


def _actions(given: Any, report: Report) -> list[str]:
    listed = _as_list(given)
    remedy = "Make it a list of str, empty or absent if the environment does not list actions."
    if listed is None:
        report("admissible_actions", f"info['admissible_actions'] is {described(given)}", remedy)
        return []
    for place, action in enumerate(listed):
        if not isinstance(action, str):
            what = f"info['admissible_actions'][{place}] is {described(action)}"
            report("admissible_actions", what, remedy)
            return [action for action in listed if isinstance(action, str)]
    return [whole_text(action) for action in listed]


def _as_list(given: Any) -> list[Any] | None:
    """What is in a list, tuple or array; of a set, which has no order, sorted."""
    if isinstance(given, list | tuple):
        return list(given)
    if isinstance(given, np.ndarray) and given.ndim == 1:
        return list(given.tolist())
    if isinstance(given, set | frozenset):
        return sorted(given, key=lambda entry: (type(entry).__name__, str(entry)))
    return None


def whole_text(text: str) -> str:
    """A plain str that has an encoding: two halves of a character become one, a lone half U+FFFD."""
    text = text if type(text) is str else str.__str__(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def as_bool(value: Any) -> bool | None:
    """True or False, also as numpy has them; None for what is neither. A number is none: 1 may be a score."""
    value = _scalar(value)
    return value if isinstance(value, bool) else None


def as_number(value: Any) -> float | None:
    """A finite number as a float; None for what is none. A text that looks like one is none."""
    value = _scalar(value)
    if isinstance(value, str | bytes | bytearray | complex):
        return None
    try:
        number = float(value)
    except Exception:  # noqa: BLE001 (it is foreign: whatever keeps it from being a number)
        return None
    return number if math.isfinite(number) else None


def _scalar(value: Any) -> Any:
    """Python's own value of a numpy scalar, or of an array or tensor with one entry."""
    if isinstance(value, np.generic):
        return value.item()
    try:
        return value.item() if math.prod(value.shape) == 1 else value
    except Exception:  # noqa: BLE001 (it is foreign, and no array)
        return value


def described(value: Any) -> str:
    """A value with its type, for messages."""
    return f"{short(value)} of type {type(value).__name__}"


def short(value: Any) -> str:
    """A value in at most a line."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 (it is foreign, and only its looks are asked for)
        return f"<a {type(value).__name__} whose repr raises {type(error).__name__}>"
    text = re.sub(r"\s*\n\s*", " ", whole_text(text))
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"

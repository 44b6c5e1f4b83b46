"""Functions by name, with keyword options: what a configuration says, and how a user adds an own one.

A setting chooses such a function by its name, by a dictionary of the name and options, or is the function itself.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Generic, NamedTuple, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class Option(NamedTuple):
    """What an option takes."""

    takes: str  # for the error message: completes "give ..."
    accepts: Callable[[Any], bool]


def number(low: float, high: float = math.inf, *, open_low: bool = False) -> Callable[[Any], bool]:
    """Whether a value is a finite number between two bounds, both of which it may be; not the lower if it is open."""

    def accepts(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            return False
        return (float(value) > low if open_low else float(value) >= low) and float(value) <= high

    return accepts


def optional(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a value is accepted, or None."""
    return lambda value: value is None or accepts(value)


@dataclass(frozen=True, slots=True)
class Choice(Generic[Function]):
    """A function with the options that were chosen for it."""

    name: str
    function: Function
    options: Mapping[str, Any]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args, **self.options)


class Registry(dict[str, Function]):
    """Functions of one kind by name; every argument after the first is an option and has a default.

    Args:
        kind: what they are, in words.
        decorator: with which a user makes an own one known, for the error message.
        options: what the options take that several functions share; one of a user's own is the user's to check.
    """

    def __init__(self, kind: str, decorator: str, options: Mapping[str, Option]) -> None:
        super().__init__()
        self.kind = kind
        self._decorator = decorator
        self._shared = options

    def register(self, name: str) -> Callable[[Function], Function]:
        """Makes a function known by a name, from anywhere.

        Raises:
            ValueError: another function has this name already, or an option has no default.
        """

        def register(function: Function) -> Function:
            known = self.get(name)
            if known is not None and _full_name(known) != _full_name(function):
                raise ValueError(
                    f"{self.kind} {name!r}: already registered as {_full_name(known)}; choose another name."
                )
            for option, parameter in self._options(name, function).items():
                if parameter.default is inspect.Parameter.empty:
                    raise ValueError(f"{self.kind} {name!r}: option {option!r} has no default; give it one.")
            self[name] = function
            return function

        return register

    def resolve(self, function: str | Function) -> tuple[str, Function]:
        """A function's name and itself.

        Raises:
            ValueError: there is none of that name; names the nearest.
        """
        if not isinstance(function, str):
            return getattr(function, "__name__", repr(function)), function
        if function not in self:
            raise ValueError(
                f"{self.kind} {function!r} is not known{suggestion(function, self)}; known are {sorted(self)}. "
                f"An own one becomes known with {self._decorator}."
            )
        return function, self[function]

    def default_options(self, function: str | Function) -> dict[str, Any]:
        """The options of a function with their defaults."""
        name, resolved = self.resolve(function)
        return {option: parameter.default for option, parameter in self._options(name, resolved).items()}

    def require_options(self, function: str | Function, options: Mapping[str, Any]) -> None:
        """Refuses an option that a function has not, or a value that it does not take.

        Raises:
            ValueError: naming option, value, and what to give.
        """
        name, resolved = self.resolve(function)
        known = self._options(name, resolved)
        for option, value in options.items():
            if option not in known:
                raise ValueError(
                    f"{option}={value!r}: {self.kind} {name!r} has no such option{suggestion(option, known)}; "
                    f"it has {sorted(known)}."
                )
            self.check_option(option, value)

    def _options(self, name: str, function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
        try:
            parameters = list(inspect.signature(function).parameters.values())[1:]
        except ValueError as error:  # many a builtin has none
            raise ValueError(
                f"{self.kind} {name!r}: its options cannot be read ({error}); write a function."
            ) from error
        return {parameter.name: parameter for parameter in parameters}

    def check_option(self, option: str, value: Any) -> None:
        """Refuses a value that no function takes for an option.

        Raises:
            ValueError: naming option, value and what to give.
        """
        shared = self._shared.get(option)
        if shared is not None and not shared.accepts(value):
            raise ValueError(f"{option}={value!r}: give {shared.takes}.")

    def choose(self, key: str, value: Any) -> Choice[Function]:
        """The function that a setting chooses, with its options.

        Args:
            key: the setting.
            value: a name, a function, or a dictionary of `name` (one of the two) and options.

        Raises:
            ValueError: naming the setting, what is wrong with it, and the nearest that is right.
        """
        entries = dict(value) if isinstance(value, Mapping) else {"name": value}
        chosen = entries.pop("name", None)
        if not isinstance(chosen, str) and not callable(chosen):
            raise ValueError(
                f"{key}={value!r}: it is a name among {sorted(self)}, a function like those, or a dictionary with "
                "'name' and options of it."
            )
        try:
            name, function = self.resolve(chosen)
            self.require_options(chosen, entries)
        except ValueError as error:
            raise ValueError(f"{key}={value!r}: {error}") from None
        return Choice(name, function, entries)

    def carried(self, value: Any) -> Any:
        """A setting as another process can read it: the function itself in the place of a user's own name."""
        if isinstance(value, Mapping):
            return {**value, "name": self.carried(value["name"])} if "name" in value else value
        if not isinstance(value, str) or value not in self:
            return value
        function = self[value]
        return value if function.__module__.startswith("proxmo_rllib.") else function


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """The nearest known name, in words; nothing if none is near."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _full_name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"

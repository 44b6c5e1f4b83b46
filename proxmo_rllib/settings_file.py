"""A checkpoint's settings as JSON, which suffice to play with its policy again: nothing in them is ever run.

RLlib keeps a config as a pickle, and loading a pickle runs whatever its author put in. So a checkpoint has this file
beside it, and `proxmo eval` and `proxmo play` read nothing else of the config. A setting that names code (an
environment of one's own, a class for the engine) is written, and taken only from whoever says it again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from env_wrappers.panels import Panel
from env_wrappers.prompting import Template
from proxmo_rllib.config import ProxMOConfig
from proxmo_rllib.config_checks import RULES
from proxmo_rllib.config_records import LearningRate, LoRA, Sharding, read_record

NAME = "settings.json"
_FORMAT = 1
# Our settings but for those that name a place on the machine of the training, and RLlib's for the environment.
_KEYS = (RULES.keys() | {"env", "env_config"}) - {"pretrained", "run_folder"}
# Arguments of vLLM's whose text chooses among vLLM's own.
_PLAIN_ENGINE_TEXTS = frozenset({"attention_backend", "kv_cache_dtype", "quantization"})
# Where they are functions, playing does not miss them.
_NOT_PLAYED = frozenset({"advantage_estimator", "objective", "correction", "task_order", "horizon", "dynamic_sampling"})
_TAG = "$type"


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """What a settings file holds.

    Attributes:
        config: with the settings that are data.
        withheld: those that name code, or could not be written; in words, by setting.
    """

    config: ProxMOConfig
    withheld: Mapping[str, str] = field(default_factory=dict)


def write_settings(config: ProxMOConfig, file: Path) -> None:
    """Writes the settings that differ from the defaults.

    Args:
        config: of a run.
        file: written anew.
    """
    defaults = vars(ProxMOConfig())
    settings: dict[str, Any] = {}
    unsaid: dict[str, str] = {}
    for key in sorted(_KEYS & vars(config).keys()):
        value = getattr(config, key)
        if value is defaults[key]:
            continue
        try:
            settings[key] = _encode(value)
        except TypeError:
            unsaid[key] = _in_words(value)
    content = {"format": _FORMAT, "settings": settings, "unsaid": unsaid}
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_settings(file: Path) -> ReadSettings:
    """Reads what `write_settings` wrote.

    Raises:
        ValueError: it is damaged, of a newer package, or a setting is not one that there can be.
        FileNotFoundError: it is not there.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        form, settings, unsaid = content["format"], dict(content["settings"]), dict(content["unsaid"])
    except FileNotFoundError:
        raise
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({type(error).__name__}: {error}); copy the checkpoint again.") from error
    if form != _FORMAT:
        raise ValueError(
            f"{file} has the format {form!r}, and this package reads {_FORMAT}; install the version that wrote it."
        )
    if unknown := sorted(settings.keys() - _KEYS):
        raise ValueError(f"{file}: there is no setting {unknown[0]!r} that a checkpoint may bring.")
    config = ProxMOConfig()
    withheld = {key: str(said) for key, said in unsaid.items() if key not in _NOT_PLAYED}
    for key, written in settings.items():
        try:
            value = _decode(written)
            allowed, needed = _allows(key, value)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{file}, {key}: {type(error).__name__}: {error}") from error
        if not allowed:
            raise ValueError(f"{file}, {key}={value!r}: it is {needed}.")
        withheld |= dict(_code_in(key, value))
        setattr(config, key, _without_code(key, value))
    return ReadSettings(config, withheld)


def check_same_adapters(checkpoint: Path, config: ProxMOConfig) -> None:
    """Whether a run can go on from a checkpoint with the adapters that its config asks for, or without any.

    Args:
        checkpoint: its folder; one without a settings file is taken.
        config: of the run.

    Raises:
        ValueError: the checkpoint holds other adapters, or none where some are asked for, or the other way.
    """
    file = checkpoint / NAME
    if not file.is_file():
        return
    there, wanted = read_settings(file).config.lora, config.lora
    if read_record(LoRA, "lora", there) != config.lora_record:
        raise ValueError(
            f"lora={wanted!r}: {checkpoint} was trained with lora={there!r}, and holds what fits nothing else. Go on "
            f"with that, or start anew from its policy: .policy(pretrained={str(checkpoint / 'policy')!r})."
        )


def _allows(key: str, value: Any) -> tuple[bool, str]:
    """Whether a setting may have a value, and what it may have, in words."""
    if key == "env":
        return isinstance(value, str), "the name of an environment"
    if key == "env_config":
        return isinstance(value, dict), "a dictionary"
    return RULES[key].allows(value), RULES[key].says


def _code_in(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """The parts of a setting that name code: their setting, and what they name."""
    if key == "env" and isinstance(value, str) and ":" in value:
        yield key, value
    elif key == "panel" and isinstance(value, Panel) and ":" in value.env_id:
        yield key, f"a panel of {value.env_id}"
    elif key == "engine_kwargs" and isinstance(value, Mapping):
        for name, argument in value.items():
            if not _is_plain_argument(name, argument):
                yield f"{key}.{name}", repr(argument)


def _without_code(key: str, value: Any) -> Any:
    if key == "engine_kwargs" and isinstance(value, Mapping):
        return {name: argument for name, argument in value.items() if _is_plain_argument(name, argument)}
    return None if any(named == key for named, _ in _code_in(key, value)) else value


def _is_plain_argument(name: str, value: Any) -> bool:
    """Whether an argument of the engine's is only a number or a choice: texts name classes, files and servers."""
    if name.startswith("trust"):
        return False
    return value is None or isinstance(value, (bool, int, float)) or name in _PLAIN_ENGINE_TEXTS


def _encode(value: Any) -> Any:
    """As JSON has it; what JSON lacks is an object with a tag.

    Raises:
        TypeError: there is no way to say it.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Panel):
        return {_TAG: "panel", "value": asdict(value)}
    if isinstance(value, Template):
        return {_TAG: "template", "value": asdict(value) | {"hidden_actions": sorted(value.hidden_actions)}}
    if isinstance(value, (LoRA, Sharding, LearningRate)):
        return _encode(asdict(value))
    if isinstance(value, tuple):
        return {_TAG: "tuple", "value": [_encode(entry) for entry in value]}
    if isinstance(value, list):
        return [_encode(entry) for entry in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) and key != _TAG for key in value):
        return {key: _encode(entry) for key, entry in value.items()}
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _decode(written: Any) -> Any:
    if isinstance(written, list):
        return [_decode(entry) for entry in written]
    if not isinstance(written, dict):
        return written
    tag = written.get(_TAG)
    if tag is None:
        return {key: _decode(entry) for key, entry in written.items()}
    value = written["value"]
    if tag == "panel":
        return Panel.from_json(json.dumps(value))
    if tag == "template":
        texts = [*value["hidden_actions"], *(text for name, text in value.items() if name != "hidden_actions")]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("the parts of a template are texts")
        return Template(**{**value, "hidden_actions": frozenset(value["hidden_actions"])})
    if tag == "tuple":
        return tuple(_decode(entry) for entry in value)
    raise ValueError(f"{tag!r} is nothing that a setting can be")


def _in_words(value: Any) -> str:
    """A value that JSON lacks: the name of a class or function, or its type."""
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    return f"a {type(value).__name__}"

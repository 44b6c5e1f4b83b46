"""Making environments from the config, and finding out before anything starts whether they can be played."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium

import env_wrappers  # noqa: F401 (registers its environments with Gymnasium)
from env_wrappers.conformance import PLAIN_ACTIONS, resolve
from env_wrappers.contract import ContractError, construct, read_tasks
from env_wrappers.prompting import wrap
from proxmo_rllib import pulse
from proxmo_rllib.config_checks import as_entries
from proxmo_rllib.policies.loading import load_tokenizer, max_positions
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation
from proxmo_rllib.rollouts.play import PlaysItself


def make_text_env(config: Any, env: Any = None, env_config: Mapping[str, Any] | None = None) -> gymnasium.Env[str, str]:
    """An environment inside the configured prompting wrappers.

    Args:
        config: a ProxMOConfig. Its `env` is a Gymnasium id, an environment class or a function that makes one, called
            with `env_config` as keyword arguments or as one dictionary; "module:Name" of any of these; or a name
            registered with Ray Tune.
        env: another environment than the config's.
        env_config: its settings.

    Raises:
        ValueError: there is no such environment, it does not accept its settings, or (`PlaysItself`) not the config's.
    """
    bare = make_bare_env(
        config.env if env is None else env, dict(config.env_config if env is None else env_config or {})
    )
    if isinstance(player := bare.unwrapped, PlaysItself):
        player.check_config(config)
    return wrap(
        bare,
        style=config.response_style,
        template=config.template,
        history=config.history,
        show_admissible=config.show_admissible,
        invalid_action_penalty=config.invalid_action_penalty,
    )


def plays_itself(config: Any) -> bool:
    """Whether the environment of a ProxMOConfig has its episodes played by others; see `PlaysItself`.

    Raises:
        ValueError: as `make_bare_env`.
    """
    env = make_bare_env(config.env, dict(config.env_config))
    found = isinstance(env.unwrapped, PlaysItself)
    env.close()
    return found


def make_bare_env(env: Any, env_config: dict[str, Any]) -> gymnasium.Env[str, str]:
    """The environment itself.

    Raises:
        ValueError: there is no such environment, or it does not accept its settings.
    """
    if isinstance(env, str) and ":" in env:
        env = resolve(env)
    if isinstance(env, gymnasium.Env):
        raise ValueError(
            f"env={env!r} is one environment, and a rollout makes many; pass its class, a function that makes it, or a "
            "Gymnasium id."
        )
    if callable(env):
        with _said_as_its_own(env_name(env), "making it"):
            return construct(env, env_config)  # type: ignore[no-any-return]
    from ray.tune.registry import ENV_CREATOR, _global_registry

    if _global_registry.contains(ENV_CREATOR, env):
        creator = _global_registry.get(ENV_CREATOR, env)
        made: gymnasium.Env[str, str] = creator(env_config)
        return made
    try:
        return gymnasium.make(env, disable_env_checker=True, **env_config)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        known = sorted(name for name in gymnasium.registry if name.startswith("env_wrappers/"))
        raise ValueError(
            f"env={env!r}: {error} Registered text environments: {', '.join(known)}. Pass your own as a class, "
            "register it with ray.tune.register_env, or name it 'module:Name-v0' where importing the module registers "
            "it."
        ) from error
    except TypeError as error:
        raise ValueError(f"env_config={env_config!r}: {env} does not accept it: {error}") from error


def env_name(env: Any) -> str:
    """What messages call an environment: its id, or module and name of its class or function."""
    return f"{env.__module__}:{env.__qualname__}" if hasattr(env, "__qualname__") else str(env)


@contextlib.contextmanager
def _said_as_its_own(name: str, where: str) -> Iterator[None]:
    """What an environment raises before anything has started becomes an error in words, as all that a check finds.

    One that does not return is said to, every half minute: nobody else can be the reason then.
    """
    try:
        with pulse.said_while_waiting(f"{name}, {where}"):
            yield
    except (ValueError, OSError):  # they say what is wrong, or which file is not there
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{name}, {where}: raised {type(error).__name__}: {error}. Mend it: every episode would end so."
        ) from error


def begin(env: gymnasium.Env[str, str], task: str) -> tuple[str, dict[str, Any]]:
    """The first message and info of a task, "" for that of an environment without tasks.

    Raises:
        ValueError: the environment broke its contract, or raised.
        OSError: a file that it needs is not there.
    """
    with _said_as_its_own(type(env.unwrapped).__name__, f"reset of task {task!r}"):
        return env.reset(seed=0, options={"task": task} if task else None)


def chat_format(config: Any) -> ChatFormat:
    """The policy's chat template, taken apart."""
    return ChatFormat.from_tokenizer(
        load_tokenizer(config.pretrained),
        config.system_message,
        template_kwargs=config.chat_template_kwargs,
        today=config.chat_template_date,
    )


def split_tasks(env: gymnasium.Env[str, str], config: Any) -> list[str]:
    """Task ids of the training split; one empty id if the environment knows no tasks.

    Raises:
        ValueError: the split has none, or a task order needs them and the environment knows none.
    """
    bare: Any = env.unwrapped
    if not hasattr(bare, "tasks"):
        if as_entries("task_order", config.task_order)["name"] != "epochs":
            raise ValueError(
                f"task_order={config.task_order!r}: {env_name(config.env)} lists no tasks to choose among; give it a "
                "method tasks(split), see docs/own_environment.md, or set task_order='epochs'."
            )
        return [""]

    def refuse(rule: str, what: str, remedy: str) -> None:
        raise ContractError(f"{type(bare).__name__}, tasks({config.split!r}): {what}. {remedy}")

    with _said_as_its_own(type(bare).__name__, f"tasks({config.split!r})"):
        tasks = read_tasks(bare.tasks(config.split), refuse)
    if not tasks:
        raise ValueError(
            f"split={config.split!r}: {env_name(config.env)} has no task in it with "
            f"env_config={dict(config.env_config)}; choose another split or loosen the filters."
        )
    return tasks


def check_first_prompt(config: Any) -> list[int]:
    """Token ids of the first prompt of the first task: finds a wrong environment, template or context length at once.

    Plays one turn, since what a step returns is asked as much of as what a reset does.

    Raises:
        ValueError: the environment, the split, the chat template or the context length is wrong; says which.
    """
    chat = chat_format(config)
    positions = max_positions(config.pretrained)
    if positions is not None and config.max_model_len > positions:
        raise ValueError(
            f"max_model_len={config.max_model_len}: {config.pretrained} has only {positions} positions; lower "
            "max_model_len, or take a model with a longer context."
        )
    env = make_text_env(config)
    try:
        task = split_tasks(env, config)[0]
        message, info = begin(env, task)
        _try_a_step(env, info)
    finally:
        env.close()
    conversation = Conversation(chat, append=True)
    conversation.say(message)
    room = config.max_model_len - config.max_response_tokens
    if len(conversation.token_ids) > room:
        raise ValueError(
            f"max_model_len={config.max_model_len}: the first prompt of task {task!r} has "
            f"{len(conversation.token_ids)} tokens, and max_response_tokens={config.max_response_tokens} leave room "
            f"for {room}; raise max_model_len or shorten the prompt."
        )
    return conversation.token_ids


def _try_a_step(env: gymnasium.Env[str, str], info: Mapping[str, Any]) -> None:
    action = next((a for a in info.get("admissible_actions", ()) if "<" not in a), PLAIN_ACTIONS[0])
    with _said_as_its_own(type(env.unwrapped).__name__, f"step({action!r})"):
        env.step(action)

"""Making environments from the config, lending them to episodes, and calling them without holding up the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium

import env_wrappers  # noqa: F401 (registers its environments with Gymnasium)
from env_wrappers.prompting import wrap
from proxmo_rllib.policies.loading import load_tokenizer
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation


def make_text_env(config: Any, env: Any = None, env_config: Mapping[str, Any] | None = None) -> gymnasium.Env[str, str]:
    """An environment inside the configured prompting wrappers.

    Args:
        config: a ProxMOConfig. Its `env` is a Gymnasium id, an environment class, a callable that takes `env_config`,
            or a name registered with Ray Tune.
        env: another environment than the config's.
        env_config: its settings.
    """
    bare = make_bare_env(
        config.env if env is None else env, dict(config.env_config if env is None else env_config or {})
    )
    return wrap(
        bare,
        style=config.response_style,
        template=config.template,
        history=config.history,
        show_admissible=config.show_admissible,
        invalid_action_penalty=config.invalid_action_penalty,
    )


def make_bare_env(env: Any, env_config: dict[str, Any]) -> gymnasium.Env[str, str]:
    """The environment itself.

    Raises:
        ValueError: there is no such environment, or it does not accept its settings.
    """
    if callable(env):
        return env(**env_config) if isinstance(env, type) else env(env_config)
    from ray.tune.registry import ENV_CREATOR, _global_registry

    if _global_registry.contains(ENV_CREATOR, env):
        creator = _global_registry.get(ENV_CREATOR, env)
        made: gymnasium.Env[str, str] = creator(env_config)
        return made
    try:
        return gymnasium.make(env, disable_env_checker=True, **env_config)
    except gymnasium.error.Error as error:
        known = sorted(name for name in gymnasium.registry if name.startswith("env_wrappers/"))
        raise ValueError(
            f"env={env!r}: {error} Registered text environments: {', '.join(known)}. Register your own with "
            "gymnasium.register or ray.tune.register_env, or pass its class."
        ) from error
    except TypeError as error:
        raise ValueError(f"env_config={env_config!r}: {env} does not accept it: {error}") from error


def chat_format(config: Any) -> ChatFormat:
    """The policy's chat template, taken apart."""
    return ChatFormat.from_tokenizer(load_tokenizer(config.pretrained), config.system_message)


def split_tasks(env: gymnasium.Env[str, str], config: Any) -> list[str]:
    """Task ids of the training split; one empty id if the environment knows no tasks.

    Raises:
        ValueError: the split has none.
    """
    bare: Any = env.unwrapped
    if not hasattr(bare, "tasks"):
        return [""]
    tasks = list(bare.tasks(config.split))
    if not tasks:
        raise ValueError(
            f"split={config.split!r}: {config.env} has no task in it with env_config={dict(config.env_config)}; choose "
            "another split or loosen the filters."
        )
    return tasks


def check_first_prompt(config: Any) -> list[int]:
    """Token ids of the first prompt of the first task: finds a wrong environment, template or context length at once.

    Raises:
        ValueError: the environment, the split, the chat template or the context length is wrong; says which.
    """
    chat = chat_format(config)
    env = make_text_env(config)
    try:
        task = split_tasks(env, config)[0]
        message, _ = env.reset(seed=0, options={"task": task} if task else None)
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


class Lease:
    """An environment that one episode has to itself.

    A blocking environment is called in a thread, so that the others go on; one that says that it is not thread-safe, or
    that it never blocks (`metadata`), is called directly.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[str, str]], env: Any, threads: ThreadPoolExecutor) -> None:
        self.env: gymnasium.Env[str, str] = env
        self._make = make
        metadata = env.unwrapped.metadata
        self._threads = threads if metadata.get("blocking", True) and metadata.get("thread_safe", True) else None

    def replace(self) -> None:
        """A new environment in place of a broken one."""
        with contextlib.suppress(Exception):  # it is broken already; what counts is the new one
            self.env.close()
        self.env = self._make()

    async def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a method of the environment."""
        if self._threads is None:
            return method(*args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: method(*args, **kwargs))


class EnvPool:
    """Lends environments to episodes; makes them when needed, up to a limit, and uses them again.

    Args:
        make: makes one environment.
        limit: environments at most, which bounds the episodes played at once.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[str, str]], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._free: list[gymnasium.Env[str, str]] = []
        self._probe: gymnasium.Env[str, str] | None = None
        self._threads = ThreadPoolExecutor(max_workers=min(limit, 64), thread_name_prefix="env")
        self._gate: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    def probe(self) -> gymnasium.Env[str, str]:
        """One environment for questions about spaces and tasks; it is lent to episodes too."""
        if self._probe is None:
            self._probe = self._make()
            self._free.append(self._probe)
        return self._probe

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncIterator[Lease]:
        """Waits for a free environment."""
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate[0] is not loop:
            self._gate = (loop, asyncio.Semaphore(self._limit))
        async with self._gate[1]:
            env = self._free.pop() if self._free else self._make()
            lease = Lease(self._make, env, self._threads)
            yield lease
            self._free.append(lease.env)

    def close(self) -> None:
        """Closes the free environments."""
        for env in self._free:
            env.close()
        self._free.clear()
        self._threads.shutdown(wait=False)

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
from proxmo_rllib.policies.loading import load_tokenizer, max_positions
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation

_MAX_THREADS = 64
#: What an environment's info must say, since nothing else does: a reward may be shaped, an end may be a failure.
SUCCESS_MISSING = (
    "its info has no key 'success'. Put it into the info of reset and of every step: False until the task is solved, "
    "then True"
)


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
        try:
            return env(**env_config) if isinstance(env, type) else env(env_config)
        except TypeError as error:
            how = "its keyword arguments" if isinstance(env, type) else "one dictionary"
            raise ValueError(
                f"env_config={env_config!r}: {env.__name__} does not accept it as {how}: {error}"
            ) from error
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
    positions = max_positions(config.pretrained)
    if positions is not None and config.max_model_len > positions:
        raise ValueError(
            f"max_model_len={config.max_model_len}: {config.pretrained} has only {positions} positions; lower "
            "max_model_len, or take a model with a longer context."
        )
    env = make_text_env(config)
    try:
        task = split_tasks(env, config)[0]
        message, info = env.reset(seed=0, options={"task": task} if task else None)
    finally:
        env.close()
    if not isinstance(info["anchor"], str):
        raise ValueError(
            f"env={config.env!r}: reset returned an observation of type {type(info['anchor']).__name__}; an agent that "
            "reads needs a str. Wrap the environment in one that says its observations in words."
        )
    if "success" not in info:
        raise ValueError(f"env={config.env!r}: {SUCCESS_MISSING}.")
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


class EnvPool:
    """Lends environments to episodes; makes them when needed, up to a limit, and uses them again.

    A blocking environment is made and called in threads, so that the other episodes go on. One that says that it never
    blocks, or that it is not thread-safe (`metadata`), is made and called directly.

    Args:
        make: makes one environment.
        limit: environments at most, which bounds the episodes played at once.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[str, str]], limit: int) -> None:
        self._make = make
        self._limit = limit
        #: One environment for questions about spaces and tasks; it is lent to episodes too.
        self.probe = make()
        self._free = [self.probe]
        metadata: Mapping[str, Any] = self.probe.unwrapped.metadata
        in_threads = metadata.get("blocking", True) and metadata.get("thread_safe", True)
        self._threads = ThreadPoolExecutor(min(limit, _MAX_THREADS), "env") if in_threads else None
        self._gate: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncIterator[Lease]:
        """Waits until one more environment may be used."""
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate[0] is not loop:
            self._gate = (loop, asyncio.Semaphore(self._limit))
        async with self._gate[1]:
            lease = Lease(self)
            try:
                yield lease
            except BaseException:
                # Cancelled in the middle of a call, perhaps: nobody knows what state it is in.
                lease.discard()
                raise
            finally:
                if lease.env is not None:
                    self._free.append(lease.env)

    async def take(self) -> gymnasium.Env[str, str]:
        """A free environment, or a new one. Raises whatever its constructor raises."""
        if self._free:
            return self._free.pop()
        made: gymnasium.Env[str, str] = await self.run(self._make)
        return made

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a function of an environment without holding up the other episodes, where that can be."""
        if self._threads is None:
            return function(*args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))

    def throw_away(self, env: gymnasium.Env[str, str]) -> None:
        """Closes a broken environment; nobody waits for it or hears whether it worked."""
        if self._threads is None:
            _close_quietly(env)
        else:
            self._threads.submit(_close_quietly, env)

    def close(self) -> None:
        """Closes the free environments."""
        for env in self._free:
            env.close()
        self._free.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False)


class Lease:
    """The environment that one episode has to itself.

    Attributes:
        env: None before the first `reset`, and after `discard`.
    """

    def __init__(self, pool: EnvPool) -> None:
        self._pool = pool
        self.env: gymnasium.Env[str, str] | None = None

    async def reset(self, *, seed: int, options: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
        """As the environment's; gets it first if need be."""
        if self.env is None:
            self.env = await self._pool.take()
        result: tuple[str, dict[str, Any]] = await self._pool.run(self.env.reset, seed=seed, options=options)
        return result

    async def step(self, response: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """As the environment's."""
        assert self.env is not None, "reset comes first"
        result: tuple[str, float, bool, bool, dict[str, Any]] = await self._pool.run(self.env.step, response)
        return result

    def discard(self) -> None:
        """The environment is broken: the next episode gets another."""
        if self.env is not None:
            self._pool.throw_away(self.env)
            self.env = None


def _close_quietly(env: gymnasium.Env[str, str]) -> None:
    with contextlib.suppress(Exception):  # it is broken already
        env.close()

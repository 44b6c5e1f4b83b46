"""The HTTP server: who may ask, for which episode, and how errors look. It knows nothing of tokens.

It has a thread of its own, so that it answers also between two iterations of a training. What an episode is asked runs
on the event loop that the episode was opened on.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any, TypeVar

from aiohttp import web

from proxmo_rllib.endpoint.chat_request import read_request
from proxmo_rllib.endpoint.errors import ChatError
from proxmo_rllib.endpoint.open_episode import OpenEpisode
from proxmo_rllib.endpoint.programs import AgentEpisode, read_outcome
from proxmo_rllib.endpoint.wire import completion_events, completion_json, model_json, models_json

logger = logging.getLogger(__name__)

EPISODE_HEADER = "X-Episode-Id"
_MAX_BODY = 16 << 20  # bytes of a request
_START_S = 30.0
_EPISODE_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")
#: Seconds for which a program that asks for an episode waits, before it is told to ask again.
_LONG_POLL_S = 20.0
T = TypeVar("T")
# What makes an episode out of an id that nobody knows, and the task that the client says, if any.
Opener = Callable[[str, str], Coroutine[Any, Any, OpenEpisode]]


class EndpointServer:
    """Serves the policy to agent programs, from a thread.

    Args:
        host: address to listen at.
        port: 0 for a free one.
        token: that every request has to bring.
        model: the name by which the policy is asked for.
        opener: opens the episodes that clients ask for; None where the trainer opens them.

    Attributes:
        url: where it listens.

    Raises:
        ValueError: it cannot listen there; names the remedy.
    """

    def __init__(self, host: str, port: int, token: str, model: str, opener: Opener | None = None) -> None:
        self._token = token.encode()
        self.token = token
        self.model = model
        self._opener = opener
        self._episodes: dict[str, OpenEpisode] = {}
        self._waiting: deque[AgentEpisode] = deque()
        self._offered = asyncio.Event()
        self._opening = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._runner = web.AppRunner(
            self._application(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0
        )
        threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True).start()
        try:
            bound = self._on_own_loop(self._start(host, port)).result(_START_S)
        except OSError as error:
            self._loop.call_soon_threadsafe(self._loop.stop)
            raise ValueError(
                f"host={host!r}, port={port}: {error.strerror or error}. Give another port, or 0 for a free one."
            ) from error
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{bound}"

    def stop(self) -> None:
        """Ends it. Idempotent."""
        if self._loop.is_running():
            self._on_own_loop(self._runner.cleanup()).result(_START_S)
            self._loop.call_soon_threadsafe(self._loop.stop)

    def add(self, key: str, episode: OpenEpisode) -> None:
        """From now on requests for `key` are the episode's."""
        self._episodes[key] = episode

    def remove(self, key: str) -> None:
        """Requests for `key` find nothing any more."""
        self._episodes.pop(key, None)

    def base_url(self, key: str) -> str:
        """Of OpenAI's API, for one episode."""
        return f"{self.url}/episodes/{key}/v1"

    def reward_url(self, key: str) -> str:
        """Where the reward of an episode is posted."""
        return f"{self.url}/episodes/{key}/reward"

    def offer(self, told: AgentEpisode) -> None:
        """Gives an episode to the program that asks next. Called in any thread."""

        def add() -> None:
            self._waiting.append(told)
            self._offered.set()

        self._loop.call_soon_threadsafe(add)

    def withdraw(self, told: AgentEpisode) -> None:
        """Nobody is given the episode any more. Called in any thread."""

        def take() -> None:
            if told in self._waiting:
                self._waiting.remove(told)

        self._loop.call_soon_threadsafe(take)

    def _on_own_loop(self, work: Coroutine[Any, Any, T]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _start(self, host: str, port: int) -> int:
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        return int(self._runner.addresses[0][1])

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY, middlewares=[self._guard])
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model}", self._model)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/episodes/{episode}/v1/models", self._models)
        app.router.add_get("/episodes/{episode}/v1/models/{model}", self._model)
        app.router.add_post("/episodes/{episode}/v1/chat/completions", self._complete)
        app.router.add_post("/episodes/{episode}/reward", self._reward)
        app.router.add_post("/episodes/next", self._next)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Asks for the token, and says every error in OpenAI's form."""
        try:
            self._check_token(request)
            return await handler(request)  # type: ignore[no-any-return]
        except ChatError as error:
            refused = error
        except web.HTTPException as error:
            what = f"{request.method} {request.path}: {error.reason}"
            remedy = {
                404: "there are /episodes/ID/v1/chat/completions, /episodes/ID/v1/models and /episodes/ID/reward",
                413: f"a request has up to {_MAX_BODY >> 20} MiB",
            }.get(error.status, "see docs/endpoint.md")
            refused = ChatError(error.status, f"{what}; {remedy}.")
        except Exception:  # ours: the client hears of it, and the log has where
            logger.exception("%s %s broke.", request.method, request.path)
            refused = ChatError(500, "The endpoint broke over the request; its log says where.")
        headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
        return web.json_response(refused.as_json(), status=refused.status, headers=headers)

    def _check_token(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(_bytes(given.strip()), self._token):
            raise ChatError(
                401,
                "Authorization: the token is missing or wrong; give the endpoint's token as the API key "
                "(OPENAI_API_KEY).",
                code="invalid_api_key",
            )

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(models_json(self.model))

    async def _model(self, request: web.Request) -> web.StreamResponse:
        self._check_model(request.match_info["model"])
        return web.json_response(model_json(self.model))

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked = read_request(await _json(request))
        self._check_model(asked.model)
        episode = await self._episode(request)
        answer = await _on_its_loop(episode, lambda: episode.complete(asked))
        if not asked.stream:
            return web.json_response(completion_json(answer, asked))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        for event in completion_events(answer, asked):
            await response.write(event.encode())
        await response.write_eof()
        return response

    async def _reward(self, request: web.Request) -> web.StreamResponse:
        outcome = read_outcome(await _json(request))
        episode = await self._episode(request)

        async def close() -> None:
            episode.close(outcome)

        await _on_its_loop(episode, close)
        return web.json_response({"turns": len(episode.turns), **asdict(outcome)})

    async def _next(self, request: web.Request) -> web.StreamResponse:
        """The next episode that nobody plays; 204 if there is none for a while."""
        if self._opener is not None:
            raise ChatError(
                404, "POST /episodes/next: there is no trainer here that wants episodes played; choose an id yourself."
            )
        try:
            async with asyncio.timeout(_LONG_POLL_S):
                while not self._waiting:
                    self._offered.clear()
                    await self._offered.wait()
        except TimeoutError:
            return web.Response(status=204)
        told = self._waiting.popleft()
        body = asdict(told)
        del body["api_key"]  # who asks has it
        return web.json_response(body)

    async def _episode(self, request: web.Request) -> OpenEpisode:
        key = request.match_info.get("episode") or request.headers.get(EPISODE_HEADER)
        if key is None:
            raise ChatError(
                400,
                f"Which episode? Use the base URL {self.url}/episodes/ID/v1, or send the header {EPISODE_HEADER}.",
                code="episode_missing",
            )
        if not _EPISODE_ID.fullmatch(key):
            raise ChatError(
                400, f"episode={key!r:.200}: an id has letters, digits, '_', '-' and '.', up to 200.", param="episode"
            )
        async with self._opening:
            episode = self._episodes.get(key)
            if episode is None and self._opener is not None:
                episode = await self._opener(key, request.headers.get("X-Task", key))
                self._episodes[key] = episode
        if episode is None:
            raise ChatError(
                404,
                f"episode={key!r}: no such episode is open; it has ended, or the trainer gave it up.",
                code="episode_not_found",
            )
        return episode

    def _check_model(self, model: str) -> None:
        if model != self.model:
            raise ChatError(
                404,
                f"model={model!r}: {self.model!r} is served here, the policy; ask for that, or have it served by the "
                "name that the program asks for.",
                code="model_not_found",
                param="model",
            )


def _bytes(header: str) -> bytes:
    """Of a header, whatever a client put into it."""
    return header.encode("utf-8", "surrogateescape")


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise ChatError(400, f"The body is no JSON: {error}.") from error


async def _on_its_loop(episode: OpenEpisode, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    coroutine = work()
    try:
        running = asyncio.run_coroutine_threadsafe(coroutine, episode.loop)
    except RuntimeError as error:  # the loop is closed: whoever opened it is gone
        coroutine.close()
        raise ChatError(410, "The episode has ended: ask for nothing more in it.", code="episode_closed") from error
    return await asyncio.wrap_future(running)

"""Who is let into the server: whoever has the key. vLLM's own `--api-key` leaves paths open that generate text too."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

#: Environment variable with the key; on a command line every user of the machine would read it.
KEY = "PROXMO_API_KEY"
#: Answers without a key, with nothing but whether the server lives.
OPEN_PATH = "/health"

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Gate:
    """ASGI middleware that vLLM's server is given by name (`--middleware`).

    Args:
        app: what is behind the gate.

    Raises:
        KeyError: the environment has no key.
    """

    def __init__(self, app: Callable[[_Scope, _Receive, _Send], Awaitable[None]]) -> None:
        self._app = app
        self._expected = f"Bearer {os.environ[KEY]}".encode()

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] == OPEN_PATH or self._is_let_in(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            message = "Wrong or missing key: send the header `Authorization: Bearer KEY`, which `proxmo serve` printed."
            body = json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": 401}}).encode()
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _is_let_in(self, scope: _Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return secrets.compare_digest(given, self._expected)

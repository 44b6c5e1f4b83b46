"""Without the key nothing of the server answers but whether it lives."""

from __future__ import annotations

import asyncio
import json

import pytest

from proxmo_rllib.serving.access import KEY, Gate


async def inside(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def ask(path: str, authorization: str | None, kind: str = "http") -> list[dict]:
    """What the gate sends for one request."""
    headers = [] if authorization is None else [(b"authorization", authorization.encode())]
    sent: list[dict] = []

    async def send(message) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {}

    asyncio.run(Gate(inside)({"type": kind, "path": path, "headers": headers}, receive, send))
    return sent


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(KEY, "right")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/invocations", "/tokenize", "/metrics", "/"])
@pytest.mark.parametrize(
    "said", [None, "", "right", "Bearer wrong", "Bearer right ", "Bearer right\xe9", "Basic right"]
)
def test_who_has_no_key_gets_nothing_from_any_path(path, said):
    start, body = ask(path, said)
    assert start["status"] == 401
    assert "key" in json.loads(body["body"])["error"]["message"]
    assert b"inside" not in body["body"]


def test_who_has_it_is_let_in_and_health_needs_none():
    assert ask("/v1/models", "Bearer right")[1]["body"] == b"inside"
    assert ask("/health", None)[1]["body"] == b"inside"
    assert ask("/health/../v1/models", None)[0]["status"] == 401


def test_a_websocket_without_the_key_is_closed():
    assert ask("/v1/realtime", None, "websocket") == [{"type": "websocket.close", "code": 1008}]


def test_a_server_without_a_key_does_not_start(monkeypatch):
    monkeypatch.delenv(KEY)
    with pytest.raises(KeyError, match=KEY):
        Gate(inside)

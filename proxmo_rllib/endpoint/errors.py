"""Errors as OpenAI's API has them."""

from __future__ import annotations

from typing import Any


class ChatError(Exception):
    """A request that is refused.

    Args:
        status: of HTTP. 408, 409, 429 and those from 500 have OpenAI's clients try again.
        message: names the thing, the value and the remedy.
        code: for programs, such as "context_length_exceeded".
        param: the field of the request that it is about.
    """

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def as_json(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = {401: "authentication_error", 404: "not_found_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def refuse(param: str, value: object, remedy: str) -> ChatError:
    """The error for a field that cannot be followed."""
    return ChatError(400, f"{param}={value!r:.200}: {remedy}", param=param, code="unsupported_value")

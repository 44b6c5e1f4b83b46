"""What the fuzz tests share: how many inputs, and where wrong ones come from.

`make fuzz` tries ten thousand inputs a test, the quick tests two hundred; the same ones every time.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("PROXMO_FUZZ_EXAMPLES", "200"))

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

HALF = "\ud83e"  # of an emoji
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 10**400, math.nan, math.inf, 2**63])
WORDS = st.text(st.characters(), max_size=20) | st.sampled_from(
    ["", " ", "\x00", HALF, "None", "NaN", "1e999", "../..", "/", "a" * 5000, "\u202e", "{}", "[]", "<|im_end|>"]
)
# What json.loads can return.
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def changed(draw: Any, document: Any) -> Any:
    """The JSON document with one or two of its parts replaced, taken out, or doubled."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        holder, key = draw(st.sampled_from(list(_places(document)) or [(None, None)]))
        if holder is None:
            return draw(JSON)
        match draw(st.sampled_from(["replace", "replace", "drop", "whole"])):
            case "replace":
                holder[key] = draw(JSON)
            case "drop":
                del holder[key]
            case "whole":
                return draw(JSON)
    return document


def _places(document: Any) -> Any:
    """Every (container, key) in it, those of a long list but the first few left out."""
    if isinstance(document, dict):
        entries = list(document.items())
    elif isinstance(document, list):
        entries = list(enumerate(document))[:3]
    else:
        return
    for key, value in entries:
        yield document, key
        yield from _places(value)


@st.composite
def damaged(draw: Any, content: bytes) -> bytes:
    """The bytes of a file cut off, with bytes changed, put in or taken out; or other bytes altogether."""
    place = draw(st.integers(0, len(content)))
    other = draw(st.binary(max_size=12) | st.sampled_from([b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"[" * 100_000]))
    match draw(st.sampled_from(["cut", "change", "insert", "remove", "replace"])):
        case "cut":
            return content[:place]
        case "change":
            return content[:place] + other + content[place + len(other) :]
        case "insert":
            return content[:place] + other + content[place:]
        case "remove":
            return content[:place] + content[place + draw(st.integers(1, 200)) :]
        case _:
            return other


def files(document: Any) -> st.SearchStrategy[bytes]:
    """Files that were to hold the JSON document: another document, or its bytes damaged."""
    return changed(document).map(as_bytes) | damaged(as_bytes(document))


def lines(*documents: Any) -> st.SearchStrategy[bytes]:
    """Files that were to hold a JSON document a line."""
    good = [as_bytes(document) for document in documents]

    def with_one(place: int) -> st.SearchStrategy[bytes]:
        before, after = b"\n".join(good[:place]), b"\n".join(good[place + 1 :])
        return files(documents[place]).map(
            lambda bad: b"\n".join(part for part in (before, bad, after) if part) + b"\n"
        )

    return st.integers(0, len(good) - 1).flatmap(with_one) | damaged(b"\n".join(good) + b"\n")


def as_bytes(document: Any) -> bytes:
    return json.dumps(document).encode()


def outcome(call: Callable[[], Any], *refusals: type[Exception]) -> tuple[Any, str | None]:
    """What a call returned, or None and in which words it refused to; any other exception is a crash."""
    try:
        return call(), None
    except refusals as error:
        return None, str(error)

"""What OpenAI's own client sees, and what is captured of it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import openai
import pytest

from proxmo_rllib.types import Status


def say(client: openai.OpenAI, messages: list[dict[str, str]], **settings: Any) -> str:
    reply = client.chat.completions.create(model="policy", messages=messages, **settings)
    return str(reply.choices[0].message.content)


def post(url: str, body: Any, token: str) -> Any:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_a_conversation_is_one_sequence_of_the_sampled_tokens(desk: Any):
    answers = iter(["go north", " take lamp ", "look"])
    episode = desk.open("e", lambda prompt: next(answers))
    client = desk.client("e")
    messages = [user("You are in a hall.")]
    for _ in range(3):
        reply = say(client, messages)
        messages += [assistant(reply.strip()), user("You did that.")]  # many programs strip
    first, second, third = episode.turns
    assert not first.appended
    assert second.appended
    assert third.appended
    # Every prompt is the one before, what was sampled, and what is new.
    for turn, prompt, following in zip(episode.turns, desk.prompts, desk.prompts[1:], strict=False):
        assert following[: len(prompt) + len(turn.response_ids)] == [*prompt, *turn.response_ids.tolist()]
    assert [turn.anchor for turn in episode.turns] == ["You are in a hall.", "You did that.", "You did that."]
    assert second.response == " take lamp "
    assert second.policy_version == 7
    np.testing.assert_array_equal(second.logprobs, -np.arange(1, len(second.response_ids) + 1))


def test_a_reward_closes_the_episode(desk: Any):
    episode = desk.open("e", lambda prompt: "go")
    client = desk.client("e")
    say(client, [user("a")])
    say(client, [user("b")])
    url = desk.server.reward_url("e")
    assert post(url, {"reward": 0.5, "success": True}, desk.server.token)["turns"] == 2
    assert episode.closed.done()
    assert episode.status() is Status.SUCCESS
    assert [turn.reward for turn in episode.finished_turns()] == [0.0, 0.5]
    with pytest.raises(openai.APIStatusError, match="has ended") as refused:
        say(client, [user("c")])
    assert refused.value.status_code == 410
    with pytest.raises(urllib.error.HTTPError) as again:
        post(url, {"reward": 0.5, "success": True}, desk.server.token)
    assert again.value.code == 410
    assert len(episode.turns) == 2

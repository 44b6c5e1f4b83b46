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


def test_it_knows_nobody_without_the_token(desk: Any):
    desk.open("e", lambda prompt: "go")
    for token in ("", "wrong", desk.server.token + "x", "é"):
        for url in (desk.server.reward_url("e"), desk.server.base_url("e") + "/chat/completions"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                post(url, {}, token)
            assert refused.value.code == 401
    with pytest.raises(openai.AuthenticationError, match="OPENAI_API_KEY"):
        say(desk.client("e", token="wrong"), [user("a")])


def test_errors_name_what_is_wrong_in_openais_form(desk: Any):
    desk.open("e", lambda prompt: "go", max_turns=1, max_prompt_tokens=50)
    client = desk.client("e")
    for settings, param in [({"n": 2}, "n"), ({"presence_penalty": 0.5}, "presence_penalty"), ({"stop": [""]}, "stop")]:
        with pytest.raises(openai.BadRequestError) as refused:
            say(client, [user("a")], **settings)
        assert refused.value.param == param
        assert param in refused.value.message
    with pytest.raises(openai.NotFoundError, match="'policy' is served here"):
        client.chat.completions.create(model="gpt-4o", messages=[user("a")])
    with pytest.raises(openai.BadRequestError) as long:
        say(client, [user("lamp " * 100)])
    assert long.value.code == "context_length_exceeded"
    say(client, [user("a")])
    with pytest.raises(openai.BadRequestError) as over:
        say(client, [user("a")])
    assert over.value.code == "turn_limit_exceeded"
    with pytest.raises(openai.NotFoundError) as unknown:
        say(desk.client("another"), [user("a")])
    assert unknown.value.code == "episode_not_found"
    with pytest.raises(urllib.error.HTTPError) as elsewhere:
        post(desk.server.url + "/v1/embeddings", {}, desk.server.token)
    assert elsewhere.value.code == 404
    assert "/episodes/ID/v1/chat/completions" in json.loads(elsewhere.value.read())["error"]["message"]
    with pytest.raises(urllib.error.HTTPError) as big:
        post(desk.server.base_url("e") + "/chat/completions", {"user": "x" * (17 << 20)}, desk.server.token)
    assert big.value.code == 413


def test_a_reward_says_itself_whether_the_task_is_solved(desk: Any):
    episode = desk.open("e", lambda prompt: "go")
    url, token = desk.server.reward_url("e"), desk.server.token
    with pytest.raises(urllib.error.HTTPError) as early:
        post(url, {"reward": 1.0, "success": True}, token)
    assert "a reward came before any response" in early.value.read().decode()
    say(desk.client("e"), [user("a")])
    for wrong in ({"reward": 1.0}, {"success": True}, {"reward": "1", "success": True}, {"reward": 1, "success": 1}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(url, wrong, token)
        assert refused.value.code == 400
    assert not episode.closed.done()
    post(url, {"reward": 5.0, "success": False, "score": 0.5}, token)
    assert episode.status() is Status.FAILURE


def test_streams_and_models_and_the_header(desk: Any):
    desk.open("e", lambda prompt: "go north")
    client = desk.client("e")
    chunks = list(
        client.chat.completions.create(
            model="policy", messages=[user("a")], stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "go north"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens > 1
    assert [model.id for model in client.models.list()] == ["policy"]
    by_header = openai.OpenAI(
        base_url=desk.server.url + "/v1",
        api_key=desk.server.token,
        default_headers={"X-Episode-Id": "e"},
        max_retries=0,
    )
    assert say(by_header, [user("a")]) == "go north"
    with pytest.raises(openai.BadRequestError, match="X-Episode-Id"):
        say(by_header.with_options(default_headers={"X-Episode-Id": openai.Omit()}), [user("a")])


def test_logprobs_are_those_of_the_sampled_tokens(desk: Any):
    episode = desk.open("e", lambda prompt: "go north")
    reply = desk.client("e").chat.completions.create(model="policy", messages=[user("a")], logprobs=True)
    logprobs = [entry.logprob for entry in reply.choices[0].logprobs.content]
    assert logprobs == episode.turns[0].logprobs.tolist()
    assert "".join(entry.token for entry in reply.choices[0].logprobs.content).startswith("go north")


def test_a_stop_text_ends_a_response_behind_the_token_that_completes_it(desk: Any):
    answers = iter(["Action: look\nObservation: a lie\nAction: lie", "done"])
    episode = desk.open("e", lambda prompt: next(answers))
    messages = [user("Begin.")]
    messages.append(assistant(say(desk.client("e"), messages, stop=["\nObservation:"])))
    assert messages[-1]["content"] == "Action: look"
    say(desk.client("e"), [*messages, user("Observation: a lamp")])
    first, second = episode.turns
    assert first.response.startswith("Action: look\nObservation:")
    assert "lie" not in first.response
    assert len(first.logprobs) == len(first.response_ids)
    assert second.appended
    assert "lie" not in desk.chat.tokenizer.decode(desk.prompts[1])


def test_max_tokens_keeps_a_beginning(desk: Any):
    episode = desk.open("e", lambda prompt: "one two three four five")
    reply = desk.client("e").chat.completions.create(model="policy", messages=[user("a")], max_tokens=2)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == len(episode.turns[0].response_ids) == 2
    assert episode.turns[0].cut

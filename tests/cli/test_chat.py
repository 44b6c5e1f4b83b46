"""`proxmo chat`: a conversation that goes on, whose thoughts are shown as such, at a terminal and through a pipe."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from proxmo_rllib.cli.chat import Screen, converse, main
from proxmo_rllib.policies import load_tokenizer
from proxmo_rllib.rollouts.conversation import ChatFormat
from proxmo_rllib.serving.chat import PolicyTalker, Reply, Sampling, ServedTalker
from proxmo_rllib.types import Completion

TINY = "asset:alfworld-tiny"


def say(monkeypatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_messages_through_a_pipe_get_replies_and_nothing_else(monkeypatch, capsys):
    say(monkeypatch, "You are in a room.\n\nWhat now?\n/quit\nnever said\n")
    assert main([TINY, "--temperature", "0", "--max-tokens", "12"]) == 0
    first = capsys.readouterr()
    assert 1 <= len(first.out.strip().splitlines()) <= 4
    assert "> " not in first.out
    assert "A tiny model (1." in first.err
    assert "/reset begins anew" in first.err
    say(monkeypatch, "You are in a room.\n/reset\nYou are in a room.")
    assert main([TINY, "--temperature", "0", "--max-tokens", "12"]) == 0
    one, two = capsys.readouterr().out.strip().splitlines()
    assert one == two


class Echo:
    """An engine that says what it was given, and keeps it."""

    def __init__(self, chat: ChatFormat, says: str) -> None:
        self.prompts: list[str] = []
        self._chat = chat
        self._says = says

    async def generate(self, ids, params) -> Completion:
        self.prompts.append(self._chat.tokenizer.decode(list(ids)))
        self.params = params
        said = np.array([*self._chat.encode_text(self._says), self._chat.stop_token_ids[0]], np.int32)
        return Completion(said, np.zeros(len(said), np.float32), "stop", 0)

    def close(self) -> None:
        """Nothing to end."""


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat.from_tokenizer(load_tokenizer(TINY))


def test_the_conversation_is_kept_until_it_is_reset(chat):
    engine = Echo(chat, "look")
    talker = PolicyTalker(engine, chat, 2048)
    for message in ("first", "second"):
        assert talker.reply(message, Sampling(), print) == Reply("look", None, cut_off=False)
    talker.reset()
    talker.reply("third", Sampling(), print)
    assert "first" in engine.prompts[1]
    assert engine.prompts[1].count("look") == 1
    assert "first" not in engine.prompts[2]


def test_a_thought_is_shown_as_one(monkeypatch, capsys):
    class Thinker:
        def reply(self, message, sampling, show) -> Reply:
            return Reply("go to bed 1", "it is late", cut_off=True)

        def reset(self) -> None:
            raise AssertionError

    say(monkeypatch, "what now?\n")
    assert converse(Thinker(), None, Sampling(), Screen()) == 0
    said = capsys.readouterr()
    assert said.out == "[thinks] it is late\ngo to bed 1\n"
    assert "cut off at the limit of tokens" in said.err


def test_a_conversation_that_is_full_says_so_and_is_as_it_was(chat):
    engine = Echo(chat, "look")
    talker = PolicyTalker(engine, chat, 64)
    talker.reply("a room", Sampling(max_tokens=16), print)
    with pytest.raises(RuntimeError, match=r"has \d+ tokens with this message, of 64 that fit: /reset begins anew"):
        talker.reply("a room " * 40, Sampling(), print)
    talker.reply("a room", Sampling(max_tokens=16), print)
    assert engine.prompts[-1].count("a room") == 2


def test_sampling_is_set_while_one_talks(monkeypatch, capsys, chat):
    engine = Echo(chat, "look")
    say(monkeypatch, "/temperature 0.5\n/tokens 9\nhello\n/temperature warm\n")
    assert converse(PolicyTalker(engine, chat, 2048), None, Sampling(seed=4), Screen()) == 1
    assert (engine.params.temperature, engine.params.max_tokens, engine.params.seed) == (0.5, 9, 4)
    assert "/temperature warm: /reset begins anew" in capsys.readouterr().err


def test_a_checkpoint_brings_tasks_of_its_environment(monkeypatch, capsys, chat):
    from proxmo_rllib import ProxMOConfig
    from proxmo_rllib.cli.chat import Tasks

    engine = Echo(chat, "look")
    say(monkeypatch, "/task\n/task nowhere\n")
    tasks = Tasks(ProxMOConfig().environment("env_wrappers/TextCraft-v0"))
    assert converse(PolicyTalker(engine, chat, 4096), tasks, Sampling(seed=1), Screen()) == 1
    assert "craft" in engine.prompts[0]
    assert "nowhere" in capsys.readouterr().err
    say(monkeypatch, "/task\n")
    assert converse(PolicyTalker(engine, chat, 4096), None, Sampling(), Screen()) == 1
    assert "nothing says which environment it was trained on" in capsys.readouterr().err


class Server(BaseHTTPRequestHandler):
    """Speaks as much of OpenAI's API as a chat needs; answers with the number of messages."""

    def do_GET(self) -> None:
        self._answer(200, json.dumps({"data": [{"id": "policy"}]}))

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != "Bearer right":
            self._answer(401, json.dumps({"error": {"message": "wrong key"}}))
            return
        pieces = ["<think>hm", f"</think>{len(request['messages'])}", " messages"]
        events = [{"choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        self._answer(200, "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n")

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_) -> None:
        """Silent."""


@pytest.fixture
def address():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_at_an_address_replies_come_in_pieces_and_the_conversation_goes_along(address):
    talker, pieces = ServedTalker(address, "right", "policy", system="Be kind."), []
    assert talker.reply("hello", Sampling(), pieces.append) == Reply("2 messages", "hm", cut_off=False)
    assert talker.reply("again", Sampling(), pieces.append).answer == "4 messages"
    talker.reset()
    assert talker.reply("anew", Sampling(), pieces.append).answer == "2 messages"
    assert "".join(pieces).count("<think>") == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ADDRESS", "--api-key", "wrong"], "401: wrong key"),
        (["ADDRESS", "--api-key", "right", "--model", "other"], "has no model 'other'; it has policy"),
        (["http://127.0.0.1:9/v1"], "does not answer (Connection refused); `proxmo serve` starts a server"),
        (["./nowhere"], "there is no such folder"),
        ([TINY, "--max-model-len", "9999"], "has only 2048 positions"),
    ],
)
def test_what_cannot_be_talked_to_is_named(words, said, address, monkeypatch, capsys):
    say(monkeypatch, "hello\n")
    with contextlib.suppress(SystemExit):
        assert main([address if word == "ADDRESS" else word for word in words]) == 1
    assert said in capsys.readouterr().err.replace("[Errno 111] ", "")


@pytest.mark.parametrize("words", [["--temperature", "-1"], ["--max-tokens", "0"], ["--temperature", "nan"]])
def test_sampling_that_is_none_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        main([TINY, *words])
    assert "must be" in capsys.readouterr().err

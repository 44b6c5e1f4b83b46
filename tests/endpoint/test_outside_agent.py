"""Programs that know nothing of this package play the groups of an environment runner."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.endpoint import AgentEpisode, Outcome, OutsideAgent
from proxmo_rllib.rollouts.env_runner import TextEnvRunner
from proxmo_rllib.rollouts.environments import check_first_prompt, make_text_env, split_tasks
from proxmo_rllib.types import Assignment, Completion, SamplingParams, Status
from tests.endpoint.conftest import completion

PROGRAM = """
import json, os, sys, urllib.request

def post(url, body):  # as a program in any language does
    headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
    return json.load(urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)))

url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
messages = [{"role": "user", "content": "Task " + os.environ["PROXMO_TASK"]}]
for turn in range(2):
    reply = post(url, {"model": os.environ["PROXMO_MODEL"], "messages": messages})
    said = reply["choices"][0]["message"]["content"]
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "and now?"}]
if os.environ["PROXMO_TASK"] == "train/1":
    sys.exit("the disk is on fire")
post(os.environ["PROXMO_REWARD_URL"], {"reward": 1.0, "success": said == "win", "score": 0.25})
"""


class SayingClient:
    """In the place of the engines."""

    def __init__(self, chat: Any, *words: str) -> None:
        self._chat, self._words = chat, words

    async def generate(self, prompt_ids: list[int], params: SamplingParams, affinity: int = 0) -> Completion:
        turn = self._chat.tokenizer.decode(prompt_ids).count("<|assistant|>")
        return completion(self._chat, self._words[(turn - 1) % len(self._words)])


@pytest.fixture
def play(chat: Any, tiny_policy: Path) -> Any:
    """Plays groups of an agent's tasks with answers in their order."""

    def run(agent: type[OutsideAgent], *tasks: str, words: tuple[str, ...] = ("go", "win"), **settings: Any) -> Any:
        config = (
            ProxMOConfig()
            .environment(agent, env_config=settings.pop("env_config", {}))
            .policy(pretrained=tiny_policy)
            .inference(max_model_len=200, max_response_tokens=8)
            .env_runners(**({"max_turns": 5, "max_concurrent_episodes": 8} | settings))
            .training(group_size=2, num_groups=2)
        )
        runner = TextEnvRunner(config=config)
        runner.connect(SayingClient(chat, *words))
        try:
            return runner.sample(
                assignments=[Assignment(f"g{n}", task, seed=n, size=2) for n, task in enumerate(tasks)]
            )
        finally:
            runner.stop()

    return run


class Numbered(OutsideAgent):
    def tasks(self, split: str) -> list[str]:
        return [f"{split}/{number}" for number in range(3)]


def test_a_command_plays_whole_groups(play: Any, tmp_path: Path):
    (tmp_path / "agent.py").write_text(PROGRAM)

    class Program(Numbered):
        command = (sys.executable, str(tmp_path / "agent.py"))

    result = play(Program, "train/0", "train/1")
    (group,) = result.groups
    assert group.group_id == "g0"
    for episode in group.episodes:
        assert episode.status is Status.SUCCESS
        assert [turn.response for turn in episode.turns] == ["go", "win"]
        assert [turn.appended for turn in episode.turns] == [False, True]
        assert [turn.reward for turn in episode.turns] == [0.0, 1.0]
        assert [turn.anchor for turn in episode.turns] == ["Task train/0", "and now?"]
        assert episode.score == 0.25
        (sequence,) = episode.sequences()
        assert len(sequence.spans) == 2
    # The program that broke costs its group, and says why.
    assert len(result.errors) == 2
    assert all("status 1" in error and "the disk is on fire" in error for error in result.errors)


def ask(episode: AgentEpisode, *texts: str) -> str:
    client = openai.OpenAI(base_url=episode.base_url, api_key=episode.api_key, max_retries=0)
    messages = [{"role": "user", "content": text} for text in texts]
    reply = client.chat.completions.create(model=episode.model, messages=messages)  # type: ignore[arg-type]
    return str(reply.choices[0].message.content)


def test_a_function_plays_and_returns_its_outcome(play: Any):
    class Function(Numbered):
        def play(self, episode: AgentEpisode) -> Any:
            said = ask(episode, f"Task {episode.task}")
            return {"reward": -1.0, "success": False} if episode.task == "train/1" else Outcome(2.0, said == "win")

    result = play(Function, "train/0", "train/1", words=("win",))
    won, lost = result.groups
    assert {(e.status, e.episode_return) for e in won.episodes} == {(Status.SUCCESS, 2.0)}
    assert {(e.status, e.episode_return) for e in lost.episodes} == {(Status.FAILURE, -1.0)}


def test_too_many_turns_truncate_an_episode(play: Any):
    class Endless(Numbered):
        def play(self, episode: AgentEpisode) -> Any:
            while True:
                ask(episode, "go on")

    result = play(Endless, "train/0", max_turns=3)
    (group,) = result.groups
    assert {e.status for e in group.episodes} == {Status.TRUNCATED}
    assert {len(e) for e in group.episodes} == {3}


def test_a_prompt_that_is_too_long_is_refused_as_openai_does_and_truncates(play: Any):
    codes = []

    class Talker(Numbered):
        def play(self, episode: AgentEpisode) -> Any:
            ask(episode, "short")
            try:
                ask(episode, "many words " * 500)
            except openai.BadRequestError as error:
                codes.append(error.code)
            return Outcome(0.0, False)

    (group,) = play(Talker, "train/0").groups
    assert codes == ["context_length_exceeded"] * 2
    assert {e.status for e in group.episodes} == {Status.TRUNCATED}


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (lambda: None, "it returned no outcome"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: {"reward": 1.0}, "success=None: say true or false"),
        (lambda: Outcome(float("nan"), True), "it is a finite number up to"),
        (lambda: {"reward": float("nan"), "success": True}, "it is a finite number up to"),
    ],
)
def test_an_episode_without_a_proper_reward_is_dropped_with_a_reason(play: Any, end: Any, why: str):
    class Careless(Numbered):
        def play(self, episode: AgentEpisode) -> Any:
            ask(episode, "hello")
            return end()

    result = play(Careless, "train/0")
    assert result.groups == ()
    assert len(result.errors) == 2
    assert all(why in error for error in result.errors)


def test_an_episode_that_is_never_closed_is_given_up(play: Any):
    class Silent(Numbered):
        command = (sys.executable, "-c", "import time; time.sleep(600)")

    result = play(Silent, "train/0", env_config={"timeout_s": 0.5})
    assert all("no reward after 0.5 s (timeout_s)" in error for error in result.errors)
    assert len(result.errors) == 2


def test_a_command_that_is_not_there_is_named(play: Any):
    class Missing(Numbered):
        command = ("no-such-program",)

    result = play(Missing, "train/0")
    assert all("command=('no-such-program',): No such file" in error for error in result.errors)


def test_what_nobody_would_read_is_refused_before_anything_starts(tiny_policy: Path):
    class Function(Numbered):
        def play(self, episode: AgentEpisode) -> Any: ...

    config = ProxMOConfig().environment(Function).policy(pretrained=tiny_policy).inference(max_model_len=200)
    assert len(split_tasks(make_text_env(config), config)) == 3
    assert check_first_prompt(config)
    with pytest.raises(ValueError, match="template='instructed': Function is an agent program"):
        make_text_env(config.copy().prompting(template="instructed"))
    with pytest.raises(ValueError, match="port=0: Numbered has no command and no method play"):
        make_text_env(config.copy().environment(Numbered))
    two = config.copy().environment(Function, env_config={"port": 8700}).env_runners(num_env_runners=2)
    with pytest.raises(ValueError, match="num_env_runners=2 would all listen there"):
        make_text_env(two)


def test_a_warm_start_shows_what_its_own_environment_has():
    """Nothing can be shown to an agent program: the recipe of guess.py serves its API twin, and is made once."""
    from tuned_examples import guess, guess_by_api

    own = guess.warm_start.in_world_of(guess.config)
    assert guess_by_api.warm_start.in_world_of(guess_by_api.config).digest() == own.digest()


def test_programs_that_come_by_themselves_are_given_episodes(play: Any, monkeypatch: Any):
    token = "of-sixteen-characters"
    monkeypatch.setenv("PROXMO_ENDPOINT_TOKEN", token)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    played = []

    def post(url: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as answer:
            return json.load(answer)

    def work() -> None:
        while len(played) < 4:
            try:
                told = post(f"http://127.0.0.1:{port}/episodes/next", {})
            except urllib.error.URLError:  # the trainer is not there yet
                time.sleep(0.05)
                continue
            ask(AgentEpisode(api_key=token, **told), f"Task {told['task']}")
            post(told["reward_url"], {"reward": 1.0, "success": True})
            played.append(told["task"])

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    result = play(Numbered, "train/0", "train/2", env_config={"port": port})
    worker.join(30)
    assert sorted(played) == ["train/0", "train/0", "train/2", "train/2"]
    assert {e.status for group in result.groups for e in group.episodes} == {Status.SUCCESS}
    assert len(result.groups) == 2


def test_an_engine_that_fails_loses_the_group(play: Any, monkeypatch: Any):
    """The trainer plays a lost group again, whatever the program makes of the error."""

    class Asking(Numbered):
        def play(self, episode: AgentEpisode) -> Any:
            try:
                ask(episode, "hello")
            except openai.InternalServerError:
                return Outcome(1.0, True)

    async def dead(*args: Any, **kwargs: Any) -> Completion:
        raise RuntimeError("the engine is dead")

    monkeypatch.setattr(SayingClient, "generate", dead)
    result = play(Asking, "train/0")
    assert result.groups == ()
    assert "the engine is dead" in result.lost["g0"]

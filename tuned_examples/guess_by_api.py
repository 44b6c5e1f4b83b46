"""The game of guess.py for an agent program that knows nothing of this package: it asks a model through OpenAI's API.

This example: a program of twenty lines with OpenAI's own client (`play_a_game`), the class that says when it plays, and
the same training as in guess.py. `proxmo endpoint` and docs/endpoint.md tell of programs in other languages.

How to run this script: `proxmo train tuned_examples/guess_by_api.py`

Needs the package `openai`, which vLLM brings.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

from env_wrappers.panels import Panel
from proxmo_rllib.endpoint import AgentEpisode, Outcome, OutsideAgent
from tuned_examples import guess

LARGEST, MAX_TURNS = guess.LARGEST, guess.MAX_TURNS


def play_a_game(client: Any, model: str, secret: int) -> bool:
    """The agent program: asks the model for guesses and tells it what came of them. Returns whether it won."""
    low, high = 1, LARGEST
    messages = [{"role": "user", "content": f"Guess a number from {low} to {high}."}]
    for _ in range(MAX_TURNS):
        reply = client.chat.completions.create(model=model, messages=messages)
        said = reply.choices[0].message.content.strip()
        answer = "Say a number."
        if said.isascii() and said.isdigit() and len(said) < 4:
            number = int(said)
            if number == secret:
                return True
            low, high = (max(low, number + 1), high) if number < secret else (low, min(high, number - 1))
            answer = f"Guess a number from {low} to {high}."
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": answer}]
    return False


@functools.cache
def shared_client() -> Any:
    """A client whose connections all episodes of this process share: to make one takes longer than an episode."""
    import openai

    return openai.OpenAI(base_url="http://127.0.0.1", api_key="the episode's", max_retries=0)


class GuessByAPI(OutsideAgent):
    """Has the program play, and says how it came out. A task is a number, by an id that says nothing of it."""

    def tasks(self, split: str) -> list[str]:
        """The tasks to learn from, and others to be judged by: those of guess.py."""
        return guess.GuessEnv().tasks(split)

    def play(self, episode: AgentEpisode) -> Outcome:
        """Plays an episode, in a thread of its own."""
        secret = int(hashlib.sha256(episode.task.encode()).hexdigest(), 16) % LARGEST + 1
        client = shared_client().with_options(base_url=episode.base_url, api_key=episode.api_key)
        won = play_a_game(client, episode.model, secret)
        return Outcome(reward=float(won), success=won)


ENV = "tuned_examples.guess_by_api:GuessByAPI"

config = (
    guess.config.copy(copy_frozen=False)
    .environment(ENV)
    .evaluation(panel=Panel("guess-by-api-valid", 1, ENV, {}, tuple(GuessByAPI().tasks("valid")[:200])))
)
warm_start = guess.warm_start
stop = guess.stop

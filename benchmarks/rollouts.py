"""Turns a second of the rollouts beside a plain lock-step loop on the same engine, and where a turn's time goes.

    python -m benchmarks.rollouts [--work quickstart equal mixed] [--episodes 256] [--engines 2] [--rounds 3]

The engine is the quickstart's: vLLM in an actor of Ray, the shipped tiny policy, 128 requests at once. The work is
the quickstart's own episodes; episodes of 13 turns with responses of 5 tokens each (equal); or of 3 to 30 turns with
responses of 5 to 200 tokens (mixed, both uniform in the logarithm). The lock-step loop plays 128 episodes at a time,
turn by turn: it asks the engine for all responses, waits for the last, and steps all environments.

Both loops are played in turn, several rounds, and the median of the rounds' ratios is what counts: other work on the
machine slows both. CPU times and counts are of our loop.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import psutil
import ray

from benchmarks import engine_steps
from env_wrappers.core import AnyText
from proxmo_rllib import ProxMO
from proxmo_rllib.inference.client import PoolClient
from proxmo_rllib.inference.pool import InferencePool
from proxmo_rllib.machine.own_cluster import guarded
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation
from proxmo_rllib.rollouts.env_pool import EnvPool
from proxmo_rllib.rollouts.environments import chat_format, make_text_env
from proxmo_rllib.rollouts.play import PlayResult, play_groups
from proxmo_rllib.types import Assignment, Completion, SamplingParams
from tuned_examples import quickstart

AT_ONCE = 128
GROUP = 8
LONGEST = 2000  # tokens of a prompt


@dataclass(frozen=True, slots=True)
class Work:
    """What is played.

    Attributes:
        turns: of an episode, from and to; None for the quickstart's own episodes.
        response: tokens of a response, from and to; None for what the policy says.
    """

    turns: tuple[int, int] | None
    response: tuple[int, int] | None


WORK = {
    "quickstart": Work(None, None),
    "equal": Work((13, 13), (5, 5)),
    "mixed": Work((3, 30), (5, 200)),
}


def between(bounds: tuple[int, int], seed: str) -> int:
    """A number, uniform in its logarithm."""
    low, high = bounds
    return round(math.exp(random.Random(seed).uniform(math.log(low), math.log(high))))


class CountedTurns(gymnasium.Env[str, str]):
    """An episode that ends after so many turns, whatever the agent says."""

    metadata = {"render_modes": [], "blocking": False}

    def __init__(self, turns: tuple[int, int]) -> None:
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self._bounds = turns
        self._left = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = between(self._bounds, str(seed))
        return "You are in the middle of a room. Your task is to: put a mug in shelf.", {"success": False}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        return (
            "You arrive at shelf 1. On the shelf 1, you see a mug 1.",
            0.0,
            self._left <= 0,
            False,
            {"success": False},
        )


class Player:
    """An agent whose responses have the lengths that the work says."""

    def __init__(
        self, client: PoolClient, params: SamplingParams, work: Work, assignment: Assignment, index: int
    ) -> None:
        self._client, self._params, self._work = client, params, work
        self._name = f"{assignment.seed}-{index}"
        self._affinity = assignment.seed
        self._turn = 0

    async def respond(self, prompt_ids: list[int], observation: str, info: dict[str, Any]) -> Completion:
        name = f"{self._name}-{self._turn}"
        params = replace(self._params, seed=random.Random(name).randrange(2**31))
        if self._work.response is not None:
            params = replace(params, max_tokens=between(self._work.response, name), stop_token_ids=())
        self._turn += 1
        return await self._client.generate(prompt_ids, params, affinity=self._affinity)


class Loops:
    """Our loop and the lock-step loop, on the same engines, environments and prompts."""

    def __init__(self, config: Any, work: Work, client: PoolClient) -> None:
        self._chat: ChatFormat = chat_format(config)
        self._work, self._client = work, client
        self._params = SamplingParams(1.0, config.max_response_tokens, self._chat.stop_token_ids)
        self._max_turns = config.max_turns if work.turns is None else work.turns[1]
        self._make: Callable[[], Any] = lambda: make_text_env(config)
        if (turns := work.turns) is not None:
            self._make = lambda: make_text_env(config, CountedTurns, {"turns": turns})
        self._tasks = self._make().unwrapped.tasks("train") if work.turns is None else [""]

    def assignments(self, episodes: int, number: int) -> list[Assignment]:
        """Groups of a round."""
        rng = random.Random(number)
        return [
            Assignment(f"{number}-{group}", rng.choice(self._tasks), rng.randrange(2**31), GROUP)
            for group in range(episodes // GROUP)
        ]

    def ours(self, assignments: list[Assignment]) -> int:
        """As an environment runner plays. Returns the turns."""
        pool = EnvPool(self._make, AT_ONCE)
        done: list[PlayResult] = []

        async def play() -> None:
            result = await play_groups(
                pool,
                assignments,
                self._player,
                self._chat,
                append=True,
                max_turns=self._max_turns,
                max_prompt_tokens=LONGEST - 200,
            )
            done.append(result)

        asyncio.run(play())
        played = done[0]
        if played.lost:
            raise RuntimeError(f"groups were lost: {dict(played.lost)}")
        return sum(len(episode.turns) for group in played.groups for episode in group.episodes)

    def lock_step(self, assignments: list[Assignment]) -> int:
        """Turn by turn. Returns the turns."""
        every = [(assignment, index) for assignment in assignments for index in range(assignment.size)]
        envs = [self._make() for _ in range(AT_ONCE)]
        turns = 0
        for start in range(0, len(every), AT_ONCE):
            turns += asyncio.run(self._in_step(every[start : start + AT_ONCE], envs))
        return turns

    async def _in_step(self, episodes: list[tuple[Assignment, int]], envs: list[Any]) -> int:
        going: list[tuple[Any, Player, Conversation, str]] = []
        for (assignment, index), env in zip(episodes, envs, strict=False):
            message, _ = env.reset(seed=assignment.seed, options={"task": assignment.task} if assignment.task else None)
            going.append((env, self._player(assignment, index), Conversation(self._chat, append=True), message))
        turns = 0
        for _ in range(self._max_turns):
            for _, _, conversation, message in going:
                conversation.say(message)
            going = [each for each in going if len(each[2].token_ids) <= LONGEST - 200]
            answers = await asyncio.gather(
                *(player.respond(conversation.token_ids, "", {}) for _, player, conversation, _ in going)
            )
            turns += len(going)
            left = []
            for (env, player, conversation, _), answer in zip(going, answers, strict=True):
                conversation.reply(answer.token_ids)
                read = self._chat.read(self._chat.decode_response(answer.token_ids))
                message, _, terminated, truncated, _ = env.step(read)
                if not (terminated or truncated):
                    left.append((env, player, conversation, message))
            going = left
            if not going:
                break
        return turns

    def _player(self, assignment: Assignment, index: int) -> Player:
        return Player(self._client, self._params, self._work, assignment, index)


@dataclass(slots=True)
class Played:
    """One loop, one round."""

    turns: int
    seconds: float
    cpu: dict[str, float]
    steps: engine_steps.Steps


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--episodes", type=int, default=256, help="of a round")
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    config = quickstart.config.copy(copy_frozen=False)
    config.inference(max_model_len=LONGEST, max_num_seqs=AT_ONCE)
    with tempfile.TemporaryDirectory(prefix="bench", ignore_cleanup_errors=True) as folder:
        counts = Path(folder) / "counts"
        engine = ProxMO.engine_config(config)
        engine = replace(engine, num_cpus=0.5, engine_kwargs=engine_steps.counted(counts))
        with guarded():
            ray.init(num_cpus=4, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
        pool = InferencePool(engine, arguments.engines)
        try:
            print(HEAD)
            for name in arguments.work:
                loops = Loops(config, WORK[name], pool.client())
                print(row(name, *measure(loops, pool, counts, arguments)), flush=True)
        finally:
            pool.stop()
            ray.shutdown()


HEAD = (
    "| work | ours, turns/s | lock-step | ours / lock-step | tokens computed a turn | tokens and requests a step | "
    "engine busy | CPU ms a turn: ours, actor, EngineCore |\n|---|---|---|---|---|---|---|---|"
)


def measure(loops: Loops, pool: InferencePool, counts: Path, arguments: Any) -> tuple[list[Played], list[Played]]:
    """Rounds of ours and of lock-step, one after the other."""
    processes = processes_of(pool)
    ours, theirs = [], []
    loops.ours(loops.assignments(AT_ONCE, -1))  # warms up
    for number in range(arguments.rounds):
        order = [(loops.ours, ours), (loops.lock_step, theirs)]
        for play, played in order if number % 2 == 0 else order[::-1]:
            assignments = loops.assignments(arguments.episodes, number)
            before, cpu, started = engine_steps.read(counts), cpu_seconds(processes), time.perf_counter()
            turns = play(assignments)
            seconds = time.perf_counter() - started
            used = {name: spent - cpu[name] for name, spent in cpu_seconds(processes).items()}
            played.append(Played(turns, seconds, used, engine_steps.read(counts).since(before)))
    return ours, theirs


def row(name: str, ours: list[Played], theirs: list[Played]) -> str:
    """One line of the table."""
    ratio = statistics.median((a.turns / a.seconds) / (b.turns / b.seconds) for a, b in zip(ours, theirs, strict=True))
    rate, other = (statistics.median(p.turns / p.seconds for p in played) for played in (ours, theirs))
    turns, steps = sum(p.turns for p in ours), sum(p.steps.steps for p in ours)
    tokens, requests = sum(p.steps.tokens for p in ours), sum(p.steps.requests for p in ours)
    busy = sum(p.steps.seconds for p in ours) / sum(p.seconds for p in ours)
    cpu = ", ".join(f"{1e3 * sum(p.cpu[part] for p in ours) / turns:.2f}" for part in ("ours", "actor", "EngineCore"))
    return (
        f"| {name} | {rate:.0f} | {other:.0f} | {ratio:.2f} | {tokens / turns:.1f} | {tokens / steps:.0f}, "
        f"{requests / steps:.0f} | {100 * busy:.0f}% | {cpu} |"
    )


def processes_of(pool: InferencePool) -> dict[str, list[psutil.Process]]:
    """Whose CPU time counts."""
    actors = [psutil.Process(pid) for pid in ray.get([handle.check_health.remote() for handle in pool.handles])]
    cores = [child for actor in actors for child in actor.children(recursive=True)]
    return {"ours": [psutil.Process()], "actor": actors, "EngineCore": cores}


def cpu_seconds(processes: dict[str, list[psutil.Process]]) -> dict[str, float]:
    """Of each kind, so far."""
    return {kind: float(np.sum([sum(p.cpu_times()[:2]) for p in each])) for kind, each in processes.items()}


if __name__ == "__main__":
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    main()

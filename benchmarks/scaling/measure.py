"""Measures service times: on the quickstart's run, with Ray, vLLM and the shipped tiny policy, for some minutes.

Most of them are processor time, which other work on the machine changes little; the learner's, the transfer's and
what is between two iterations are wall time, and want a quiet machine. Where one figure comes of several (a step of the
engine has a part of its own, one a token, one a request), cases that differ in them are solved for it. The amounts are
at last made to fit those of real iterations (`calibrated`).
"""

from __future__ import annotations

import asyncio
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from scipy.optimize import nnls

from benchmarks.scaling import driver_costs
from benchmarks.scaling.constants import (
    DriverTimes,
    EngineTimes,
    LearnerTimes,
    Recorded,
    RunnerTimes,
    Times,
    TransferTimes,
)
from benchmarks.scaling.gpu_cluster import COPY_BYTES_PER_S
from benchmarks.scaling.real_run import Played, Processes, example, running, scripted_turn_s, watch
from benchmarks.scaling.training import Layout, Training
from benchmarks.scaling.workload import Recording
from proxmo_rllib.inference.client import BATCH_WINDOW_S
from proxmo_rllib.learner.training_data import GroupedTrainingData
from proxmo_rllib.machine.processors import available_cores
from proxmo_rllib.metrics_logger import LoggedMetrics
from proxmo_rllib.rollouts.sampling_metrics import log_groups
from proxmo_rllib.types import SamplingParams

_CALLS = 40
#: Assumed: learners of machines like this one are connected by 10 Gbit/s.
_CABLE_BYTES_PER_S = 1.25e9
_BLOCK, _MAX_TOKENS = 32, 8192  # as in `inference/vllm_internals.py`


@dataclass(frozen=True, slots=True)
class Case:
    """Requests that go to the engine in one call.

    Attributes:
        prompt: tokens of each.
        lengths: tokens of each response.
    """

    prompt: int
    lengths: tuple[int, ...]

    @property
    def steps(self) -> int:
        """That the engine needs."""
        return max(self.lengths)

    @property
    def chunks(self) -> int:
        """Steps in which something ends."""
        return len(set(self.lengths))

    @property
    def computed(self) -> int:
        """Tokens that go through the model."""
        return len(self.lengths) * (self.prompt - 1) + sum(self.lengths)


CASES = (
    Case(40, (10,)),
    Case(40, (1,) * 16),
    Case(40, (10,) * 16),
    Case(40, tuple(range(1, 17))),
    Case(40, (10,) * 64),
    Case(200, (1,) * 32),
)


def measure(iterations: int) -> Recorded:
    """Everything.

    Args:
        iterations: real ones that are watched.
    """
    with running(example()) as algorithm:
        played = watch(algorithm, iterations)
        turn_s = scripted_turn_s(algorithm)
        engine, runner = engine_and_client(algorithm)
        driver = driver_times(algorithm, played)
        learner, transfer = learner_and_transfer(algorithm, played)
    groups = [[_turns(episode) for episode in group.episodes] for group in played.groups]
    turn_s = max(1e-6, turn_s - driver.put_s)
    runner = replace(runner, turn_s=turn_s, send_s=driver.put_s, handle_s=driver.handle_s)
    cores = max(1.0, available_cores() - played.others)
    times = Times(engine, runner, driver, replace(learner, get_s=driver.get_s), transfer, cores)
    machine = f"{platform.machine()}, {available_cores()} cores, of which other work took {played.strangers:.1f}"
    times, factors = calibrated(times, groups, played.cpu)
    return Recorded(times, groups, played.cpu, factors, machine)


def _turns(episode: Any) -> list[list[int]]:
    return [[len(turn.context_ids), len(turn.response_ids)] for turn in episode.turns]


def engine_and_client(algorithm: Any) -> tuple[EngineTimes, RunnerTimes]:
    """Of the engine, and of whoever asks it: this process does, as an environment runner would."""
    processes = Processes(algorithm)
    rows = []
    for case in CASES:
        _ask(algorithm, case, 3)
        before, own = processes.cpu_s(), time.process_time()
        _ask(algorithm, case, _CALLS)
        after = processes.cpu_s()
        rows.append([*((after[kind] - before[kind]) / _CALLS for kind in ("core", "actor")), time.process_time() - own])
    core, actor, client = np.array(rows).T
    step, token, request_step = _solved([(c.steps, c.computed, sum(c.lengths)) for c in CASES], core)
    per_request = [(1, len(c.lengths), sum(c.lengths), c.chunks) for c in CASES]
    call, request, sampled, chunk = _solved(per_request, actor)
    client_call, client_request, client_chunk = _solved([(1, n, k) for _, n, _, k in per_request], client / _CALLS)
    config = algorithm.config
    return (
        EngineTimes(
            step, token, request_step, False, call, request, sampled, chunk, config.max_num_seqs, _MAX_TOKENS, _BLOCK
        ),
        RunnerTimes(
            turn_s=0.0,
            wait_s=0.0,
            call_s=client_call,
            request_s=client_request,
            chunk_s=client_chunk,
            route_s=driver_costs.route_s(),
            window_s=BATCH_WINDOW_S,
            max_concurrent=config.max_concurrent_episodes,
            send_s=0.0,
            handle_s=0.0,
        ),
    )


def _solved(columns: Sequence[Sequence[float]], seconds: Any) -> list[float]:
    """Seconds for each column, none negative, such that relative errors are small."""
    weighted = np.array(columns, float) / np.asarray(seconds)[:, None]
    solved: list[float] = nnls(weighted, np.ones(len(columns)))[0].tolist()
    return solved


def _ask(algorithm: Any, case: Case, times: int) -> None:
    """Has the engine answer a case some times, each with other prompts."""
    client = algorithm.pool.client()
    rng = np.random.default_rng(times)

    async def all_of_them() -> None:
        for _ in range(times):
            prompts = [rng.integers(0, 700, case.prompt) for _ in case.lengths]
            await asyncio.gather(
                *(
                    client.generate(prompt, SamplingParams(1.0, length, seed=number), 0)
                    for number, (prompt, length) in enumerate(zip(prompts, case.lengths, strict=True))
                )
            )

    asyncio.run(all_of_them())


def driver_times(algorithm: Any, played: Played) -> DriverTimes:
    """Of the driver."""
    groups = played.groups
    turns = sum(len(episode) for group in groups for episode in group.episodes)
    handle = algorithm.pool.handles[0]

    def ask_many() -> None:
        ray.get([handle.version.remote() for _ in range(_CALLS)])

    ask_many()
    ask_s = _own_cpu(ask_many) / _CALLS
    both_ways = statistics.median(_wall(lambda: ray.get(handle.version.remote())) for _ in range(_CALLS))
    # Of one engine, but not one object: what is one is packed once.
    own = ray.put(handle)
    handles = [ray.get(own) for _ in range(64)]
    few_s, many_s = (driver_costs.best(lambda packed=packed: ray.put(packed)) for packed in (handles[:1], handles))
    packing = max(1e-7, many_s - few_s) / (len(handles) - 1)
    waiting = [ray.put(number) for number in range(512)]
    wait_s = driver_costs.best(lambda: ray.wait(waiting, num_returns=1)) / len(waiting)
    references = [ray.put(group) for group in groups]
    metrics = LoggedMetrics.part_of(algorithm.metrics)

    def with_waiting(factors: tuple[float, float, float]) -> tuple[float, float, float]:
        return factors[0], factors[1] + wait_s, factors[2]

    return DriverTimes(
        ask_s=ask_s,
        hop_s=max(1e-5, (both_ways - ask_s) / 2),
        handle_s=packing,
        round_s=with_waiting(driver_costs.fitted(driver_costs.round_pass_s)),
        stream_s=with_waiting(driver_costs.fitted(driver_costs.stream_pass_s)),
        shard_s=driver_costs.shard_s(),
        put_s=driver_costs.best(lambda: [ray.put(group) for group in groups]) / turns,
        get_s=driver_costs.best(lambda: ray.get(references)) / turns,
        log_s=driver_costs.best(lambda: log_groups(metrics, groups)) / turns,
        turn_bytes=sum(_num_bytes(turn) for group in groups for each in group.episodes for turn in each.turns) / turns,
        between_s=statistics.median(played.between),
    )


def _num_bytes(turn: Any) -> int:
    arrays = turn.context_ids.nbytes + turn.response_ids.nbytes + turn.logprobs.nbytes
    return int(arrays) + len(turn.anchor) + len(turn.response) + len(turn.action)


def learner_and_transfer(algorithm: Any, played: Played) -> tuple[LearnerTimes, TransferTimes]:
    """Of learning, and of the weights' way to the engine."""
    few = played.groups[: max(1, len(played.groups) // len(played.learning) // 4)]
    data = GroupedTrainingData(
        group_refs=[ray.put(group) for group in few], group_tokens=[group.num_tokens for group in few]
    )
    update = lambda: algorithm._learn(data)  # noqa: E731
    update()
    fewer_s = statistics.median(_wall(update) for _ in range(3))
    whole_s, tokens = statistics.median(played.learning), statistics.median(played.tokens)
    token_s = max(0.0, whole_s - fewer_s) / (tokens - sum(data.group_tokens))
    learners, pool, probe_ids = algorithm._learners, algorithm.pool, algorithm._transfer.probe_ids
    (blob,), version, probe = learners.export(probe_ids)
    learner = algorithm.learner_group._learner
    asking = statistics.median(_wall(pool.heal) for _ in range(5))
    load_s = statistics.median(_wall(lambda: pool.update_weights([blob], version)) for _ in range(5))
    score = lambda: pool.score(probe_ids, len(probe_ids) - len(probe.exact))  # noqa: E731
    score_s = statistics.median(_wall(score) for _ in range(5))
    num_bytes = float(ray.get(blob).nbytes)
    return (
        LearnerTimes(
            update_s=max(0.0, whole_s - token_s * tokens),
            token_s=token_s,
            get_s=0.0,
            threads=available_cores(),
            steps=algorithm.config.num_minibatches * algorithm.config.num_epochs,
            gradient_bytes=num_bytes,
            allreduce_bytes_per_s=_CABLE_BYTES_PER_S,
            snapshot_s=statistics.median(_wall(learner.snapshot) for _ in range(3)),
            export_s=statistics.median(_wall(lambda: learners.export(probe_ids)) for _ in range(5)),
        ),
        TransferTimes(
            weights_bytes=num_bytes,
            copy_bytes_per_s=COPY_BYTES_PER_S,
            load_s=max(1e-4, load_s - 2 * asking),
            score_s=max(1e-4, score_s - asking),
        ),
    )


def _wall(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _own_cpu(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def calibrated(times: Times, groups: list[Any], cpu: dict[str, float]) -> tuple[Times, dict[str, float]]:
    """With the amounts that real iterations took, in the parts that were solved for.

    Args:
        times: as solved for.
        groups: that were played.
        cpu: seconds of a core for a turn, by the kind of process.

    Returns:
        The times, and the factors: of an environment runner only what asking the engines takes has one.
    """
    factors = dict.fromkeys(cpu, 1.0)
    for _ in range(4):  # what a step takes changes how many requests are in it
        training = Training(times, Recording(groups), Layout(1, 1, 0, 16, together=True))
        training.run(4)
        turns = sum(each.turns for each in training.iterations)
        simulated = {kind: sum(each.worked[kind] for each in training.iterations) / turns for kind in cpu}
        core, actor = (cpu[kind] / simulated[kind] for kind in ("core", "actor"))
        own = times.runner.turn_s + times.runner.send_s + times.driver.log_s
        asking = max(0.0, cpu["runner"] - own) / (simulated["runner"] - own)
        for kind, factor in (("core", core), ("actor", actor), ("runner", asking)):
            factors[kind] *= factor
        engine, runner = times.engine, times.runner
        times = replace(
            times,
            engine=replace(
                engine,
                step_s=engine.step_s * core,
                token_s=engine.token_s * core,
                request_step_s=engine.request_step_s * core,
                call_s=engine.call_s * actor,
                request_s=engine.request_s * actor,
                request_token_s=engine.request_token_s * actor,
                chunk_s=engine.chunk_s * actor,
            ),
            runner=replace(
                runner,
                call_s=runner.call_s * asking,
                request_s=runner.request_s * asking,
                chunk_s=runner.chunk_s * asking,
            ),
        )
    return times, factors

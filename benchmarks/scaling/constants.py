"""Service times: what each part takes for what it is asked. Measured (`measure`), or given with their source."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """Of one engine: its core, which computes, and its actor, which talks.

    Attributes:
        step_s: seconds of a step, whatever is in it.
        token_s: more for each token that it computes.
        request_step_s: more for each request in it.
        on_device: whether steps are computed on a device, and not on the processors that others work on.
        call_s: of the actor, for a call of an environment runner's.
        request_s: for each request in it.
        request_token_s: for each token that is sampled.
        chunk_s: for each time that it hands back what has ended.
        max_num_seqs: requests in a step.
        max_tokens: tokens in a step.
        block: tokens; what a prompt shares with an earlier one is computed again from the last whole block.
    """

    step_s: float
    token_s: float
    request_step_s: float
    on_device: bool
    call_s: float
    request_s: float
    request_token_s: float
    chunk_s: float
    max_num_seqs: int
    max_tokens: int
    block: int


@dataclass(frozen=True, slots=True)
class RunnerTimes:
    """Of one environment runner, whose event loop does everything one after the other.

    Attributes:
        turn_s: prompt, response and the environment's step, as far as they take a core.
        wait_s: for the environment, in which the others go on.
        call_s: for a call to an engine.
        request_s: for each request in it.
        chunk_s: for each part of its answer.
        route_s: to choose an engine, for each that there is.
        window_s: in which requests to an engine share a call.
        max_concurrent: episodes at once.
        send_s: to send a turn.
        handle_s: to unpack an engine's handle.
    """

    turn_s: float
    wait_s: float
    call_s: float
    request_s: float
    chunk_s: float
    route_s: float
    window_s: float
    max_concurrent: int
    send_s: float
    handle_s: float


@dataclass(frozen=True, slots=True)
class DriverTimes:
    """Of the Algorithm's process.

    Attributes:
        ask_s: to call an actor, and to take its answer.
        hop_s: from one process to another; no core is taken meanwhile.
        handle_s: to pack an engine's handle, once for all environment runners.
        round_s: to note a share that was played, where it waits for all: a + b R + c R² for R environment runners.
        stream_s: to note what a runner has played so far, and to ask it again: likewise.
        shard_s: to divide the groups among the learners, for each group and learner.
        get_s: to read a turn.
        put_s: to put it into the object store again, for the learners.
        log_s: for the statistics of a turn; where groups are waited for, the runner does it.
        turn_bytes: of a turn in the object store.
        between_s: between two iterations: metrics, callbacks.
    """

    ask_s: float
    hop_s: float
    handle_s: float
    round_s: Sequence[float]
    stream_s: Sequence[float]
    shard_s: float
    get_s: float
    put_s: float
    log_s: float
    turn_bytes: float
    between_s: float


@dataclass(frozen=True, slots=True)
class LearnerTimes:
    """Of the learners.

    Attributes:
        update_s: of an update, whatever is in it.
        token_s: more for each token, of one learner.
        get_s: more for each turn, where it comes out of the object store of another node.
        threads: that it computes with; those of a device are not counted.
        steps: optimizer steps of an update, in each of which the gradients are added up.
        gradient_bytes: of them.
        allreduce_bytes_per_s: of a learner's connection to the others.
        snapshot_s: after an update, to copy the state, where it is in a process of its own.
        export_s: to read the weights, with the logprobs for the check.
    """

    update_s: float
    token_s: float
    get_s: float
    threads: int
    steps: int
    gradient_bytes: float
    allreduce_bytes_per_s: float
    snapshot_s: float
    export_s: float


@dataclass(frozen=True, slots=True)
class TransferTimes:
    """Of the weights' way to an engine.

    Attributes:
        weights_bytes: of them.
        copy_bytes_per_s: from one node's object store to another's.
        load_s: of an engine, from the object store.
        score_s: of an engine, for the check.
    """

    weights_bytes: float
    copy_bytes_per_s: float
    load_s: float
    score_s: float


@dataclass(frozen=True, slots=True)
class Times:
    """All of them.

    Attributes:
        cores: of a node, less what Ray's own processes take of them.
    """

    engine: EngineTimes
    runner: RunnerTimes
    driver: DriverTimes
    learner: LearnerTimes
    transfer: TransferTimes
    cores: float

    @classmethod
    def from_json(cls, parts: dict[str, Any]) -> Times:
        """As `dataclasses.asdict` has it."""
        kinds = {
            "engine": EngineTimes,
            "runner": RunnerTimes,
            "driver": DriverTimes,
            "learner": LearnerTimes,
            "transfer": TransferTimes,
        }
        return cls(**{name: kind(**parts[name]) for name, kind in kinds.items()}, cores=parts["cores"])


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was measured on a machine.

    Attributes:
        times: of it.
        groups: that were played: of each its episodes, of each its turns, of each the tokens that are new and those
            that were sampled.
        cpu: seconds of a core that each kind of process takes for a turn, of all that it does while episodes are
            played.
        factors: by which the solved times were multiplied, so that the simulated run takes `cpu` too.
        machine: in words.
        checked: real runs beside simulated ones, as `check` has them.
    """

    times: Times
    groups: list[list[list[list[int]]]]
    cpu: dict[str, float]
    factors: dict[str, float]
    machine: str
    checked: list[dict[str, float]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Recorded:
        """What `write` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            parts = json.loads(path.read_text(encoding="utf-8"))
            return cls(**parts | {"times": Times.from_json(parts["times"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no file of --measure ({error}); measure anew.") from error


def quadratic(factors: Sequence[float], number: int) -> float:
    """a + b n + c n²."""
    return factors[0] + factors[1] * number + factors[2] * number * number

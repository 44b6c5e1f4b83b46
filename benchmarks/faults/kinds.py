"""The faults of the table, in its order."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.faults import injections
from benchmarks.faults.environments import FAULTS
from benchmarks.faults.injections import Injection

KILL, STOP = signal.SIGKILL, signal.SIGSTOP
PHASES = ("start", "panel", "playing", "learning", "transfer", "saving", "stopping")
_TWO = ("num_env_runners=2", "num_engines=2")
_VLLM = ("engine=vllm", "max_num_seqs=16")


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table.

    Attributes:
        name: of the row.
        how: "disturb": at random moments of runs that are under way. "condition": a short run with it from the
            beginning. "signal": SIGTERM in a phase.
        trials: by default.
        words: settings of the run.
        may_end: whether the command may end over it, in words, and be resumed.
        inject: brings it about, of "disturb".
        part: whose process is struck, and has to be replaced.
        start_counts: whether the part has to start anew, which is no hang.
        engine: whether it is bound to come back within its start-up time and `trials.ENGINE_SPARE_S`.
        head_cpus: of the first of two nodes, which are started as on a cluster; 0 for a run that starts its own.
        once_a_run: whether each trial has a run of its own.
        place: arguments of `Training`.
        phase: of "signal".
        times: signals sent, of "signal".
    """

    name: str
    how: Literal["disturb", "condition", "signal"]
    trials: int
    words: tuple[str, ...] = ()
    may_end: bool = False
    inject: Injection | None = None
    part: str | None = None
    start_counts: bool = False
    engine: bool = False
    head_cpus: int = 0
    once_a_run: bool = False
    place: Mapping[str, Any] = field(default_factory=dict)
    phase: str = ""
    times: int = 0


def all_faults() -> dict[str, Fault]:
    """Every fault, by name."""
    found = [*_kills(), *_environments(), *_places(), *_signals()]
    return {fault.name: fault for fault in found}


def _kills() -> list[Fault]:
    found = []
    for sign in (KILL, STOP):
        found += [
            _part("runner", "runner", sign, *_TWO),
            _part("engine", "engine", sign, *_TWO),
            _part("EngineCore", "EngineCore", sign, *_VLLM),
            _part("learner, one", "learner", sign, "num_learners=1"),
            _part("learner, two", "learner", sign, "num_learners=2"),
        ]
        found.append(_node(sign, 20, joins=True))
        found.append(_node(sign, 2, joins=False))
        for part in ("GCS", "raylet"):
            ours = injections.signal_one(part, sign)
            found.append(Fault(f"{part} {sign.name}", "disturb", 20, may_end=True, inject=ours))
    driver = Fault("driver SIGKILL", "disturb", 20, may_end=True, inject=injections.kill_driver)
    asleep = Fault("driver SIGSTOP, SIGCONT after 20 s", "disturb", 5, inject=injections.suspend_driver)
    return [*found, driver, asleep]


def _node(sign: signal.Signals, trials: int, *, joins: bool) -> Fault:
    """Where another node joins, the head alone is too small for the run; else the head can carry it, but packs half.

    Without another node the second trial would find the second node empty.
    """
    return Fault(
        f"node of two {sign.name}, {'another' if joins else 'none'} joins",
        "disturb",
        trials,
        _TWO,
        inject=injections.signal_node(sign, joins=joins),
        start_counts=True,
        head_cpus=1 if joins else 3,
        once_a_run=not joins,
    )


def _part(row: str, part: str, sign: signal.Signals, *words: str) -> Fault:
    return Fault(
        f"{row} {sign.name}",
        "disturb",
        20,
        words,
        inject=injections.signal_one(part, sign),
        part=part,
        start_counts=True,
        engine=part in ("engine", "EngineCore"),
    )


def _environments() -> list[Fault]:
    found = []
    for fault in FAULTS:
        found.append(Fault(f"env: {fault}", "condition", 1, (*_TWO, f"env_config.fault={fault}")))
        if fault.startswith("hang") or fault.endswith("exit"):
            words = (*_TWO, f"env_config.fault={fault}", "env_config.blocking=false")
            found.append(Fault(f"env: {fault}, not in a thread", "condition", 1, words))
    return found


def _places() -> list[Fault]:
    return [
        Fault("disk full", "disturb", 5, may_end=True, inject=injections.fill_disk, place={"run_folder_mb": 300}),
        Fault("checkpoints read-only", "disturb", 5, may_end=True, inject=injections.make_read_only),
        Fault("run folder read-only", "condition", 1, may_end=True, place={"read_only": True}),
        Fault("3 MB of /dev/shm", "condition", 1, place={"shared_memory_mb": 3}),
    ]


def _signals() -> list[Fault]:
    return [
        Fault(f"SIGTERM {count} in {phase}", "signal", 1, may_end=True, phase=phase, times=times)
        for phase in PHASES
        for count, times in (("once", 1), ("twice", 2))
    ]

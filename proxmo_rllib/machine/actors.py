"""Ray's actors as processes: where they are, why they died, and their end. Written for Ray 2.60; private names."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import signal
from collections.abc import Sequence
from typing import Any

import psutil
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from proxmo_rllib import pulse
from proxmo_rllib.machine.processors import load_text
from proxmo_rllib.machine.scratch import remove_abandoned

#: What a call of an actor raises whose process is gone. Where Ray's memory monitor ended it, that is no RayActorError.
ACTOR_DEATHS = (RayActorError, OutOfMemoryError)
# Seconds for a killed process to be gone.
_END_S = 2.0


def describe_waiting(handles: Sequence[Any]) -> str:
    """What actors that do not answer yet are doing, in words.

    Args:
        handles: of actors; those that Ray has given a process are told from those that wait for a place.
    """
    from ray._private.state import actors

    placed: list[tuple[int, str]] = []
    for handle in handles:
        info = actors(handle._actor_id.hex()) or {}
        if info.get("Pid"):
            placed.append((info["Pid"], info["Address"]["NodeID"]))
    parts = []
    if len(placed) < len(handles):
        parts.append(f"{len(handles) - len(placed)} wait for a place in the cluster")
    if placed:
        parts.append(f"{len(placed)} have a process and load the model; {_where(placed)}")
    return "; ".join(parts)


def _where(placed: Sequence[tuple[int, str]]) -> str:
    """The load of this machine and the logs, of the actors that are on it; the process ids of the others."""
    import ray
    from ray._private.worker import global_worker

    here = ray.get_runtime_context().get_node_id()
    folder = global_worker.node.get_logs_dir_path()
    logs = [path for pid, node in placed if node == here for path in glob.glob(f"{folder}/worker-*-{pid}.err")]
    elsewhere = [f"{pid} on node {node[:8]}" for pid, node in placed if node != here]
    parts = []
    if logs:
        parts.append(f"here {load_text()}; logs: {', '.join(map(os.path.abspath, logs))}")
    if elsewhere:
        parts.append(f"processes {', '.join(elsewhere)}")
    return "; ".join(parts)


# What Ray says of a death, and what to say instead.
_CAUSES = {
    r"running low on memory|OutOfMemory": "Ray ended its process, since its machine ran out of memory",
    r"node.{0,40}(died|dead|failed|terminated)": "its node died",
    r"killed by `?ray\.kill|ray\.kill\(": "it was ended by ray.kill",
    r"exit(ed)? (due to|because).{0,40}(SystemExit|exit\(\))|INTENDED_USER_EXIT": "it called exit()",
    r"worker process has died|unexpectedly|SYSTEM_ERROR|connection error": (
        "its process ended: killed from outside, out of memory, or crashed"
    ),
    r"unavailable": "its process cannot be reached any more: killed from outside, out of memory, or crashed",
}


def cause_of(error: BaseException) -> str:
    """Why an actor died or a call of it failed, on one line.

    Args:
        error: what Ray raised; its own texts are some ten lines.
    """
    cause: BaseException = getattr(error, "cause", None) or error
    text = " ".join(str(cause).split())
    if isinstance(error, ACTOR_DEATHS):
        for pattern, words in _CAUSES.items():
            if re.search(pattern, text, re.IGNORECASE):
                return words
    last = next((line for line in reversed(str(cause).strip().splitlines()) if line.strip()), type(cause).__name__)
    return last.strip()


def end_actor(handle: Any, *, restart: bool = False) -> None:
    """Ends an actor's process, be it stopped or stuck, and those that it has started.

    Args:
        handle: of the actor.
        restart: whether Ray may start it again, if it was made so.
    """
    import ray

    actor_id = handle._actor_id.hex()
    beat = pulse.last_beat(actor_id)
    node = _node_of(actor_id)
    ray.kill(handle, no_restart=not restart)
    if beat is None or node is None:
        return
    pids = [*beat.children, beat.pid]
    if node == ray.get_runtime_context().get_node_id():
        _end_processes(pids)
    elif any(alive["NodeID"] == node and alive["Alive"] for alive in ray.nodes()):
        place = NodeAffinitySchedulingStrategy(node, soft=False)
        ray.remote(_end_processes).options(num_cpus=0, scheduling_strategy=place).remote(pids)
    if not restart:
        pulse.forget(actor_id)


def is_alive_as(actor_id: str, pid: int) -> bool:
    """Whether Ray has an actor for alive, with that process."""
    from ray._private.state import actors

    info = actors(actor_id) or {}
    return info.get("State") == "ALIVE" and info.get("Pid") == pid


def process_of(handle: Any) -> int | None:
    """The process id of an actor that Ray has for alive; None while it is dead or being started."""
    from ray._private.state import actors

    info = actors(handle._actor_id.hex()) or {}
    return info["Pid"] if info.get("State") == "ALIVE" else None


def on_draining_node(handles: Sequence[Any]) -> list[Any]:
    """Those of the actors whose node Ray is about to take away, such as one that a cloud wants back."""
    from ray._private.state import state

    leaving = state.get_draining_nodes()
    return [handle for handle in handles if _node_of(handle._actor_id.hex()) in leaving] if leaving else []


def _node_of(actor_id: str) -> str | None:
    from ray._private.state import actors

    info = actors(actor_id) or {}
    return (info.get("Address") or {}).get("NodeID") or None


def _end_processes(pids: Sequence[int]) -> None:
    """Kills processes of this machine, and removes what they leave in temporary folders.

    Not if their numbers belong to others by now: those of Ray's have its job. Python's resource tracker is spared: it
    ends with the last of them, and removes the shared memory that they leave.
    """
    ended = []
    for pid in pids:
        with contextlib.suppress(OSError, psutil.NoSuchProcess):  # it has ended
            process = psutil.Process(pid)
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read()
            of_ray = b"RAY_RAYLET_PID=" in environment or b"RAY_JOB_ID=" in environment
            if of_ray and "multiprocessing.resource_tracker" not in " ".join(process.cmdline()):
                os.kill(pid, signal.SIGKILL)
                ended.append(process)
    psutil.wait_procs(ended, timeout=_END_S)
    remove_abandoned()

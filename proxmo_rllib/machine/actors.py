"""Where Ray's actors are, for words about one that does not answer. Written for Ray 2.60; touches its private names."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import Any

from proxmo_rllib.machine.processors import load_text


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

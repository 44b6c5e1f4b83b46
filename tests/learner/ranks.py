"""Processes that have met by gloo, without Ray, and do the same job together."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

# Seconds for a job, and for a process to start on a busy machine: what hangs fails.
_PATIENCE = 240.0
_START = 600.0


class Ranks:
    """So many processes; a call of it runs a function of (rank, *arguments) in each, and returns what they say."""

    def __init__(self, number: int, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        pairs = [context.Pipe() for _ in range(number)]
        self._pipes = [ours for ours, _ in pairs]
        meeting = f"file://{folder / 'meeting'}"
        self.processes = [
            context.Process(target=_serve, args=(rank, number, meeting, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pairs)
        ]
        for process in self.processes:
            process.start()
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(_START), f"rank {rank} did not start"
            pipe.recv()

    def __call__(self, job: Callable[..., Any], *arguments: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send((job, arguments))
        answers = []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(_PATIENCE), f"rank {rank} hangs in {job.__name__}"
            answers.append(pipe.recv())
        errors = [answer for answer in answers if isinstance(answer, _Broken)]
        if errors:
            raise AssertionError("\n".join(error.text for error in errors))
        return answers

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


class _Broken:
    def __init__(self, text: str) -> None:
        self.text = text


@contextmanager
def started(number: int) -> Iterator[Ranks]:
    """So many processes, which end with the block."""
    with tempfile.TemporaryDirectory() as folder:
        ranks = Ranks(number, Path(folder))
        try:
            yield ranks
        finally:
            ranks.stop()


def _serve(rank: int, number: int, meeting: str, pipe: Any) -> None:
    import torch

    from tests.learner import sharded_jobs  # noqa: F401 (the first job need not wait for what it imports)

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=number, timeout=timedelta(seconds=_PATIENCE / 2)
    )
    pipe.send("ready")
    while True:
        try:
            job, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(job(rank, *arguments))
        except Exception:  # the test fails with it
            pipe.send(_Broken(f"rank {rank}:\n{traceback.format_exc()}"))

"""Output of Ray, RLlib and vLLM that is known to be harmless here is hidden, wherever a run is started from.

A line is hidden only if it is in the table below, which says why it means nothing; all else comes through, errors and
the warnings of this project above all. `PROXMO_VERBOSE=1` hides nothing. Ray's own log files keep every line.

Three ways lead to the terminal: what other processes print comes through Ray's dispatcher (private API, written for Ray
2.60), what Python code of this process says through `logging`, and what C++ code of this process says through file
descriptor 2, which is filtered only while RLlib starts its actors.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

VERBOSE = "PROXMO_VERBOSE"
#: What is hidden, and why it is harmless.
KNOWN: dict[str, str] = {
    # vLLM, at its start
    r"The global random seed is set to \d+\. Since VLLM_ENABLE_V1_MULTIPROCESSING": "the process is the engine's own",
    r"does not officially support disabling chunked prefill": "prompts are taken whole, see vllm_internals.py",
    r"Enforce eager set, disabling torch\.compile": "as the engine's settings ask for",
    r"Inductor compilation was disabled by user settings": "as the engine's settings ask for",
    r"Triton is not installed\. triton-cpu is expected": "no kernel that is used needs it",
    r"Triton not available, find_triton_kernels": "no kernel that is used needs it",
    r"Model Runner V2 requires Triton": "the other runner is the one that is tested",
    r"Reset SSM cache type to float32 for accelerated GDN mamba backend 'none'": "there is no such layer",
    r"lib(tcmalloc|iomp) is not found in LD_PRELOAD": "a hint about speed",
    r"Using None for EOS token id because tokenizer is not initialized": "token ids go in and come out",
    r"`torch\.distributed\.reduce_op` is deprecated": "vLLM's own affair",
    r"NUMA binding: Using MEMBIND policy": "says what it does",
    r"Loading safetensors checkpoint shards:": "a progress bar",
    # vLLM, at every transfer of weights
    r"\b\w*RotaryEmbedding: Failed to load weights": "it has none: its table is computed; every transfer is checked",
    # RLlib and Tune
    r"on the new API stack! This is the new default": "there is no other for this algorithm",
    r"DeprecationWarning: `RLModule\(config=\[RLModuleConfig object\]\)`": "RLlib warns of its own call",
    r"Trainable\.setup took [\d.]+ seconds": "engines take their time; trials cannot share them",
    r"Install gputil for GPU system monitoring": "an option of Tune's",
    r"has constructor arguments in the object store and max_restarts > 0": "the driver keeps the arguments",
}
_LOGGERS = (
    "ray._common.deprecation",
    "ray.rllib.algorithms.algorithm_config",
    "ray.tune.trainable.trainable",
    "ray.tune.utils.util",
)
_HARMLESS = re.compile("|".join(KNOWN))
# Python prints a warning's source line below it.
_PYTHON_WARNING = re.compile(r"^\S+\.py:\d+: \w*Warning: ")
_END = b"\0end of the filtered part\0"


def is_verbose() -> bool:
    """Whether the user asked for everything."""
    return os.environ.get(VERBOSE, "0") not in ("", "0")


def worth_reading(lines: Sequence[str]) -> list[str]:
    """The lines that are not known to be harmless; all of them if the user asked for everything."""
    if is_verbose():
        return list(lines)
    kept = []
    source_line_follows = False
    for line in lines:
        hidden = _HARMLESS.search(line) is not None or (source_line_follows and line.startswith("  "))
        source_line_follows = hidden and _PYTHON_WARNING.match(line) is not None
        if not hidden:
            kept.append(line)
    return kept


def hide_known_noise() -> None:
    """Filters what this process logs and what Ray brings it from others. May be called again."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if _is_worth_logging not in logger.filters:
            logger.addFilter(_is_worth_logging)
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    if not isinstance(dispatcher.emit, _FilteredEmit):
        dispatcher.emit = _FilteredEmit(dispatcher.emit)


class _FilteredEmit:
    """Hands on a batch of lines of another process, without those that are known to be harmless."""

    def __init__(self, emit: Callable[[dict[str, Any]], None]) -> None:
        self._emit = emit

    def __call__(self, data: dict[str, Any]) -> None:
        lines = data.get("lines", ())
        kept = worth_reading(lines)
        # Empty lines between hidden ones say nothing either.
        if kept and (len(kept) == len(lines) or any(line.strip() for line in kept)):
            self._emit(data | {"lines": kept})


def _is_worth_logging(record: logging.LogRecord) -> bool:
    return bool(worth_reading([record.getMessage()]))


@contextlib.contextmanager
def filtered_stderr() -> Iterator[None]:
    """Within it, lines that C++ code of this process writes to file descriptor 2 are filtered too."""
    if is_verbose():
        yield
        return
    read, write = os.pipe()
    real = os.dup(2)
    over = threading.Event()
    # Goes on after the block for processes that were started in it, until the last of them has ended.
    threading.Thread(target=_forward, args=(read, real, over), name="filtered-stderr", daemon=True).start()
    os.dup2(write, 2)
    os.close(write)
    try:
        yield
    finally:
        os.write(2, _END + b"\n")
        os.dup2(real, 2)
        over.wait(timeout=5.0)


def _forward(read: int, real: int, over: threading.Event) -> None:
    with os.fdopen(read, "rb") as lines, os.fdopen(real, "wb", buffering=0) as out:
        for line in lines:
            text, end, _ = line.partition(_END)
            if worth_reading([text.decode(errors="replace")]) and text:
                out.write(text)
            if end:
                over.set()

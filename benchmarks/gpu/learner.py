"""Throughput of the learner: optimizer steps over made-up episodes, packed against padded rows.

A case is a size, a layout, "packed" or "padded", and perhaps "checkpointing" or a number of tokens for the
micro-batches, which are the learner's own choice otherwise. 0.5B and 1.5B train all weights, 7B adapters of rank 16;
arithmetic in bfloat16, what is trained in float32.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import device, models
from benchmarks.gpu.operations import Work, operations, work_of_packed, work_of_rows
from proxmo_rllib.types import Group

_STEPS = 3
#: Groups of a step. Windows have a row for every turn.
_GROUPS = {"append": 8, "window": 2}


def measure(case: str, tiny: bool) -> dict[str, Any]:
    """The figures of a case."""
    size = case.split(maxsplit=1)[0]
    learner, groups = prepare(case, tiny)
    models.update(learner, groups)  # the first warms up
    device.let_go()
    seconds = [device.seconds_of(lambda: models.update(learner, groups)) for _ in range(_STEPS)]
    logged = models.update(learner, groups)
    taken = statistics.median(seconds)
    rows = _rows(groups)
    tokens = sum(len(row.token_ids) for row in rows)
    work, computed = work_of(learner, rows, int(logged["tokens_per_microbatch"]))
    trained = sum(p.numel() for p in learner.policy.parameters() if p.requires_grad)
    needed = operations(models.shape(size, tiny), work, trained if learner.policy.adapters is not None else None)
    return {
        "rows": len(rows),
        "tokens": tokens,
        "computed_tokens": computed,
        "tokens_per_microbatch": int(logged["tokens_per_microbatch"]),
        "micro_batches": int(logged["num_micro_batches"]),
        "s_a_step": taken,
        "tok_per_s": tokens / taken,
        "tflops": needed / taken / 1e12,
        "of_peak": needed / taken / device.peak_flops(),
        **device.peaks(),
        "attention": learner.policy.lm.config._attn_implementation,
        "all_seconds": seconds,
    }


def prepare(case: str, tiny: bool) -> tuple[Any, list[Group]]:
    """A case's learner, and what it is to learn from."""
    size, layout, way, *more = case.split()
    device.let_go()
    config = models.learner_config(
        models.folder(size, tiny), "bfloat16", adapters=size == "7b", checkpointing="checkpointing" in more
    )
    config.training(max_tokens_per_microbatch=next((int(word) for word in more if word.isdigit()), None))
    with models.on_the_device():
        learner = models.build_learner(config)
    if way == "padded":
        pad(learner)
    return learner, models.groups_for(layout, size, tiny, 2 if tiny else _GROUPS[layout])


def pad(learner: Any) -> None:
    """Has a learner compute as it does with models that cannot be packed."""
    learner.policy._packs = False
    learner.policy.lm.set_attn_implementation("sdpa")


def _rows(groups: Sequence[Group]) -> list[Any]:
    return [sequence for group in groups for episode in group.episodes for sequence in episode.sequences()]


def work_of(learner: Any, rows: Sequence[Any], tokens_per_microbatch: int) -> tuple[Work, int]:
    """What a step over rows has to compute, and how many tokens it does compute, padding among them."""
    from proxmo_rllib.learner import columns
    from proxmo_rllib.learner.packing import pack

    lengths = np.array([len(row.token_ids) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for number, row in enumerate(rows):
        ids[number, : lengths[number]] = row.token_ids
    # Nothing predicts a row's first token.
    sampled = sum(stop - max(1, start) for row in rows for start, stop in row.spans)
    batch = {columns.TOKEN_IDS: torch.from_numpy(ids), columns.LENGTHS: torch.from_numpy(lengths)}
    parts = [part.numpy() for part in learner.policy.split(batch, tokens_per_microbatch)]
    if not learner.policy._packs:
        return work_of_rows(lengths.tolist(), sampled), int(sum(len(p) * lengths[p].max() for p in parts))
    work = work_of_packed([pack(ids[part], lengths[part]) for part in parts], sampled)
    return work, work.tokens

"""The loop that one writes first: padded rows, the model's whole logits, in the order of arrival.

    python -m benchmarks.learner.plain FOLDER MODEL ROWS DTYPE THREADS BATCH

Needs torch, transformers and numpy alone. For every line on its standard input it takes one optimizer step and prints
its seconds as JSON; at the end the peak of its memory.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def read_rows(file: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Token ids, whether each was sampled, and its advantage, of every row."""
    data = np.load(file)
    rows, token, span = [], 0, 0
    for length, num_spans in zip(data["lengths"], data["num_spans"], strict=True):
        ids = data["ids"][token : token + length]
        mask, advantages = np.zeros(length, bool), np.zeros(length, np.float32)
        for start, stop in data["spans"][span : span + num_spans]:
            mask[start:stop] = True
            advantages[start:stop] = data["advantages"][span]
            span += 1
        token += length
        rows.append((ids, mask, advantages))
    return rows


def step(lm: torch.nn.Module, optimizer: torch.optim.Optimizer, rows: list, dtype: str, batch: int) -> None:
    """One optimizer step over all rows, a few at a time."""
    total = sum(int(mask.sum()) for _, mask, _ in rows)
    optimizer.zero_grad()
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        longest = max(len(ids) for ids, _, _ in part)
        ids = torch.zeros((len(part), longest), dtype=torch.int64)
        there = torch.zeros((len(part), longest), dtype=torch.int64)
        mask = torch.zeros((len(part), longest))
        advantages = torch.zeros((len(part), longest))
        for row, values in enumerate(part):
            for target, value in zip((ids, mask, advantages), values, strict=True):
                target[row, : len(value)] = torch.from_numpy(value).to(target.dtype)
            there[row, : len(values[0])] = 1
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = lm(input_ids=ids, attention_mask=there, use_cache=False).logits[:, :-1].float()
        logprobs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        ratio = (logprobs - logprobs.detach()).exp()
        gained = torch.minimum(ratio * advantages[:, 1:], ratio.clamp(0.8, 1.28) * advantages[:, 1:])
        (-(gained * mask[:, 1:]).sum() / total).backward()
    torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
    optimizer.step()


def serve(work) -> None:
    """Does the work once a line, and says how long it took; at the end how much memory the process had at most."""
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        work()
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
    print(json.dumps({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


def main() -> None:
    """Serves steps."""
    folder, model, name, dtype, threads, batch = sys.argv[1:]
    torch.set_num_threads(int(threads))
    rows = read_rows(Path(folder) / f"{name}.npz")
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, trust_remote_code=False)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=1e-5)
    serve(lambda: step(lm, optimizer, rows, dtype, int(batch)))


if __name__ == "__main__":
    main()

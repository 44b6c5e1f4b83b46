"""The update of TRL's GRPOTrainer, one optimizer step a line; see `plain`. For trl 1.16.

    python -m benchmarks.learner.trl_update FOLDER MODEL ROWS DTYPE THREADS BATCH

Runs in an environment that has trl. What the environment said is masked as the answers of tools are. The trainer's
loss is called with micro-batches that its own generation would have made; the loop around it is `plain`'s.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.learner.plain import read_rows, serve


def make_trainer(model: str, dtype: str, batch: int):
    """A trainer, which generates nothing here."""
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    settings = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        num_generations=batch,
        loss_type="dapo",
        epsilon_high=0.28,
        bf16=dtype == "bfloat16",
        use_cpu=True,
        gradient_checkpointing=False,  # the others do without
        report_to=[],
    )
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, trust_remote_code=False)
    # With a name of its own it is not hashed, which breaks with some versions of pyarrow.
    data = Dataset(InMemoryTable.from_pydict({"prompt": ["x"] * batch}), fingerprint="prompts")
    return GRPOTrainer(lm, reward_funcs=_no_reward, args=settings, train_dataset=data, processing_class=tokenizer)


def _no_reward(**kwargs: Any) -> list[float]:
    return []


def inputs_of(rows: list, total: int) -> dict[str, torch.Tensor]:
    """Prompts padded on the left, completions on the right."""
    starts = [int(mask.argmax()) for _, mask, _ in rows]
    before, after = max(starts), max(len(ids) - s for (ids, _, _), s in zip(rows, starts, strict=True))
    shapes = {"prompt_ids": before, "prompt_mask": before, "completion_ids": after, "completion_mask": after}
    inputs = {name: torch.zeros((len(rows), size), dtype=torch.int64) for name, size in shapes.items()}
    inputs["tool_mask"] = torch.zeros((len(rows), after), dtype=torch.int64)
    inputs["advantages"] = torch.zeros((len(rows), after))
    for row, ((ids, mask, advantages), start) in enumerate(zip(rows, starts, strict=True)):
        end = len(ids) - start
        inputs["prompt_ids"][row, before - start :] = torch.from_numpy(ids[:start])
        inputs["prompt_mask"][row, before - start :] = 1
        inputs["completion_ids"][row, :end] = torch.from_numpy(ids[start:])
        inputs["completion_mask"][row, :end] = 1
        inputs["tool_mask"][row, :end] = torch.from_numpy(mask[start:].astype("int64"))
        inputs["advantages"][row, :end] = torch.from_numpy(advantages[start:])
    inputs["num_items_in_batch"] = torch.tensor(total)
    return inputs


def main() -> None:
    """Serves steps."""
    folder, model, name, dtype, threads, batch = sys.argv[1:]
    torch.set_num_threads(int(threads))
    rows = read_rows(Path(folder) / f"{name}.npz")
    total = sum(int(mask.sum()) for _, mask, _ in rows)
    trainer = make_trainer(model, dtype, int(batch))
    lm = trainer.model
    optimizer = torch.optim.AdamW(lm.parameters(), lr=1e-5)
    trainer.current_gradient_accumulation_steps = 1

    def work() -> None:
        optimizer.zero_grad()
        for first in range(0, len(rows), int(batch)):
            inputs = inputs_of(rows[first : first + int(batch)], total)
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = trainer._compute_loss(lm, inputs)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimizer.step()

    serve(work)


if __name__ == "__main__":
    main()

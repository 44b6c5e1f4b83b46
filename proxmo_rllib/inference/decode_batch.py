"""The requests that a transformers model decodes together: left-padded, with one KV cache, joined and left at any step.

columns:   pad pad  p0  p1  p2 | r0  r1      a row's mask is False on its padding
           p0  p1   p2  p3  p4 | r0  r1      all rows end in the same column, where the next token goes
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import DynamicCache

from proxmo_rllib.inference.row_attention import BLOCK, missing, padded_by
from proxmo_rllib.types import Completion, SamplingParams

KVCache = list[tuple[torch.Tensor, torch.Tensor]]  # of every layer: keys, values [rows, heads, columns, head size]


@dataclass(slots=True)
class Request:
    """One prompt, and what was sampled for it so far."""

    prompt_ids: list[int]
    params: SamplingParams
    generator: torch.Generator
    deliver: Callable[[Completion | Exception], None]
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    version: int = -1  # of the weights that sampled the first token
    version_changes: list[tuple[int, int]] = field(default_factory=list)  # see `VersionChanges`

    def finish_reason(self) -> str | None:
        """Why it has ended, or None if it goes on."""
        if self.token_ids[-1] in self.params.stop_token_ids:
            return "stop"
        return "length" if len(self.token_ids) >= self.params.max_tokens else None


class DecodeBatch:
    """Rows under way. Not for several threads."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._cache: KVCache = []
        self._mask = torch.zeros((0, 0), dtype=torch.bool, device=device)  # [rows, columns]
        self.rows: list[Request] = []

    def join(self, requests: list[Request], version: int) -> None:
        """Computes the requests' prompts, samples one token for each, and lets those that go on join the batch."""
        sequences = [request.prompt_ids + request.token_ids for request in requests]
        width = max(len(sequence) for sequence in sequences)
        width += missing(width)
        ids = torch.tensor([[0] * (width - len(ids)) + ids for ids in sequences], device=self._device)
        lengths = torch.tensor([len(sequence) for sequence in sequences], device=self._device)
        mask = torch.arange(width, device=self._device) >= width - lengths[:, None]
        cache = self._forward(requests, ids, mask, [], version)

        columns = max(width, self._mask.shape[1])
        if self.rows:
            ours, theirs = columns - self._mask.shape[1], columns - width
            cache = [
                (torch.cat([_pad(k, ours), _pad(new_k, theirs)]), torch.cat([_pad(v, ours), _pad(new_v, theirs)]))
                for (k, v), (new_k, new_v) in zip(self._cache, cache, strict=True)
            ]
            mask = torch.cat([functional.pad(self._mask, (ours, 0)), functional.pad(mask, (theirs, 0))])
        self._cache, self._mask = cache, mask
        self.rows += requests
        self._drop_finished()

    def step(self, version: int) -> None:
        """Samples one more token for every row."""
        ids = torch.tensor([[request.token_ids[-1]] for request in self.rows], device=self._device)
        self._mask = functional.pad(self._mask, (0, 1), value=True)
        self._cache = self._forward(self.rows, ids, self._mask, self._cache, version)
        self._drop_finished()

    def recompute(self, waiting: deque[Request]) -> None:
        """Sends all rows back to the head of the queue, to join again under other weights."""
        waiting.extendleft(reversed(self.rows))
        self._keep([])

    def _forward(
        self, requests: list[Request], ids: torch.Tensor, mask: torch.Tensor, cache: KVCache, version: int
    ) -> KVCache:
        """Runs `ids` [rows, new columns] after what is cached, samples, and returns the longer cache."""
        rows, new = ids.shape
        if new % BLOCK and (extra := missing(rows)):
            index = torch.tensor([*range(rows), *[0] * extra], device=self._device)
            ids, mask = ids[index], mask[index]
            cache = [(k[index], v[index]) for k, v in cache]
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -new:]
        with padded_by(mask.int().argmax(-1).tolist()):
            output = self._model(
                input_ids=ids,
                attention_mask=mask.long(),
                position_ids=positions,
                past_key_values=DynamicCache(ddp_cache_data=cache),
                use_cache=True,
                logits_to_keep=min(new, BLOCK),
            )
        sample(requests, output.logits[:rows, -1].float(), version)
        return [(layer.keys[:rows], layer.values[:rows]) for layer in output.past_key_values.layers]

    def _drop_finished(self) -> None:
        keep = [row for row, request in enumerate(self.rows) if request.finish_reason() is None]
        if len(keep) < len(self.rows):
            deliver_finished(self.rows)
            self._keep(keep)

    def _keep(self, rows: list[int]) -> None:
        self.rows = [self.rows[row] for row in rows]
        if not rows:
            self._cache, self._mask = [], self._mask[:0, :0]
            return
        index = torch.tensor(rows, device=self._device)
        mask = self._mask[index]
        # Columns that only padded the rows which left.
        first = int(mask.any(0).int().argmax())
        self._mask = mask[:, first:]
        self._cache = [(k[index][:, :, first:], v[index][:, :, first:]) for k, v in self._cache]


def deliver_finished(requests: list[Request]) -> list[Request]:
    """Hands out the completions of requests that have ended. Returns the others."""
    unfinished = []
    for request in requests:
        reason = request.finish_reason()
        if reason is None:
            unfinished.append(request)
            continue
        request.deliver(
            Completion(
                token_ids=np.array(request.token_ids, np.int32),
                logprobs=np.array(request.logprobs, np.float32),
                finish_reason=reason,
                policy_version=request.version,
                version_changes=tuple(request.version_changes),
            )
        )
    return unfinished


def sample(requests: list[Request], logits: torch.Tensor, version: int) -> None:
    """Appends a token and its logprob to every request; each draws from its own generator.

    Args:
        requests: one a row.
        logits: float32 [rows, vocabulary]
        version: of the weights behind the logits.
    """
    temperatures = torch.tensor([request.params.temperature for request in requests], device=logits.device)
    greedy = temperatures == 0
    logprobs = (logits / temperatures.masked_fill(greedy, 1.0)[:, None]).log_softmax(-1)
    # argmax(logprob + Gumbel noise) is a draw from the distribution.
    noise = torch.stack(
        [torch.empty(logits.shape[-1]).exponential_(generator=request.generator) for request in requests]
    ).to(logits.device)
    noise = -noise.clamp_min(torch.finfo(noise.dtype).tiny).log()
    tokens = (logprobs + noise.masked_fill(greedy[:, None], 0.0)).argmax(-1)
    chosen = logprobs.gather(1, tokens[:, None])[:, 0]
    for request, token, logprob in zip(requests, tokens.tolist(), chosen.tolist(), strict=True):
        if not request.token_ids:
            request.version = version
        elif version != (request.version_changes[-1][1] if request.version_changes else request.version):
            request.version_changes.append((len(request.token_ids), version))
        request.token_ids.append(token)
        request.logprobs.append(logprob)


def _pad(tensor: torch.Tensor, columns: int) -> torch.Tensor:
    """Adds columns at the left of keys or values [rows, heads, columns, head size]."""
    return functional.pad(tensor, (0, 0, columns, 0))

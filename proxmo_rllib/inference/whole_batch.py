"""Decoding without a cache: every step computes all sequences anew.

For models whose state is more than keys and values (linear attention, state spaces), which `DecodeBatch` cannot carry
from step to step. Exact, and slow: the work of a response grows with the square of its length.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from proxmo_rllib.inference.decode_batch import Request, deliver_finished, sample

_MAX_LOGITS = 64 * 2**20  # in memory at once, elements


class WholeBatch:
    """Rows under way, with the methods of `DecodeBatch`. Not for several threads."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._vocab_size = int(model.config.get_text_config().vocab_size)
        self.rows: list[Request] = []

    def join(self, requests: list[Request], version: int) -> None:
        """Samples one token for each request, and lets those that go on join the batch."""
        self._sample(requests, version)
        self.rows += deliver_finished(requests)

    def step(self, version: int) -> None:
        """Samples one more token for every row."""
        self._sample(self.rows, version)
        self.rows = deliver_finished(self.rows)

    def recompute(self, waiting: deque[Request]) -> None:
        """Nothing is kept of the old weights; the rows go on."""

    def _sample(self, requests: list[Request], version: int) -> None:
        longest = max(len(request.prompt_ids) + len(request.token_ids) for request in requests)
        rows = max(1, _MAX_LOGITS // (longest * self._vocab_size))
        for start in range(0, len(requests), rows):
            part = requests[start : start + rows]
            sample(part, self._last_logits([r.prompt_ids + r.token_ids for r in part]), version)

    def _last_logits(self, sequences: list[list[int]]) -> torch.Tensor:
        """Logits after each sequence, float32 [sequences, vocabulary]."""
        lengths = torch.tensor([len(sequence) for sequence in sequences], device=self._device)
        # Padded on the right: what comes before never sees it, whatever kind a layer is of.
        ids = torch.zeros((len(sequences), int(lengths.max())), dtype=torch.int64, device=self._device)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence, device=self._device)
        logits = self._model(input_ids=ids, use_cache=False).logits
        return logits[torch.arange(len(sequences), device=self._device), lengths - 1].float()

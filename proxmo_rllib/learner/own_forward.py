"""Logits of chosen tokens by the model's own forward pass, whatever stands between its trunk and them.

A causal LM is a trunk (embedding and layers) and what its class does afterwards: a head, and perhaps a norm, a bias, a
scale or a cap. Only the trunk has to see every token. So the trunk runs once, and the model's own `forward` is called
again with the trunk's place taken by the hidden states of the tokens that count:

    lm(token_ids) ─► trunk ─► hidden [sequences, tokens, width] ─► chosen [n, width]
    lm(...) with the chosen states in the trunk's place ─► head, scale, cap, ... ─► logits [n, vocabulary]

Nothing of the second half is written again here, and so nothing of it can be forgotten.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

# Tokens of the probe on which both ways are compared when a model is taken apart.
_PROBE_SHAPE = (2, 24)
# Of a logit, absolute: the same arithmetic on other shapes may round in another order.
_TOLERANCE = 1e-3


class OwnForward:
    """A causal LM of transformers, taken apart.

    Args:
        lm: the model.

    Raises:
        ValueError: its forward cannot be taken apart, or does not give the same logits then.
    """

    def __init__(self, lm: Any) -> None:
        self.lm = lm
        self.vocab_size = int(lm.config.get_text_config().vocab_size)
        self._trunk, self._output_type = self._find_trunk()
        self._compare()

    def hidden(self, token_ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """What the trunk makes of token ids.

        Args:
            token_ids: int64 [sequences, tokens], padded on the right.
            **kwargs: more for the model's forward.

        Returns:
            [sequences, tokens, width]
        """
        caught: list[torch.Tensor] = []

        def catch(module: Any, arguments: Any, output: Any) -> Any:
            caught.append(output.last_hidden_state)
            # The rest of the forward pass has nothing to do.
            return type(output)(last_hidden_state=output.last_hidden_state[:, :0])

        handle = self._trunk.register_forward_hook(catch)
        try:
            self.lm(input_ids=token_ids, use_cache=False, **kwargs)
        finally:
            handle.remove()
        return caught[0]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the model makes of hidden states of its trunk.

        Args:
            hidden: [tokens, width]

        Returns:
            [tokens, vocabulary]
        """
        with self._in_place_of_trunk(hidden):
            # The ids are not read: the trunk would.
            ids = torch.zeros((1, len(hidden)), dtype=torch.int64, device=hidden.device)
            logits: torch.Tensor = self.lm(input_ids=ids, use_cache=False).logits[0]
        return logits

    @contextlib.contextmanager
    def _in_place_of_trunk(self, hidden: torch.Tensor) -> Iterator[None]:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            return self._output_type(last_hidden_state=hidden[None])

        self._trunk.forward = stand_in
        try:
            yield
        finally:
            del self._trunk.forward  # the class's own shows again

    def _find_trunk(self) -> tuple[Any, type]:
        """The module whose output is the hidden states that `lm.forward` goes on with, and the type of its output."""
        seen: list[tuple[Any, type]] = []

        def note(module: Any, arguments: Any, output: Any) -> None:
            if getattr(output, "last_hidden_state", None) is not None:
                seen.append((module, type(output)))

        # The base model in most classes, its decoder in some, a child that has no name of its own in others.
        candidates = dict.fromkeys((self.lm.base_model, self.lm.get_decoder(), *self.lm.children()))
        handles = [m.register_forward_hook(note) for m in candidates if m is not None and m is not self.lm]
        try:
            with torch.no_grad():
                self.lm(input_ids=self._probe(), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        if not seen:
            raise ValueError(self._refusal("its forward calls no module that returns a last_hidden_state"))
        return seen[-1]  # the outermost ends last

    def _probe(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(self.vocab_size, _PROBE_SHAPE, generator=generator)
        return ids.to(next(self.lm.parameters()).device)

    @torch.no_grad()
    def _compare(self) -> None:
        ids = self._probe()
        whole = self.lm(input_ids=ids, use_cache=False).logits.float()
        taken_apart = self.logits(self.hidden(ids).flatten(0, 1)).float().view_as(whole)
        error = float((whole - taken_apart).abs().max())
        if not error <= _TOLERANCE * max(1.0, float(whole.abs().max())):
            raise ValueError(self._refusal(f"its logits differ by {error:.3g} when it is taken apart"))

    def _refusal(self, reason: str) -> str:
        return (
            f"{type(self.lm).__name__} ({self.lm.config.name_or_path or self.lm.config.model_type}) cannot be trained: "
            f"{reason}. Take a model of another family."
        )

"""RLModule around a Hugging Face causal LM: logprobs of the sampled tokens, with the LM head applied to them only."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.annotations import override
from torch.utils.checkpoint import checkpoint

from proxmo_rllib.learner import columns

# Logits in memory at once, elements: 64 Mi float32 are 256 MiB.
_MAX_LOGITS = 64 * 2**20


class CausalLMModule(TorchRLModule):
    """The policy. `model_config` is `ProxMOConfig.module_settings()`.

    The weights are float32 whatever `dtype` says; with bfloat16 the arithmetic runs under autocast.
    """

    @override(TorchRLModule)
    def setup(self) -> None:
        from proxmo_rllib.policies.loading import load_causal_lm

        settings: dict[str, Any] = dict(self.model_config)
        self._temperature = float(settings["temperature"])
        self._autocast_dtype = torch.bfloat16 if settings["dtype"] == "bfloat16" else None
        self.lm = load_causal_lm(settings["pretrained"])
        if settings["gradient_checkpointing"]:
            self.lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            # Without dropout, training mode means nothing else; outside of it transformers checkpoints nothing.
            _remove_dropout(self.lm)
            self.lm.train()
        self.reference = None
        if settings["with_reference"]:
            self.reference = load_causal_lm(settings["pretrained"]).requires_grad_(False).eval()

    @override(TorchRLModule)
    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        logprobs, entropy = self._logprobs(self.lm, batch)
        return {columns.LOGPROBS: logprobs, columns.ENTROPY: entropy}

    @override(TorchRLModule)
    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        return self._forward_train(batch, **kwargs)

    @torch.no_grad()
    def reference_logprobs(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logprobs under the frozen initial policy, float32 [tokens]."""
        if self.reference is None:
            raise RuntimeError("There is no reference model; it is loaded when kl_coef > 0.")
        return self._logprobs(self.reference, batch)[0]

    @torch.no_grad()
    def score(self, token_ids: list[int], num_context: int) -> torch.Tensor:
        """Logprobs at temperature 1 of the tokens after the context, float32 [tokens]: what engines say too."""
        ids = torch.tensor([token_ids], device=next(self.lm.parameters()).device)
        with self._autocast(ids.device):
            logits = self.lm(input_ids=ids, use_cache=False).logits[0, num_context - 1 : -1]
        targets = ids[0, num_context:, None]
        return logits.float().log_softmax(-1).gather(1, targets)[:, 0].cpu()

    def _logprobs(self, lm: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        token_ids = batch[columns.TOKEN_IDS]
        # Token t is predicted by the hidden state at t - 1. Sequences are padded on the right, so that under the causal
        # mask no real token sees padding, and no attention mask is needed.
        chosen = batch[columns.LOSS_MASK][:, 1:]
        with self._autocast(token_ids.device):
            hidden = lm.get_decoder()(input_ids=token_ids, use_cache=False).last_hidden_state[:, :-1][chosen]
            return self._head(lm, hidden, token_ids[:, 1:][chosen])

    def _head(self, lm: Any, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        head = lm.get_output_embeddings()
        rows = max(1, _MAX_LOGITS // head.weight.shape[0])
        if len(hidden) <= rows:
            return _token_statistics(head, hidden, targets, self._temperature)
        parts = [
            checkpoint(_token_statistics, head, h, t, self._temperature, use_reentrant=False)
            for h, t in zip(hidden.split(rows), targets.split(rows), strict=True)
        ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        if self._autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self._autocast_dtype)

    def exported_weights(self) -> dict[str, torch.Tensor]:
        """The policy's tensors under their Hugging Face names, tied ones once, in the engines' dtype."""
        dtype = self._autocast_dtype or torch.float32
        return {name: p.detach().to("cpu", dtype).contiguous() for name, p in self.lm.named_parameters()}

    @override(TorchRLModule)
    def get_state(
        self,
        components: Any = None,
        *,
        not_components: Any = None,
        inference_only: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The policy's tensors; nothing for environment runners, which hold no weights."""
        if inference_only:
            return {}
        return {name: tensor.detach().cpu().clone() for name, tensor in self.lm.state_dict().items()}

    @override(TorchRLModule)
    def set_state(self, state: dict[str, Any]) -> None:
        if state:
            self.lm.load_state_dict(state)


def _remove_dropout(lm: torch.nn.Module) -> None:
    """Two passes over the same tokens must agree: the surrogate compares them."""
    for module in lm.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def _token_statistics(
    head: Any, hidden: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logprob of each target and entropy of its distribution, float32 [tokens] both."""
    # float32: in bfloat16 the difference of two logprobs that are 0.01 apart is noise.
    log_p = torch.log_softmax(head(hidden).float() / temperature, dim=-1)
    logprobs = log_p.gather(1, targets[:, None])[:, 0]
    entropy = -(log_p.exp() * log_p).sum(-1)
    return logprobs, entropy

"""RLModule around a Hugging Face causal LM: logprobs of the sampled tokens, with logits made for them only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.annotations import override
from torch.utils.checkpoint import checkpoint

from proxmo_rllib.config_records import Sharding
from proxmo_rllib.learner import columns, sharding
from proxmo_rllib.learner.own_forward import OwnForward
from proxmo_rllib.policies.attention import choose_attention
from proxmo_rllib.policies.checkpoint_names import checkpoint_tensors
from proxmo_rllib.policies.loading import load_causal_lm
from proxmo_rllib.policies.streaming import LoadingPlan, empty_causal_lm

# Logits in memory at once, elements: 64 Mi float32 are 256 MiB.
_MAX_LOGITS = 64 * 2**20


class CausalLMModule(TorchRLModule):
    """The policy. `model_config` is `ProxMOConfig.module_settings()`.

    The weights are float32 whatever `dtype` says; with bfloat16 the arithmetic runs under autocast.
    """

    @override(TorchRLModule)
    def setup(self) -> None:
        settings: dict[str, Any] = dict(self.model_config)
        self._temperature = float(settings["temperature"])
        self._autocast_dtype = torch.bfloat16 if settings["dtype"] == "bfloat16" else None
        self._checkpoints_gradients = bool(settings["gradient_checkpointing"])
        self._plan: LoadingPlan | None = None
        self.reference = None
        self._frozen: OwnForward | None = None
        if settings["sharded"]:
            # Until `shard` there are no weights.
            self.lm, self._plan = empty_causal_lm(settings["pretrained"])
            if settings["with_reference"]:
                self.reference, _ = empty_causal_lm(settings["pretrained"])
                self.reference.requires_grad_(False)
            return
        self.lm = load_causal_lm(settings["pretrained"])
        if settings["with_reference"]:
            self.reference = load_causal_lm(settings["pretrained"]).requires_grad_(False).eval()
        self._prepare()

    def _prepare(self) -> None:
        """Takes the models apart, which have their weights by now."""
        _remove_noise(self.lm)
        self._policy = OwnForward(self.lm)
        if self._checkpoints_gradients:
            self.lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            # Without noise, training mode means nothing else; outside of it transformers checkpoints nothing.
            self.lm.train()
        if self.reference is not None:
            self._frozen = OwnForward(self.reference)

    def shard(self, device: torch.device, settings: Sharding) -> None:
        """Divides the models among all learners and reads this one's share; called by all of them together.

        Args:
            device: where this learner computes.
            settings: how.

        Raises:
            ValueError: the model cannot be divided or taken apart, or its files are not whole.
        """
        if self._plan is None:
            raise RuntimeError("The module was built whole; `sharded` of its settings is False.")
        models = [self.lm] if self.reference is None else [self.lm, self.reference]
        for lm in models:
            sharding.shard(lm, self._plan, device, settings)
            choose_attention(lm)
        self._prepare()
        for lm in models:
            sharding.compute_in(lm, self._autocast_dtype)

    @property
    def device(self) -> torch.device:
        """Where the policy computes."""
        return sharding.device_of(self.lm)

    @contextlib.contextmanager
    def _passing(self, lm: Any, *, exact: bool = False) -> Iterator[None]:
        """Around a pass that no backward pass follows: nothing of a sharded model stays whole after it."""
        with sharding.in_float32(lm) if exact else contextlib.nullcontext():
            yield
            sharding.bring_to_rest(lm)

    @override(TorchRLModule)
    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        logprobs, entropy = self._logprobs(self._policy, batch, self._temperature, self._autocast_dtype)
        return {columns.LOGPROBS: logprobs, columns.ENTROPY: entropy}

    @override(TorchRLModule)
    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        return self._forward_train(batch, **kwargs)

    @torch.no_grad()
    def reference_logprobs(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logprobs under the frozen initial policy, float32 [tokens]."""
        if self._frozen is None:
            raise RuntimeError("There is no reference model; it is loaded when kl_coef > 0.")
        with self._passing(self.reference):
            return self._logprobs(self._frozen, batch, self._temperature, self._autocast_dtype)[0]

    @torch.no_grad()
    def score(self, token_ids: list[int], num_context: int, *, exact: bool = False) -> torch.Tensor:
        """Logprobs at temperature 1 of the tokens after the context, float32 [tokens]: what engines say too.

        They take the same way as those of the loss. Of a sharded policy all learners ask together.

        Args:
            token_ids: a sequence.
            num_context: tokens at its start that are given.
            exact: in float32 throughout, whatever `dtype` says.
        """
        ids = torch.tensor([token_ids], device=self.device)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        mask[:, num_context:] = True
        batch = {columns.TOKEN_IDS: ids, columns.LOSS_MASK: mask}
        dtype = None if exact else self._autocast_dtype
        with self._passing(self.lm, exact=exact):
            return self._logprobs(self._policy, batch, 1.0, dtype)[0].cpu()

    def trunk(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Hidden states of token ids [sequences, tokens], by the arithmetic of the loss: [sequences, tokens, width]."""
        with _autocast(token_ids.device, self._autocast_dtype):
            return self._policy.hidden(token_ids)

    def most_logits(self, tokens: int) -> int:
        """Logits that are in memory at once when so many tokens count."""
        return min(tokens * self._policy.vocab_size, _MAX_LOGITS)

    def _logprobs(
        self, model: OwnForward, batch: dict[str, Any], temperature: float, autocast: torch.dtype | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        token_ids = batch[columns.TOKEN_IDS]
        # Token t is predicted by the hidden state at t - 1. Sequences are padded on the right, so that under the causal
        # mask no real token sees padding, and no attention mask is needed.
        chosen = batch[columns.LOSS_MASK][:, 1:]
        with _autocast(token_ids.device, autocast):
            hidden = model.hidden(token_ids)[:, :-1][chosen]
            return _in_parts(model, hidden, token_ids[:, 1:][chosen], temperature)

    def exported_weights(self) -> dict[str, torch.Tensor]:
        """The policy's tensors under their checkpoint's names, tied ones once, in the engines' dtype.

        Of a sharded policy this learner's part of them; all learners ask together.
        """
        dtype = self._autocast_dtype or torch.float32
        if sharding.is_sharded(self.lm):
            return sharding.exported_share(self.lm, dtype)
        return checkpoint_tensors(self.lm, dtype)

    @override(TorchRLModule)
    def get_state(
        self,
        components: Any = None,
        *,
        not_components: Any = None,
        inference_only: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The policy's tensors; nothing for environment runners, which hold no weights, nor of a sharded policy."""
        if inference_only or self._plan is not None:
            return {}
        return {name: tensor.detach().cpu().clone() for name, tensor in self.lm.state_dict().items()}

    @override(TorchRLModule)
    def set_state(self, state: dict[str, Any]) -> None:
        if state:
            self.lm.load_state_dict(state)


def _remove_noise(lm: torch.nn.Module) -> None:
    """Two passes over the same tokens must agree, since the surrogate compares them: no dropout, no jitter."""
    for module in lm.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in name or "jitter" in name):
                setattr(module, name, 0.0)


def _autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[Any]:
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def _in_parts(
    model: OwnForward, hidden: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`_token_statistics` with no more than `_MAX_LOGITS` logits in memory, in the backward pass too."""
    rows = max(1, _MAX_LOGITS // model.vocab_size)
    if len(hidden) <= rows:
        return _token_statistics(model, hidden, targets, temperature)
    parts = [
        checkpoint(_token_statistics, model, h, t, temperature, use_reentrant=False)
        for h, t in zip(hidden.split(rows), targets.split(rows), strict=True)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _token_statistics(
    model: OwnForward, hidden: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logprob of each target and entropy of its distribution, float32 [tokens] both."""
    # float32: in bfloat16 the difference of two logprobs that are 0.01 apart is noise.
    log_p = torch.log_softmax(model.logits(hidden).float() / temperature, dim=-1)
    logprobs = log_p.gather(1, targets[:, None])[:, 0]
    entropy = -(log_p.exp() * log_p).sum(-1)
    return logprobs, entropy

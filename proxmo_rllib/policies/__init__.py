"""Policies: loading a Hugging Face causal LM, and building a tiny one for CPU."""

from proxmo_rllib.policies.loading import load_causal_lm, load_tokenizer, resolve_pretrained

__all__ = ["load_causal_lm", "load_tokenizer", "resolve_pretrained"]

"""Reinforcement learning of multi-turn language-model agents with ProxMO, on Ray RLlib and vLLM."""

"""Rollouts: many episodes at once in one event loop, whole groups from one initial state."""

from proxmo_rllib.rollouts.agents import Agent, EnginePolicyAgent, ScriptedAgent
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation
from proxmo_rllib.rollouts.env_runner import SampleResult, TextEnvRunner

__all__ = [
    "Agent",
    "ChatFormat",
    "Conversation",
    "EnginePolicyAgent",
    "SampleResult",
    "ScriptedAgent",
    "TextEnvRunner",
]

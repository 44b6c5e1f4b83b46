"""An OpenAI-compatible endpoint: agent programs that know nothing of this package play with the policy, and it learns.

    agent program ──chat completions──► server ──► OpenEpisode ──prompt ids──► agent (the engines)
                  ──reward───────────►         └─► PrefixTree: what was sampled stays as it was sampled

`OutsideAgent` is the environment whose episodes such programs play; `proxmo endpoint` serves without training.
"""

from proxmo_rllib.endpoint.environment import OutsideAgent
from proxmo_rllib.endpoint.programs import AgentEpisode, Outcome

__all__ = ["AgentEpisode", "Outcome", "OutsideAgent"]

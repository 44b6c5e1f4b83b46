"""Behaviour cloning through the same rollouts and the same Learner, and warm starts made with it."""

from proxmo_rllib.imitation.algorithm import BehaviourCloning, BehaviourCloningConfig
from proxmo_rllib.imitation.warm_start import WarmStart

__all__ = ["BehaviourCloning", "BehaviourCloningConfig", "WarmStart"]

"""The learner: connectors that turn groups into batches, the loss, and RLlib's TorchLearner around them."""

from proxmo_rllib.learner.advantages_connector import ProxMOAdvantages
from proxmo_rllib.learner.learner import ProxMOLearner
from proxmo_rllib.learner.module import CausalLMModule
from proxmo_rllib.learner.token_batches import TokenBatches
from proxmo_rllib.learner.training_data import GroupedTrainingData

__all__ = ["CausalLMModule", "GroupedTrainingData", "ProxMOAdvantages", "ProxMOLearner", "TokenBatches"]

"""This project in other programs, and theirs in this one: advantages, environments, records.

- `credit`, `tensors`, `verl_estimator`, `trl_trainer`: advantages where another program trains.
- `trl_rollout`, `openenv_server`, `verifiers_env`: text environments of this project, there.
- `openenv_client`, `verifiers_client`: their environments as text environments here.
- `dataset_folder`: recorded episodes to and from a folder of Hugging Face `datasets`.
- `demonstrations`: recorded episodes as a script, for a warm start.

Each module needs its own program and is imported by nobody else here. None of them needs Ray.
"""

from proxmo_rllib.integrations.credit import PlayedEpisode, token_advantages, turn_advantages

__all__ = ["PlayedEpisode", "token_advantages", "turn_advantages"]

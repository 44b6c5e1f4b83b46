"""TRL's GRPOTrainer with this project's advantages; for trl 1.16, whose `_generate_and_score_completions` it extends.

```python
trainer = ProxMOTrainer(
    model,
    reward_funcs=episode_return,
    rollout_func=TextEnvRollout("env_wrappers/TextCraft-v0", max_turns=10),
    args=GRPOConfig(num_generations=8, max_completion_length=64),
    train_dataset=Dataset.from_dict({"prompt": tasks}),
    advantage_estimator="proxmo",
)
```

A rollout function says what was played in the field `played`, a PlayedEpisode for each completion. The loss, the
clipping and the rest are TRL's: its loss takes advantages of shape [completions, tokens] as well as [completions].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from proxmo_rllib.advantages import Estimator, validate_options
from proxmo_rllib.integrations.credit import PlayedEpisode
from proxmo_rllib.integrations.packages import require
from proxmo_rllib.integrations.tensors import advantage_tensor

VERSIONS = ">=1.16,<1.17"
INSTALL = 'pip install "proxmo_rllib[trl]"'
PLAYED = "played"

_GRPOTrainer: Any = require("trl", VERSIONS, INSTALL).GRPOTrainer


class ProxMOTrainer(_GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer whose advantages are one of this project's estimators', turn by turn.

    Args:
        *args: of GRPOTrainer.
        advantage_estimator: one of `proxmo_rllib.advantages.ESTIMATORS`, or one of your own.
        estimator_options: its options.
        **kwargs: of GRPOTrainer; `rollout_func` has to return the field `played`.

    Raises:
        ValueError: unknown estimator or option; no rollout function; while training, a rollout without `played`.
    """

    def __init__(
        self,
        *args: Any,
        advantage_estimator: str | Estimator = "proxmo",
        estimator_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._estimator = advantage_estimator
        self._options = dict(estimator_options or {})
        validate_options(self._estimator, self._options)
        if kwargs.get("rollout_func") is None:
            raise ValueError(
                f"rollout_func={kwargs.get('rollout_func')!r}: advantages by turn need to know the turns; give a "
                f"rollout function that returns the field {PLAYED!r}, such as TextEnvRollout."
            )
        super().__init__(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        import torch
        from accelerate.utils import gather_object

        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        mask = batch["completion_mask"] * batch.get("tool_mask", 1)
        # A group may be spread over processes, so everyone estimates for all and keeps the rows of its own.
        episodes = gather_object([_played(row) for row in inputs])
        masks = gather_object(list(mask.cpu().numpy()))
        width = max(len(row) for row in masks)
        padded = torch.from_numpy(np.stack([np.pad(row, (0, width - len(row))) for row in masks]))
        advantages = advantage_tensor(episodes, padded, self._estimator, **self._options)
        start = self.accelerator.process_index * len(inputs)
        own = advantages[start : start + len(inputs), : mask.shape[1]]
        batch["advantages"] = own.to(batch["advantages"].device)
        self._log_advantages(advantages, padded)
        return batch

    def _log_advantages(self, advantages: Any, mask: Any) -> None:
        """Puts the mean over an episode's tokens where TRL's table of completions has its own advantage."""
        logged = self._logs["advantages"]
        for _ in range(min(len(advantages), len(logged))):
            logged.pop()
        logged.extend(((advantages * mask).sum(1) / mask.sum(1).clamp(min=1)).tolist())


def episode_return(played: Sequence[PlayedEpisode], **_: Any) -> list[float]:
    """A reward function for TRL: the undiscounted return of each episode. TRL logs it; the estimator reads `played`."""
    return [float(sum(episode.rewards)) for episode in played]


def _played(row: Mapping[str, Any]) -> PlayedEpisode:
    episode = row.get(PLAYED)
    if not isinstance(episode, PlayedEpisode):
        raise ValueError(
            f"The rollout function returned {PLAYED}={episode!r:.80}: give a proxmo_rllib.integrations.PlayedEpisode "
            "for each completion."
        )
    return episode

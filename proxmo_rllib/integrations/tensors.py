"""Advantages as a tensor, for a training loop in plain torch.

```python
advantages = advantage_tensor(episodes, response_mask, "proxmo", gamma=0.95)
loss = -(torch.exp(logprobs - logprobs.detach()) * advantages)[response_mask].mean()
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxmo_rllib.advantages import Estimator
from proxmo_rllib.integrations.credit import PlayedEpisode, token_advantages

if TYPE_CHECKING:
    import torch


def advantage_tensor(
    episodes: Sequence[PlayedEpisode], mask: torch.Tensor, estimator: str | Estimator = "proxmo", **options: Any
) -> torch.Tensor:
    """`token_advantages` on the mask's device.

    Args:
        episodes: of whole groups, in the order of the rows.
        mask: 1 for a token that the policy said, shape [episodes, tokens].
        estimator: as of `token_advantages`.
        **options: of the estimator.

    Returns:
        float32 [episodes, tokens], without a gradient.

    Raises:
        ValueError: as `token_advantages`.
    """
    import torch

    found = token_advantages(episodes, mask.detach().cpu().numpy(), estimator, **options)
    return torch.from_numpy(found).to(mask.device)

"""Advantages for verl's registry of estimators; written for verl 0.9.

verl hands an estimator rewards, masks and group ids, and nothing that was said or seen. ProxMO compares turns by what
they saw, so the episodes are handed over beside that:

```python
register()  # where verl computes advantages; then algorithm.adv_estimator=proxmo
with episodes_at_hand(episodes):
    data = compute_advantage(data, adv_estimator="proxmo", ...)
```

`docs/other_programs.md` shows where this goes in verl's trainer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from proxmo_rllib.advantages import validate_options
from proxmo_rllib.integrations.credit import PlayedEpisode
from proxmo_rllib.integrations.packages import require
from proxmo_rllib.integrations.tensors import advantage_tensor

if TYPE_CHECKING:
    import torch

VERSIONS = ">=0.9,<0.10"
INSTALL = 'pip install "verl==0.9.*", and this project with --no-deps: their pins exclude each other'

_at_hand: ContextVar[Sequence[PlayedEpisode] | None] = ContextVar("episodes_at_hand", default=None)


@contextmanager
def episodes_at_hand(episodes: Sequence[PlayedEpisode]) -> Iterator[None]:
    """Hands the episodes of a batch, in the order of its rows, to the estimator that verl calls within."""
    token = _at_hand.set(episodes)
    try:
        yield
    finally:
        _at_hand.reset(token)


def register(name: str = "proxmo", **options: Any) -> None:
    """Makes one of this project's estimators known to verl, by its own name.

    Args:
        name: one of `proxmo_rllib.advantages.ESTIMATORS`, and what `algorithm.adv_estimator` says.
        **options: of the estimator; verl's `algorithm.gamma`, a discount by token, is not read.

    Raises:
        ValueError: unknown estimator or option; verl has an estimator of this name, such as "grpo", already.
        ImportError: verl is not there, or another version.
    """
    validate_options(name, options)
    core = require("verl", VERSIONS, INSTALL, "verl.trainer.ppo.core_algos")

    def estimate(
        token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: Any = None, config: Any = None, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        episodes = _at_hand.get()
        if episodes is None:
            raise ValueError(
                f"adv_estimator={name!r}: there are no episodes at hand. Compute advantages within "
                "`with episodes_at_hand(episodes):`, as docs/other_programs.md shows."
            )
        _check_groups(episodes, index)
        advantages = advantage_tensor(episodes, response_mask, name, **options)
        return advantages, advantages  # without a critic nobody learns the second, the returns

    core.register_adv_est(name)(estimate)


def _check_groups(episodes: Sequence[PlayedEpisode], index: Any) -> None:
    """Refuses episodes in another order than the rows: verl's groups must be those of the episodes."""
    if index is None:
        return
    pairs = {(uid, episode.group) for uid, episode in zip(index, episodes, strict=True)}
    if not len(pairs) == len({uid for uid, _ in pairs}) == len({group for _, group in pairs}):
        raise ValueError(
            "The episodes at hand are not grouped as the rows of the batch (`uid`) are; hand them over in the order "
            "of the rows."
        )

"""One module an estimator; importing this package registers them all."""

from proxmo_rllib.advantages.estimators import (
    grpo,
    proxmo,
)

__all__ = ["grpo", "proxmo"]

"""PyTorch 2.11 and 2.12 in the place of 2.13, which the project asks for: two names that they have otherwise.

A machine without a network has the PyTorch that it has. Nothing outside of this benchmark is changed. As a module it is
the command `proxmo` on such a PyTorch.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any


def adapt() -> str:
    """Makes both names what the package expects. Returns what was done, in words; "" if nothing had to be."""
    return "; ".join(done for done in (_adapt_attention(), _adapt_sharding()) if done)


def _adapt_attention() -> str:
    """`varlen_attn` took fewer key heads than query heads before it had a word for it."""
    from torch.nn.attention import varlen

    older = varlen.varlen_attn
    if "enable_gqa" in inspect.signature(older).parameters:
        return ""

    @functools.wraps(older)
    def attend(*args: Any, enable_gqa: bool = False, **kwargs: Any) -> Any:
        return older(*args, **kwargs)

    attend.__signature__ = inspect.signature(attend, follow_wrapped=False)  # type: ignore[attr-defined]
    varlen.varlen_attn = attend
    return "varlen_attn without enable_gqa"


def _adapt_sharding() -> str:
    """The state of FSDP2 had one group of parameters, under the singular."""
    from torch.distributed.fsdp._fully_shard._fsdp_state import FSDPState

    if hasattr(FSDPState(), "_fsdp_param_groups"):
        return ""

    def groups(state: Any) -> list[Any]:
        return [] if state._fsdp_param_group is None else [state._fsdp_param_group]

    FSDPState._fsdp_param_groups = property(groups)
    return "FSDP2 with one group of parameters"


if __name__ == "__main__":
    adapt()
    from proxmo_rllib.cli import main

    sys.exit(main())

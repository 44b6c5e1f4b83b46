"""A run of W&B that never ends a training: offline where there is no key or no network, given up where it breaks."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb

from proxmo_rllib.training_run.wandb_log import FINISH_S

logger = logging.getLogger(__name__)

# W&B's own patience is 90 s for a start.
REACH_S = 5.0
START_S = 20.0
_PORTS = {"http": 80, "https": 443}


class WandbRun:
    """Begins a run of W&B, and logs to it.

    Where W&B cannot be reached, or takes none of ours, the run is kept on this disk, and a warning says why.

    Args:
        init: arguments of `wandb.init`.
    """

    def __init__(self, **init: Any) -> None:
        reason = why_offline(os.environ)
        self.offline = reason is not None
        self._broken = False
        if not self.offline:
            try:
                self._run = _init(init)
            except (wandb.Error, TimeoutError, OSError) as error:
                reason = f"it did not take the run: {str(error).splitlines()[0]}"
                self.offline = True
        if self.offline:
            self._run = _init(init | {"mode": "offline"})
            if reason:
                logger.warning("W&B: %s. The run is kept on this disk; send it later with: %s", reason, self.place)

    @property
    def id(self) -> str:
        """W&B's name of the run."""
        return str(self._run.id)

    @property
    def place(self) -> str:
        """Where the run can be seen, or what sends it there."""
        return f"wandb sync {Path(self._run.dir).parent}" if self.offline else str(self._run.url)

    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        """Logs; after the first error no more."""
        if self._broken:
            return
        try:
            self._run.log(dict(numbers), step=step)
        except Exception as error:  # noqa: BLE001 (whatever it is, the training goes on)
            self._give_up(error)

    def finish(self, exit_code: int = 0) -> None:
        """Ends the run; waits for what is unsent, but not for ever."""
        if self._broken:
            return
        try:
            self._run.finish(exit_code=exit_code)
        except Exception as error:  # noqa: BLE001 (the training is over, and has its results)
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        logger.exception(
            "W&B: it broke (%s: %s) and is left alone from here; the run's own files have everything.",
            type(error).__name__,
            error,
        )


def _init(arguments: Mapping[str, Any]) -> Any:
    return wandb.init(**arguments, settings=wandb.Settings(init_timeout=START_S, finish_timeout=FINISH_S))


def why_offline(environment: Mapping[str, str]) -> str | None:
    """Why a run is kept on this disk; "" where that was asked for; None if it goes to W&B.

    Args:
        environment: of this process; WANDB_MODE decides where it is set, but cannot bring a network.
    """
    mode = environment.get("WANDB_MODE", "")
    if mode in {"offline", "dryrun", "disabled"}:
        return ""
    if not mode and not wandb.login(prompt=False, verify=False):
        return ""  # as is documented: without a key a run is kept here
    if any(name.lower() in {"https_proxy", "http_proxy", "all_proxy"} and value for name, value in environment.items()):
        return None  # whether the proxy lets us through, the start will tell
    address = urlsplit(environment.get("WANDB_BASE_URL") or wandb.setup().settings.base_url)
    port = address.port or _PORTS.get(address.scheme, 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=REACH_S).close()
    except OSError as error:
        return f"{address.netloc} cannot be reached ({error})"
    return None

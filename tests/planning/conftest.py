"""A plan's hardware, the same on every machine."""

from __future__ import annotations

import pytest

from proxmo_rllib.planning import Hardware
from proxmo_rllib.planning.hardware import GIB, Speed

HOST = Speed("two cores", {"float32": 2e11, "bfloat16": 4e11}, 2e10, 0.5, 0.01, measured=True)


@pytest.fixture
def one_of_80() -> Hardware:
    return Hardware(gpus=None, gpu_gb=80, host_bytes=None, host=HOST)


@pytest.fixture
def laptop() -> Hardware:
    return Hardware(gpus=0, gpu_gb=80, host_bytes=24 * GIB, host=HOST)

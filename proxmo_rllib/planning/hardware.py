"""What a plan is made for: GPUs of some size, or this machine's processors and memory; and how fast they are."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

GIB = 2**30
#: Of what a card's name says in GB, what a process may use, in GiB: 23.6 of 24 on an RTX 4090, 79.2 of 80 on an H100,
#: 139.8 of 141 on an H200 (torch.cuda.mem_get_info).
_USABLE = 0.985


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast something computes.

    Attributes:
        name: of it.
        flops: floating-point operations a second in large matrix products, by dtype.
        bandwidth: bytes a second from its memory.
        utilisation: share of `flops` that a training step reaches.
        step_s: seconds that a decoding step takes beside reading the weights.
        measured: whether these are measured, and not a data sheet's and assumed.
    """

    name: str
    flops: dict[str, float]
    bandwidth: float
    utilisation: float
    step_s: float
    measured: bool


def _card(name: str, fp32: float, bf16: float, bandwidth: float) -> Speed:
    tera = 1e12
    # Assumed: two fifths of the peak in a training step; 4 ms of launches and scheduling a decoding step.
    return Speed(name, {"float32": fp32 * tera, "bfloat16": bf16 * tera}, bandwidth * tera, 0.4, 0.004, measured=False)


#: Peaks of dense matrix products and memory bandwidths from NVIDIA's data sheets, by GB of memory.
CARDS = {
    24: _card("GeForce RTX 4090", 82.6, 165.2, 1.01),
    40: _card("A100 40 GB", 19.5, 312, 1.555),
    48: _card("L40S", 91.6, 362, 0.864),
    80: _card("H100 SXM", 67, 989, 3.35),
    141: _card("H200 SXM", 67, 989, 4.8),
}


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a run would have.

    Attributes:
        gpus: how many; None if as many as the run reserves.
        gpu_gb: memory of each, as its name says it.
        host_bytes: memory of the machine that all processes are on; None if it is not known.
        host: speed of its processors.
    """

    gpus: int | None
    gpu_gb: float
    host_bytes: int | None
    host: Speed

    @property
    def gpu_bytes(self) -> float:
        """Bytes of one GPU that may be used."""
        return _USABLE * self.gpu_gb * GIB

    @property
    def card(self) -> Speed:
        """Speed of one GPU: of the one among `CARDS` whose memory is nearest."""
        return CARDS[min(CARDS, key=lambda gb: abs(gb - self.gpu_gb))]


def this_machines_gpus() -> tuple[int, float | None]:
    """Number of GPUs of this machine, and GB of the smallest; None without any."""
    count = torch.cuda.device_count()
    sizes = [torch.cuda.get_device_properties(number).total_memory for number in range(count)]
    return count, round(min(sizes) / GIB / _USABLE) if sizes else None


def measure_processors() -> Speed:
    """Speed of this machine's processors, in about half a second: a matrix product, and a copy."""
    flops = {"float32": _product(torch.float32), "bfloat16": _product(torch.bfloat16)}
    # Measured: half of the product's speed is left in a training step, and vLLM's own work is 10 ms a decoding step.
    return Speed("this machine's processors", flops, _copy(), 0.5, 0.01, measured=True)


def _product(dtype: torch.dtype) -> float:
    size = 768
    one = torch.randn(size, size).to(dtype)
    return 2 * size**3 / _seconds(lambda: one @ one)


def _copy() -> float:
    source = torch.ones(16 * 2**20)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source))


def _seconds(work: object) -> float:
    """The quickest of some calls: others are busy too."""
    assert callable(work)
    work()
    times = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)

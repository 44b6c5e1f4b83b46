"""All that is another on a GPU: which device there is, its clock, its memory, how fast it multiplies and copies.

What measures asks here, so that the same lines run on a CPU.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

GIB = 2**30
_PRODUCT, _PRODUCT_ON_CPU = 8192, 768
_COPIED_ON_CPU = 2**24


def device() -> torch.device:
    """The first GPU, or the processor where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def is_gpu() -> bool:
    """Whether there is one."""
    return device().type == "cuda"


def collectives() -> str:
    """The backend of torch.distributed."""
    return "nccl" if is_gpu() else "gloo"


def seconds_of(work: Callable[[], Any]) -> float:
    """Wall time of some work, until the device is done with it."""
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def wait() -> None:
    """Returns when the device has done all that it was told."""
    if is_gpu():
        torch.cuda.synchronize()


def let_go() -> None:
    """Frees what nobody holds any more, and forgets the peaks so far."""
    gc.collect()
    if is_gpu():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):  # not everywhere can a process forget its peak
        Path("/proc/self/clear_refs").write_text("5")


def peaks() -> dict[str, float]:
    """GiB since `let_go`: of the tensors, and of what PyTorch had taken of the GPU; on a CPU of the process."""
    if is_gpu():
        taken = torch.cuda.max_memory_reserved()
        return {"peak_gib": torch.cuda.max_memory_allocated() / GIB, "reserved_gib": taken / GIB}
    highest = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return {"peak_gib": int(highest[1]) * 1024 / GIB if highest else 0.0}


def held_gib() -> float:
    """GiB that PyTorch holds of the GPU; on a CPU those of the process."""
    if is_gpu():
        return torch.cuda.memory_reserved() / GIB
    return psutil.Process().memory_info().rss / GIB


def product_width() -> int:
    """Of the square matrices whose product is the peak."""
    return _PRODUCT if is_gpu() else _PRODUCT_ON_CPU


@functools.cache
def peak_flops() -> float:
    """Operations a second of a large bfloat16 matrix product, on random numbers: the median of five tries."""
    width = product_width()
    one, other = (torch.randn(width, width, device=device()).to(torch.bfloat16) for _ in range(2))
    product = torch.empty_like(one)
    rounds = 10 if is_gpu() else 1

    def multiply() -> None:
        for _ in range(rounds):
            torch.mm(one, other, out=product)

    multiply()
    return rounds * 2 * width**3 / statistics.median(seconds_of(multiply) for _ in range(5))


def copy_rates(num_bytes: int) -> dict[str, float]:
    """GB/s of one plain copy of so many bytes: from the device to the host, within the host, and to the device."""
    on_device = torch.zeros(num_bytes, dtype=torch.uint8, device=device())
    on_host, another = (torch.zeros(num_bytes, dtype=torch.uint8) for _ in range(2))
    ways = {"to_host": (on_host, on_device), "in_host": (another, on_host), "to_device": (on_device, on_host)}
    return {
        name: num_bytes / min(seconds_of(functools.partial(target.copy_, source)) for _ in range(2)) / 1e9
        for name, (target, source) in ways.items()
    }


def device_bandwidth() -> float:
    """GB/s of a copy within the device's memory, bytes read and bytes written."""
    size = 2 * GIB if is_gpu() else _COPIED_ON_CPU
    source = torch.zeros(size, dtype=torch.uint8, device=device())
    target = torch.empty_like(source)
    return 2 * size / min(seconds_of(lambda: target.copy_(source)) for _ in range(4)) / 1e9


def facts() -> dict[str, Any]:
    """Card, driver, processor and versions; asked without taking any of the card's memory."""
    found = {"card": "none", "card_memory": "none", "driver": "none", "power_limit": "none"} | _card()
    found |= {"cuda": torch.version.cuda or "none", "processor": processor(), "cores": str(os.cpu_count())}
    versions = {name: _version(name) for name in ("transformers", "peft", "numpy", "ray")}
    return found | {"python": platform.python_version(), "torch": torch.__version__} | versions


def _card() -> dict[str, str]:
    if not is_gpu():
        return {}
    asked = [
        "nvidia-smi",
        "--query-gpu=name,memory.total,driver_version,power.limit",
        "--format=csv,noheader",
        "--id=0",
    ]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return {"card": f"nvidia-smi: {type(error).__name__}"}
    values = [value.strip() for value in said.split(",")]
    return dict(zip(("card", "card_memory", "driver", "power_limit"), values, strict=False))


def processor() -> str:
    """The name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return named[1] if named else platform.machine()


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "none"

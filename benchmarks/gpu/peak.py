"""What the device can do at best: a bfloat16 matrix product, and a copy within its memory."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu import device


def measure(case: str, tiny: bool) -> dict[str, Any]:
    """Speed of the "product", or of the "copy"."""
    if case == "product":
        return {"width": device.product_width(), "tflops": device.peak_flops() / 1e12}
    return {"gb_per_s": device.device_bandwidth()}

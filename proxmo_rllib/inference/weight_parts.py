"""Weights that come in parts, each learner's own: written as the one file that an engine reads.

The file is byte for byte what `weights.serialise` packs of the whole, so that an engine need not know of parts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proxmo_rllib.inference.weights import DTYPE_NAMES, WeightsMismatchError, manifest_of_blob

_WIDTHS = {name: dtype.itemsize for dtype, name in DTYPE_NAMES.items()}


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    entry: dict[str, Any]
    data: np.ndarray  # uint8 [bytes]: a view of its part


def write_parts(parts: Sequence[np.ndarray], path: Path) -> None:
    """Writes one safetensors file of all tensors in several, and copies nothing in memory.

    Args:
        parts: what `weights.serialise` packed, uint8 [bytes] each.
        path: of the file.

    Raises:
        WeightsMismatchError: two parts have the same tensor, or one is no safetensors.
    """
    tensors: dict[str, _Tensor] = {}
    for part in parts:
        manifest_of_blob(part)
        length = int.from_bytes(part[:8].tobytes(), "little")
        header = json.loads(part[8 : 8 + length].tobytes())
        for name, entry in header.items():
            if name in tensors:
                raise WeightsMismatchError(f"Weights refused: {name} is in two parts of {len(parts)}.")
            start, stop = entry["data_offsets"]
            tensors[name] = _Tensor(name, entry, part[8 + length + start : 8 + length + stop])
    # The order of `serialise`: the widest types first keep every tensor aligned to its own width.
    ordered = sorted(tensors.values(), key=lambda tensor: (-_WIDTHS[tensor.entry["dtype"]], tensor.name))
    entries: dict[str, dict[str, Any]] = {}
    end = 0
    for tensor in ordered:
        start, end = end, end + len(tensor.data)
        entries[tensor.name] = {**tensor.entry, "data_offsets": [start, end]}
    header_bytes = json.dumps(entries, separators=(",", ":")).encode()
    header_bytes += b" " * (-len(header_bytes) % 8)
    with path.open("wb") as file:
        file.write(len(header_bytes).to_bytes(8, "little"))
        file.write(header_bytes)
        for tensor in ordered:
            file.write(tensor.data.data)

"""Imports the heavy libraries in a process of its own and prints, as its last line, what came of it as JSON.

A process of its own, since a wheel for another processor does not raise: it ends the process.
"""

from __future__ import annotations

import importlib
import json
import sys


def try_import(name: str) -> str | None:
    """None if `name` can be imported, else the error in one line."""
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises is the finding
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def torch_devices() -> dict[str, object]:
    """The version of torch, the CUDA version it was built for, and the GPUs that it sees."""
    import torch

    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            gpus.append({"name": properties.name, "memory": properties.total_memory})
    return {"version": torch.__version__, "built_for_cuda": torch.version.cuda, "gpus": gpus}


def main(names: list[str]) -> None:
    """Print {"errors": {name: error or null}, "torch": devices or null}."""
    errors = {name: try_import(name) for name in names}
    devices = torch_devices() if errors.get("torch", "not asked") is None else None
    print(json.dumps({"errors": errors, "torch": devices}))


if __name__ == "__main__":
    main(sys.argv[1:])

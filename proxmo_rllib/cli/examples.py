"""Tuned examples: a file, or an installed one by its name; and the modules beside it, for all processes of a run."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

_PACKAGE = "tuned_examples"
_OURS = ("proxmo_rllib", "env_wrappers", _PACKAGE)
_DEFINES = re.compile(r"^(?:def config\(|(?:config|warm_start)\b[^=\n]*=)", re.MULTILINE)
# Folders of the files that were run in this process, first on the path.
_folders: list[str] = []


def installed_examples() -> dict[str, Path]:
    """The examples that come with the package, by name."""
    # Not by its name: a folder of the user's own may be called so.
    files = sorted((Path(__file__).parents[2] / _PACKAGE).glob("*.py"))
    return {path.stem: path for path in files if _DEFINES.search(path.read_text(encoding="utf-8"))}


def find_example(path: Path) -> Path | None:
    """The file that a word on the command line names.

    Args:
        path: a file; or the name of an installed example, such as `quickstart`.

    Returns:
        The file, None if there is neither.
    """
    return path if os.path.isfile(path) else installed_example(str(path))


def installed_example(name: str) -> Path | None:
    """The file of an installed example; None if there is none of that name."""
    return installed_examples().get(name.replace("-", "_"))


def list_examples() -> str:
    """The installed examples in words, for help and errors."""
    return f"by name, of the installed examples: {', '.join(installed_examples()) or 'none is installed'}"


def refuse_other_packages_here() -> None:
    """Ray's workers look into the present folder first, and would take what is of our names there for ours.

    Raises:
        ValueError: there is such a package or module, and it is not the one that this process has; says what to do.
    """
    for name in _OURS:
        spec = importlib.util.find_spec(name)
        own = Path(spec.origin) if spec is not None and spec.origin else None
        for found in (Path(name, "__init__.py"), Path(f"{name}.py")):
            if os.path.isfile(found) and not (own is not None and os.path.samefile(found, own)):
                raise ValueError(
                    f"{found.absolute()}: Ray's processes would import it in the place of the installed {name}"
                    f"{f' ({own})' if own is not None else ''}. Start from another folder, or give it another name."
                )


def make_importable(file: Path) -> None:
    """Lets a file import what lies beside it, as `python file.py` does; here and in the processes that Ray starts.

    Where the file's folder is part of a package, the folder that holds the package counts too.
    """
    folder = file.absolute().parent
    folders = [folder]
    if (folder / "__init__.py").is_file():
        folders.append(next(above for above in folder.parents if not (above / "__init__.py").is_file()))
    new = [str(folder) for folder in folders if str(folder) not in _folders]
    _folders[:0] = new
    sys.path[:0] = [folder for folder in new if folder not in sys.path]
    # Inherited by all processes of a cluster that is started here.
    others = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*new, *([others] if others else [])])


def import_from_here() -> None:
    """Lets modules of the present folder be found, as `python -m` does."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def runtime_env() -> dict[str, Any]:
    """Ray's `runtime_env`, so that a cluster that runs already imports the same; its nodes have to see the folders."""
    if not _folders:
        return {}
    return {"env_vars": {"PYTHONPATH": os.pathsep.join([*_folders, "${PYTHONPATH}"])}}

"""Other programs' packages: there, and of a version that the module was written for."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from packaging.specifiers import SpecifierSet


def require(package: str, versions: str, install: str, module: str | None = None) -> Any:
    """Imports a package that only some need.

    Args:
        package: its name where packages are installed from.
        versions: those that the calling module was written for, such as ">=1.16,<1.17".
        install: the command that brings it.
        module: what to import; the package's name if None.

    Returns:
        The module.

    Raises:
        ModuleNotFoundError: it is not installed; names the command.
        ImportError: another version is; names the command too.
    """
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError(f"{package} is not installed; say: {install}", name=package) from None
    if not SpecifierSet(versions).contains(found, prereleases=True):
        raise ImportError(
            f"{package} {found} is installed, and this was written for {package}{versions}; say: {install}",
            name=package,
        )
    return importlib.import_module(module or package)

"""These tests import programs that are not installed here: they are read by `make test-others` alone, where they are.

With `-m others` and without the program they fail as they are read, and say what to install.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if "others" not in config.option.markexpr and collection_path.name.startswith("test_") else None

"""The official small catalogue, episodes that the published environment played in it, queries that Lucene answered."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from env_wrappers.webshop.catalogue import Catalogue, open_catalogue

Record = dict[str, Any]


@pytest.fixture(scope="session")
def official_folder(shared: Path) -> Path:
    return shared / "data/webshop"


@pytest.fixture(scope="session")
def official(official_folder: Path) -> Catalogue:
    return open_catalogue(official_folder, 0, 0)


@pytest.fixture(scope="session")
def generated() -> Catalogue:
    return open_catalogue(None, 1000, 0)


@pytest.fixture(scope="session")
def episodes(shared: Path) -> list[Record]:
    return _lines(shared / "golden/webshop/episodes.jsonl.gz")


@pytest.fixture(scope="session")
def queries(shared: Path) -> list[Record]:
    """Each with the tokens and the best 50 of Lucene."""
    return _lines(shared / "golden/webshop/lucene_top50.jsonl.gz")


def _lines(path: Path) -> list[Record]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]

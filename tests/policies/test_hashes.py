"""What was fetched from the hub has the hash that it announced, or is not used."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from proxmo_rllib.policies.model_folder import check_hashes

WEIGHTS, CONFIG = b"weights" * 1000, b'{"model_type": "llama"}'


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """As huggingface_hub lays its cache out."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    names = {
        "model.safetensors": (hashlib.sha256(WEIGHTS).hexdigest(), WEIGHTS),
        "config.json": (hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest(), CONFIG),
    }
    for name, (digest, content) in names.items():
        (blobs / digest).write_bytes(content)
        (snapshot / name).symlink_to(blobs / digest)
    return snapshot


def test_right_hashes_pass(snapshot):
    check_hashes(snapshot)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_wrong_file_is_named_and_removed(snapshot, name):
    blob = (snapshot / name).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"X")
    with pytest.raises(ValueError, match=f"{name}.*announced {blob.name}"):
        check_hashes(snapshot)
    assert not blob.exists()
    assert not (snapshot / name).is_symlink()

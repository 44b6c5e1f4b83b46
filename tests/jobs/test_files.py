"""Which files of a run are brought home, and that they are brought once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxmo_rllib.jobs.files import Listing, fetch_run, run_folder_of

FILES = {
    "run.json": b"{}",
    "metrics.jsonl": b"{}\n",
    "checkpoints/iteration_000001/proxmo_checkpoint.json": b"1",
    "checkpoints/iteration_000002/proxmo_checkpoint.json": b"2",
    "checkpoints/iteration_000002/policy/model.safetensors": b"weights",
    "checkpoints/iteration_000003.part/policy/model.safetensors": b"half",
}


class Remote:
    def __init__(self, latest="iteration_000002"):
        self.files = dict(FILES)
        self.written = dict.fromkeys(FILES, 1000.5)
        self.latest, self.sent = latest, []

    @property
    def listing(self):
        return Listing({name: (len(self.files[name]), self.written[name]) for name in self.files}, self.latest)

    def fetch(self, name, place):
        self.sent.append(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(self.files[name])
        os.utime(place, (self.written[name],) * 2)


def there(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("which", "names"),
    [("latest", ["iteration_000002"]), ("all", ["iteration_000001", "iteration_000002"]), ("none", [])],
)
def test_the_checkpoints_that_were_asked_for_come_whole(tmp_path, which, names):
    remote = Remote()
    fetch_run(remote, tmp_path, which, lambda name: None)
    assert {path.name for path in (tmp_path / "checkpoints").glob("iteration*")} == set(names)
    assert {"run.json", "metrics.jsonl"} <= there(tmp_path)
    if names:
        assert os.readlink(tmp_path / "checkpoints" / "latest") == "iteration_000002"
        assert remote.sent[-1].endswith("proxmo_checkpoint.json")  # whatever interrupts, no half checkpoint looks whole


def test_what_is_here_is_not_sent_again_and_what_changed_is(tmp_path):
    remote = Remote()
    fetch_run(remote, tmp_path, "latest", lambda name: None)
    remote.sent.clear()
    remote.files["metrics.jsonl"] += b"{}\n"
    remote.written["checkpoints/iteration_000002/policy/model.safetensors"] += 5  # of the same size
    fetch_run(remote, tmp_path, "latest", lambda name: None)
    assert remote.sent == ["checkpoints/iteration_000002/policy/model.safetensors", "metrics.jsonl"]


def test_a_log_says_where_its_run_is():
    assert run_folder_of("x\nrun folder: /mnt/my runs/a-1\non the cluster\n") == "/mnt/my runs/a-1"
    with pytest.raises(LookupError, match="names no run folder"):
        run_folder_of("Traceback")

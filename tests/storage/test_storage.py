"""A run on storage: sent whole, found by whoever fetches it, whatever is killed or refused on the way."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from proxmo_rllib.checkpoint_format import CheckpointError, check_whole, write_manifest
from proxmo_rllib.storage import StorageError, is_uri, open_place, path_or_uri
from proxmo_rllib.storage.fetch import checkpoints_at, fetch_run, run_of
from proxmo_rllib.storage.mirror import Mirror
from proxmo_rllib.storage.place import explained, join
from proxmo_rllib.training_run.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "here" / "mine")
    folder.write_json("run.json", {"file": "x.py"})
    return folder


def save(run: RunFolder, iteration: int, content: str = "weights", keep: int = 3) -> None:
    def write(path: str) -> None:
        policy = Path(path) / "policy"
        policy.mkdir(parents=True)
        (policy / "model.safetensors").write_text(f"{content} {iteration}")
        (Path(path) / "rllib_checkpoint.json").write_text("{}")
        write_manifest(Path(path))

    run.add_metrics({"iteration": iteration})
    run.save_checkpoint(iteration, write, keep)


# pyarrow's; fsspec's, which pyarrow does not know; an S3 server
@pytest.fixture(params=["file", "local", pytest.param("s3", marks=pytest.mark.others)])
def uri(request, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/mine"
    (tmp_path / "there").mkdir()
    return f"{request.param}://{tmp_path}/there/mine"


def weights(checkpoint: Path) -> str:
    return (checkpoint / "policy" / "model.safetensors").read_text()


def test_a_run_that_is_sent_and_fetched_is_the_same_run(run, uri, tmp_path):
    mirror = Mirror(open_place(uri), run.path, keep=3)
    mirror.send()
    assert checkpoints_at(open_place(uri)) == []
    for iteration in (10, 20, 30, 40):
        save(run, iteration)
        mirror.on_checkpoint(run.saved.place(iteration))
    assert mirror.lacks is None
    assert checkpoints_at(open_place(uri)) == [f"iteration_0000{n}" for n in (40, 30, 20)]
    found = fetch_run(open_place(uri), tmp_path / "back")
    assert weights(found) == "weights 40"
    back = RunFolder(tmp_path / "back")
    assert back.latest_checkpoint().resolve() == found
    assert back.metrics.read_text() == run.metrics.read_text()
    assert [path.name for path in back.whole_checkpoints()] == ["iteration_000040"]
    earlier, name = run_of(open_place(f"{uri}/checkpoints/iteration_000020"))
    assert weights(fetch_run(earlier, tmp_path / "earlier", checkpoint=name)) == "weights 20"
    assert run_of(open_place(f"{uri}/checkpoints/latest"))[1] is None


@pytest.mark.parametrize("name", ["episodes.jsonl.gz", "config.bz2", "plain"])
def test_files_are_there_byte_by_byte_whatever_their_names_end_in(uri, tmp_path, name):
    """pyarrow unpacks a file that is called .gz, and packs one that it writes, unless it is told not to."""
    content = gzip.compress(b"an episode\n") if name.endswith(".gz") else b"an episode\n"
    (tmp_path / name).write_bytes(content)
    place = open_place(uri).below(name)
    place.upload(tmp_path / name)
    assert open_place(uri).files() == {name: len(content)}
    assert place.read() == content
    place.download(tmp_path / "back" / name)
    assert (tmp_path / "back" / name).read_bytes() == content
    place.write(content)
    assert place.read() == content


def test_a_run_that_goes_on_from_an_earlier_checkpoint_forgets_its_future_there_too(run, uri, tmp_path):
    first = Mirror(open_place(uri), run.path, keep=3)
    for iteration in (10, 20, 30):
        save(run, iteration)
    first.send()
    folder = tmp_path / "elsewhere"
    found = fetch_run(open_place(uri), folder, checkpoint="iteration_000010")
    second = Mirror(open_place(uri), folder, keep=3, fetched=True)
    again = RunFolder(folder)
    again.go_on_from(found, 10)
    save(again, 20, "other")
    second.send()
    assert checkpoints_at(open_place(uri)) == ["iteration_000020", "iteration_000010"]
    assert weights(fetch_run(open_place(uri), tmp_path / "back")) == "other 20"
    lines = (tmp_path / "back" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [10, 20]
    for iteration in (21, 22, 23):
        save(again, iteration)
        second.send()
    assert checkpoints_at(open_place(uri)) == [f"iteration_0000{n}" for n in (23, 22, 21)]


def test_what_did_not_change_is_not_sent_again(run, uri, monkeypatch):
    mirror = Mirror(open_place(uri), run.path, keep=3)
    save(run, 10)
    mirror.send()
    sent = []
    monkeypatch.setattr(type(mirror.place), "upload", lambda place, source: sent.append(source.name))
    mirror.send()
    assert sent == []
    run.add_metrics({"iteration": 11})
    mirror.send()
    assert sent == ["metrics.jsonl"]


def test_a_storage_that_fails_costs_no_run_and_gets_all_with_the_next_checkpoint(run, tmp_path, caplog):
    (tmp_path / "there").mkdir()
    uri = f"file://{tmp_path}/there/mine"
    mirror = Mirror(open_place(uri), run.path, keep=3)
    save(run, 10)
    mirror.send()
    place = tmp_path / "there"
    place.rename(tmp_path / "gone")
    place.write_text("a file where the folder was")
    save(run, 20)
    mirror.on_checkpoint(run.saved.place(20))
    assert mirror.lacks
    assert "tried again at the next checkpoint" in caplog.text
    place.unlink()
    (tmp_path / "gone").rename(place)
    save(run, 30)
    mirror.on_checkpoint(run.saved.place(30))
    assert mirror.lacks is None
    assert checkpoints_at(open_place(uri)) == [f"iteration_0000{n}" for n in (30, 20, 10)]
    assert "has all of the run again" in caplog.text


_SENDS = """
import sys, time
from pathlib import Path
from proxmo_rllib.storage.mirror import Mirror
from proxmo_rllib.storage.place import Place, open_place
upload = Place.upload
def slow(place, source):
    upload(place, source)
    print(source.name, flush=True)
    time.sleep(0.2)
Place.upload = slow
Mirror(open_place(sys.argv[1]), Path(sys.argv[2]), keep=1).send()
"""


@pytest.mark.parametrize("files", [1, 3, 5])
def test_a_kill_at_any_moment_of_sending_leaves_a_run_to_go_on_with(run, uri, tmp_path, files):
    save(run, 10, keep=1)
    Mirror(open_place(uri), run.path, keep=1).send()
    save(run, 20, keep=1)
    sending = subprocess.Popen(
        [sys.executable, "-c", _SENDS, uri, str(run.path)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    for _ in range(files):
        sending.stdout.readline()
    sending.kill()
    sending.wait()
    found = fetch_run(open_place(uri), tmp_path / "back")
    assert weights(found) in ("weights 10", "weights 20")
    check_whole(found)
    Mirror(open_place(uri), run.path, keep=1).send()
    assert checkpoints_at(open_place(uri)) == ["iteration_000020"]
    assert weights(fetch_run(open_place(uri), tmp_path / "again")) == "weights 20"


def test_a_checkpoint_that_lost_a_file_is_left_aside_in_words(run, uri, tmp_path):
    mirror = Mirror(open_place(uri), run.path, keep=3)
    for iteration in (10, 20):
        save(run, iteration)
    mirror.send()
    open_place(f"{uri}/checkpoints/iteration_000020/policy/model.safetensors").delete()
    said = []
    assert weights(fetch_run(open_place(uri), tmp_path / "back", say=said.append)) == "weights 10"
    assert any("left aside" in text and "model.safetensors is missing" in text and uri in text for text in said)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        fetch_run(open_place(uri), tmp_path / "asked", checkpoint="iteration_000020")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("nowhere://bucket/x", "nothing here opens nowhere://"),
        ("file://relative/x", "it is no URI of storage"),
        ("file:///proc/no/such", "proxmo-writes"),
    ],
)
def test_a_place_that_cannot_be_used_is_refused_in_words(uri, words):
    with pytest.raises(StorageError, match=words) as refused:
        open_place(uri).check_writable()
    assert uri in str(refused.value)


@pytest.mark.others
def test_a_bucket_that_is_not_there_and_credentials_that_are_missing_are_said(s3, monkeypatch):
    with pytest.raises(StorageError, match="there is no such bucket; make it, or name another"):
        open_place("s3://no-such-bucket/x").check_writable()
    open_place(s3).check_writable()
    assert open_place(s3).files() == {}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageError, match="nothing answers there; see AWS_ENDPOINT_URL"):
        open_place(s3).check_writable()
    said = explained(s3, OSError("AWS Error ACCESS_DENIED during PutObject operation: no"))
    assert "these credentials may not do that" in str(said)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/no/such/file")
    said = explained(s3, OSError("AWS Error ACCESS_DENIED during PutObject operation: no"))
    assert "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in str(said)


def test_what_is_no_run_is_named(uri):
    with pytest.raises(StorageError, match=r"there is no run, nor a checkpoint of one: no run\.json"):
        run_of(open_place(uri))


def test_words_are_told_from_paths():
    assert is_uri("s3://b/x")
    assert not is_uri("runs/x")
    assert not is_uri("C:/x")
    assert path_or_uri("runs/x") == Path("runs/x")
    assert path_or_uri("s3://b//x") == "s3://b//x"
    assert join("s3://b/runs/?region=x", "mine") == "s3://b/runs/mine?region=x"
    place = open_place("file:///a/b")
    assert place.below("c").above() == place


def test_a_file_that_grows_while_it_is_sent_is_sent_as_it_was(tmp_path):
    source, going = tmp_path / "log.txt", threading.Event()
    source.write_bytes(b"x" * (1 << 20))

    def grow() -> None:
        while not going.wait(0.001):
            with source.open("ab") as file:
                file.write(b"y" * 1000)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        time.sleep(0.01)
        open_place(f"file://{tmp_path}/there/log.txt").upload(source)
    finally:
        going.set()
        writer.join()
    sent = (tmp_path / "there" / "log.txt").read_bytes()
    assert source.read_bytes().startswith(sent)

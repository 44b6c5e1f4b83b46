"""`proxmo data`: downloads where it can, says what to do where it cannot, checks and packs."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from env_wrappers.alfworld import package
from env_wrappers.alfworld.data import verify
from env_wrappers.alfworld.games import find_games
from env_wrappers.alfworld.generator import GeneratorConfig, generate
from proxmo_rllib.cli import data, main

NAME = "json_2.1.1/{}/pick_and_place_simple-Mug-None-Desk-301/trial_{}/game.tw-pddl"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)


def write_games(folder):
    """A data folder with two games of train and one of valid_seen."""
    config = GeneratorConfig(task_types=("pick_and_place_simple",), rooms=("bathroom",))
    for index, split in enumerate(("train", "train", "valid_seen")):
        game = generate(config, split, index)
        grammar = package.grammar().replace("UNKNOWN GOAL.", game.game.task)
        path = folder / NAME.format(split, index)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"grammar": grammar, "pddl_problem": game.problem, "solvable": True}))


def test_games_are_checked_and_packed_and_it_is_said_how_to_use_them(tmp_path, capsys):
    write_games(tmp_path)
    assert main(["data", "alfworld", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "2 instead of 3553" in shown
    assert "packed 3 games" in shown
    assert f"export ALFWORLD_DATA={tmp_path}" in shown
    assert find_games(tmp_path) == tmp_path / "games.jsonl.xz"
    assert main(["data", "alfworld", str(tmp_path)]) == 1  # from the packed file
    assert "2 instead of 3553" in capsys.readouterr().out


def test_a_complete_set_is_a_success(tmp_path, capsys, monkeypatch):
    write_games(tmp_path)
    found = {report.split: (report.games, report.ids) for report in verify(tmp_path)}
    monkeypatch.setattr("env_wrappers.alfworld.data.OFFICIAL", found)
    monkeypatch.setattr("env_wrappers.alfworld.data.CONTENTS", {})
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert main(["data", "alfworld"]) == 0
    assert "Not all of it" not in capsys.readouterr().out


def test_games_are_downloaded_where_none_are(tmp_path, capsys, monkeypatch):
    write_games(tmp_path / "elsewhere")
    script = tmp_path / "alfworld-download"
    script.write_text(
        "import os, shutil, sys\n"
        'TW_PDDL_FILES_URL = "https://nowhere.invalid/games.zip"\n'
        "assert os.environ['ALFWORLD_DATA'] == sys.argv[2]\n"
        f"shutil.copytree({str(tmp_path / 'elsewhere')!r}, sys.argv[2], dirs_exist_ok=True)\n"
    )
    asked = []
    monkeypatch.setattr(data, "downloader", lambda: script)
    monkeypatch.setattr(data, "unreachable", asked.append)
    main(["data", "alfworld", str(tmp_path / "games")])
    assert "packed 3 games" in capsys.readouterr().out
    assert asked == ["https://nowhere.invalid/games.zip"]


def test_a_download_that_fails_says_what_to_do(tmp_path, capsys, monkeypatch):
    script = tmp_path / "alfworld-download"
    script.write_text("raise SystemExit(3)\n")
    monkeypatch.setattr(data, "downloader", lambda: script)
    monkeypatch.setattr(data, "unreachable", lambda url: None)
    assert main(["data", "alfworld", str(tmp_path / "games")]) == 1
    said = capsys.readouterr().err
    assert "status 3" in said
    assert f"proxmo data alfworld {tmp_path / 'games'}" in said


def test_without_a_network_it_says_exactly_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data, "unreachable", lambda url: "no network")
    folder = tmp_path / "games"
    assert main(["data", "alfworld", str(folder)]) == 1
    said = capsys.readouterr().err
    for words in ("no network", "alfworld-download --data-dir", "https://github.com/alfworld", "games.jsonl.xz"):
        assert words in said
    assert f"proxmo data alfworld {folder}" in said
    assert not folder.exists()


def test_an_address_is_asked_before_the_download():
    class Server(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200 if self.path == "/games.zip" else 404)
            self.end_headers()

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert data.unreachable(f"{address}/games.zip") is None
        assert "404" in (data.unreachable(f"{address}/other.zip") or "")
        server.shutdown()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert data.unreachable(f"http://127.0.0.1:{closed.getsockname()[1]}/") is not None


def test_the_games_address_is_the_one_of_the_installed_script(tmp_path):
    script = data.downloader()
    assert script is not None, "alfworld installs it beside Python"
    assert data.archive_url(script).startswith("https://github.com/alfworld/alfworld/releases/download/")
    assert data.archive_url(None) == "https://github.com/alfworld/alfworld/releases"


def test_a_file_that_is_not_there_is_not_downloaded_into(tmp_path, capsys):
    assert main(["data", "alfworld", str(tmp_path / "games.jsonl.xz")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_damaged_games_are_named_and_nothing_is_packed(tmp_path, capsys):
    write_games(tmp_path)
    (tmp_path / NAME.format("train", 1)).write_text('{"solvable": true}')
    assert main(["data", "alfworld", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "1 damaged" in shown
    assert "trial_1/game.tw-pddl" in shown
    assert not (tmp_path / "games.jsonl.xz").exists()


def test_another_dataset_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["data", "mnist"])
    assert "webshop" in capsys.readouterr().err


def test_it_says_which_webshop_files_go_where_and_whether_they_are_right(shared, capsys):
    assert main(["data", "webshop"]) == 0
    assert "items_shuffle.json" in capsys.readouterr().out
    assert main(["data", "webshop", str(shared / "data/webshop")]) == 0
    assert "is ready: 1,000 products" in capsys.readouterr().out.replace("\n", " ")


def test_a_webshop_folder_without_products_is_an_error_that_says_what_is_missing(tmp_path, capsys):
    assert main(["data", "webshop", str(tmp_path)]) == 1
    assert "items_shuffle" in capsys.readouterr().err

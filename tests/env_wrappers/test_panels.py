"""Panels are the same on every machine, and say so when they are not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from env_wrappers.panels import Panel, named_panel, panel_from_split, panel_names

ENV = "env_wrappers/ALFWorld-v0"


def test_the_generated_panel_is_the_one_of_this_version() -> None:
    panel = named_panel("alfworld-generated-unseen-200")
    assert len(panel) == len(set(panel.tasks)) == 200
    env = panel.make()
    assert env.reset(options={"task": panel.tasks[0]})[1]["task"] == panel.tasks[0]


@pytest.mark.slow
def test_the_games_behind_the_generated_panel_have_not_changed() -> None:
    """If this fails, the generator makes other games: raise the panel's version, for old results no longer compare."""
    digest = named_panel("alfworld-generated-unseen-200").content_digest()
    assert digest == "415189f4a15cacaf4be46e1b47bc87a85893ae992d5b8f225fcd06c0d1896f2a"


@pytest.mark.slow
def test_the_seen_panel_is_all_of_the_official_split(shared: Path) -> None:
    panel = named_panel("alfworld-seen-140", games=str(shared / "data/alfworld/games.jsonl.xz"))
    assert len(panel) == 140
    assert panel.content_digest() == "87aa20e006850ad36d476b082a88738180e91d72e228660e2b370834cc2bda48"


def test_the_unseen_panel_takes_the_134_official_games_and_no_others(
    real_records: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    record = min(real_records, key=lambda r: len(r["pddl_problem"]))
    place = f"valid_unseen/{record['path'].split('/')[1]}/trial_{{}}/game.tw-pddl"
    for number, message in ((133, r"has 134 tasks, and .* 133 of split 'valid_unseen'"), (134, "not comparable")):
        lines = [json.dumps(record | {"path": place.format(index)}) for index in range(number)]
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/games.jsonl").write_text("\n".join(lines))
        monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / f"{number}"))
        with pytest.raises(ValueError, match=message):
            named_panel("alfworld-unseen-134")


def test_the_generated_shop_panel_is_the_one_of_this_version() -> None:
    """If this fails, the generator makes other products: raise the panel's version, old results no longer compare."""
    panel = named_panel("webshop-generated-test-200", games="/nowhere")
    assert panel.tasks == tuple(panel.make().unwrapped.tasks("test")[:200])
    assert panel.content_digest() == "2f6b6cb0efa5657d1a3143ba2b55572f1959f553bb7a6f471081dbf31e968aa5"


def test_the_official_shop_panel_is_the_published_test_split(shared: Path) -> None:
    panel = named_panel("webshop-test-500", catalogue=str(shared / "data/webshop"), reward="success")
    assert panel.digest == named_panel("webshop-test-500", catalogue=str(shared / "data/webshop")).digest
    assert panel.tasks == tuple(f"synthetic/{index:06d}" for index in range(500))
    assert panel.content_digest() == "0ee2de89c9e336aca585f3353b10f0bc6d52e965cfdc61a2f8a5ae7357ced544"
    with pytest.raises(ValueError, match=r"12,087 human goals.* has 13"):
        named_panel("webshop-human-test-500", catalogue=str(shared / "data/webshop"))


def test_the_crafting_panel_is_the_one_of_this_version() -> None:
    """If this fails, the tasks are others: raise the panel's version, old results no longer compare."""
    panel = named_panel("textcraft-test-200", catalogue="/nowhere")
    assert panel.content_digest() == "4e177d2ee58b7a0c5cc4fc9fc5ab2a0283d06fe2198d4b10f2247e6db7ae0d59"


def test_a_panel_drawn_from_a_split_depends_on_size_and_seed_only() -> None:
    env = gymnasium.make(ENV, rooms=("bathroom",), max_objects=3)
    panel = panel_from_split(env, "valid_seen", 100, seed=1)
    assert panel == panel_from_split(gymnasium.make(ENV, rooms=("bathroom",), max_objects=3), "valid_seen", 100, seed=1)
    assert len(set(panel.tasks)) == 100
    assert panel.digest != panel_from_split(env, "valid_seen", 100, seed=2).digest
    assert panel.digest != panel_from_split(gymnasium.make(ENV, max_objects=3), "valid_seen", 100, seed=1).digest
    assert panel.make().unwrapped.tasks("valid_seen") == env.unwrapped.tasks("valid_seen")
    assert panel_from_split(env, "valid_seen").tasks == tuple(env.unwrapped.tasks("valid_seen"))


def test_the_digest_does_not_depend_on_where_the_data_lies(games_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").symlink_to(games_folder)
    panels = [panel_from_split(gymnasium.make(ENV, games=str(p)), "train") for p in (games_folder, tmp_path / "moved")]
    assert panels[0].digest == panels[1].digest


def test_a_panel_survives_json_and_refuses_changes() -> None:
    panel = panel_from_split(gymnasium.make(ENV, rooms=("kitchen",)), "valid_unseen", 5)
    assert Panel.from_json(panel.to_json()) == panel
    record = json.loads(panel.to_json())
    record["tasks"][0] = "generated/train/000000"
    with pytest.raises(ValueError, match="not comparable"):
        Panel.from_json(json.dumps(record))
    with pytest.raises(ValueError, match="No panel"):
        Panel.from_json("{}")
    with pytest.raises(ValueError, match="digest"):
        dataclasses.replace(panel, tasks=panel.tasks[:2])


def test_bad_requests_are_named(games_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)
    with pytest.raises(ValueError, match=r"'alfworld-seen'.*alfworld-seen-140"):
        named_panel("alfworld-seen")
    with pytest.raises(FileNotFoundError, match=r"alfworld-unseen-134.*ALFWORLD_DATA"):
        named_panel("alfworld-unseen-134")
    with pytest.raises(FileNotFoundError, match=r"webshop-test-500.*WEBSHOP_DATA"):
        named_panel("webshop-test-500")
    with pytest.raises(ValueError, match=r"has 140 tasks, and .* 6 of split 'valid_seen'"):
        named_panel("alfworld-seen-140", games=str(games_folder))
    with pytest.raises(ValueError, match=r"max_objects.*panel_from_split"):
        named_panel("alfworld-generated-unseen-200", max_objects=3)
    with pytest.raises(ValueError, match="size=201"):
        panel_from_split(gymnasium.make(ENV), "valid_seen", 201)
    with pytest.raises(ValueError, match=r"gymnasium\.make"):
        panel_from_split(gymnasium.make(ENV).unwrapped.__class__(), "valid_seen")
    assert "alfworld-generated-unseen-200" in panel_names()

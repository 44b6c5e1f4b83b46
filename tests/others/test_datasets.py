"""Records to a folder of Hugging Face `datasets` and back: all of it, and what other programs read in it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxmo_rllib.advantages import estimate_advantages
from proxmo_rllib.cli.episodes import main
from proxmo_rllib.integrations.dataset_folder import COLUMNS, write_dataset, write_record
from proxmo_rllib.record_file import record_lines, record_of
from proxmo_rllib.types import Episode
from proxmo_rllib.viewer.credit import credit_of_group, turn_table
from proxmo_rllib.viewer.run import ViewedRun
from tests.viewer.conftest import OPTIONS, groups, lines_of, run  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.slow, pytest.mark.others]


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in record_lines(record_of(folder))]


def test_what_is_exported_and_imported_again_is_the_same_record(run: Path, tmp_path: Path):  # noqa: F811
    before = list(record_lines(record_of(run)))
    assert write_dataset(run, tmp_path / "folder") == len(before) > 0
    assert write_record(tmp_path / "folder", tmp_path / "back") == len(before)
    assert [json.loads(line) for line in record_lines(record_of(tmp_path / "back"))] == [json.loads(b) for b in before]
    shown, expected = ViewedRun(tmp_path / "back").index(), ViewedRun(run).index()
    assert {key: shown[key] for key in ("task", "iteration", "group", "outcomes", "turns")} == {
        key: expected[key] for key in ("task", "iteration", "group", "outcomes", "turns")
    }


def test_odd_values_survive(run: Path, tmp_path: Path):  # noqa: F811
    """NaN, whole numbers, missing scores, other alphabets, keys of a later version, an episode without turns."""
    first = records_of(run)[0]
    first |= {"score": 0.5, "error": None, "a later key": {"nested": [1, None]}, "task": "木の机 \U0001f600\u2028"}
    first["turns"][0] |= {"logprob": math.nan, "learner_logprobs": [None, -0.25], "version_changes": [[1, 3]], "new": 1}
    without = {**first, "episode": "0-9", "turns": [], "status": "error", "error": "it broke"}
    odd = tmp_path / "episodes.jsonl"
    odd.write_text("".join(json.dumps(episode) + "\n" for episode in (first, without)))
    write_dataset(odd, tmp_path / "folder")
    write_record(tmp_path / "folder", tmp_path / "back")
    back = [json.dumps(record, sort_keys=True) for record in records_of(tmp_path / "back")]
    assert back == [json.dumps(record, sort_keys=True) for record in (first, without)]  # NaN is no equal of itself


def test_others_find_messages_rewards_and_the_runs_advantages_in_it(run: Path, tmp_path: Path):  # noqa: F811
    import datasets

    write_dataset(run, tmp_path / "folder")
    rows = datasets.load_from_disk(str(tmp_path / "folder"))
    assert set(rows.column_names) == set(COLUMNS)
    records = records_of(run)
    for row, record in zip(rows, records, strict=True):
        assert [message["content"] for message in row["messages"]] == [
            turn[key] for turn in record["turns"] for key in ("observation", "response")
        ]
        assert row["rewards"] == [turn["reward"] for turn in record["turns"]]
        assert row["success"] is (record["status"] == "success")
        members = [other for other in records if other["group"] == record["group"]]
        if any(other["status"] == "error" for other in members):
            assert row["advantages"] is None
            continue
        total = estimate_advantages(turn_table(members), "proxmo", **OPTIONS).total.tolist()
        start = sum(len(other["turns"]) for other in members[: members.index(record)])
        assert row["advantages"] == total[start : start + len(record["turns"])]
        assert credit_of_group(members)["parts"]["total"] == total


@pytest.mark.parametrize(
    "credit", [{"group_size": 9}, {"estimator": "my_own"}, {"estimator": "gigpo", "options": {"x": 1}}]
)
def test_advantages_that_the_record_cannot_tell_are_left_open(
    groups: list[list[Episode]],  # noqa: F811
    tmp_path: Path,
    credit: dict[str, Any],
):
    import datasets

    odd = tmp_path / "episodes.jsonl"
    odd.write_text("".join(line + "\n" for line in lines_of(groups[0], 1, **credit)))
    write_dataset(odd, tmp_path / "folder")
    assert datasets.load_from_disk(str(tmp_path / "folder"))["advantages"] == [None] * 4


def test_what_is_wrong_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):  # noqa: F811
    import datasets

    folder, back = tmp_path / "folder", tmp_path / "back"
    assert main(["export", str(run), str(folder)]) == 0
    assert f"10 episodes written: {folder}" in capsys.readouterr().out
    assert main(["export", str(run), str(folder)]) == 1
    assert f"{folder} is there already" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none"), str(tmp_path / "other")]) == 1
    assert "there is no record" in capsys.readouterr().err
    assert main(["import", str(folder), str(back)]) == 0
    assert main(["import", str(folder), str(back)]) == 1
    assert "episodes.jsonl.gz is there already" in capsys.readouterr().err
    assert main(["import", str(tmp_path), str(tmp_path / "third")]) == 1
    assert "is no folder that `Dataset.save_to_disk` wrote" in capsys.readouterr().err
    rows = datasets.load_from_disk(str(folder))
    spoilt: dict[str, tuple[Callable[[], Any], str]] = {
        "columns": (lambda: rows.remove_columns(["rewards", "more"]), "has no column 'rewards', 'more'"),
        "splits": (lambda: datasets.DatasetDict({"train": rows}), "holds the splits train; name one"),
        "roles": (
            lambda: rows.map(lambda row: {"messages": row["messages"][1:]}, load_from_cache_file=False),
            "row 0: messages has the roles",
        ),
        "lengths": (
            lambda: rows.map(lambda row: {"rewards": [*row["rewards"], 0.0]}, load_from_cache_file=False),
            "row 0: rewards has",
        ),
    }
    for name, (make, said) in spoilt.items():
        make().save_to_disk(str(tmp_path / name))
        assert main(["import", str(tmp_path / name), str(tmp_path / f"{name}-back")]) == 1
        assert said in capsys.readouterr().err
        assert not (tmp_path / f"{name}-back" / "episodes.jsonl.gz").exists()

"""The comparison of trainings: what is run, what is kept, and the arithmetic of the tables."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.evidence.comparison import cells as all_cells
from benchmarks.evidence.comparison.__main__ import BEGIN, END, PAGE, parse, shares
from benchmarks.evidence.comparison.cells import SEEDS, Cell, append, cells, choose, file_of, read
from benchmarks.evidence.comparison.methods import ABLATIONS, GRID, METHODS, PROXMO, Tuning
from benchmarks.evidence.comparison.statistics import bootstrap, differences, mean, p_value, turns_to
from benchmarks.evidence.comparison.tables import tables
from benchmarks.evidence.comparison.train import area, config_of
from benchmarks.evidence.comparison.worlds import WORLDS

ROOT = Path(__file__).parents[3]
CHOSEN = {method: GRID[index % len(GRID)] for index, method in enumerate(METHODS)}


def record(cell: Cell, rate: float, tasks: int = 50, seed: int = 0) -> dict[str, Any]:
    """A training as it would be kept, whose panel comes to a rate or nearly so."""
    solved = np.random.default_rng(seed).binomial(2, rate, tasks)
    last = [cell.seed + 40_000, float(solved.sum() / (2 * tasks)), 2 * tasks]
    curve = [[0, 0.4, tasks], last]
    return {
        "key": cell.key,
        **asdict(cell),
        "curve": curve,
        "area": area(curve),
        "solved": "".join(map(str, solved)),
        "training": [[1000 * step, min(128, 16 * step), 128] for step in range(1, 21)],
        "minutes": {"all": 2.0},
    }


def test_lanes_share_the_cores_and_none_is_without(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {2, 3, 5, 8})
    assert shares(2) == [[2, 5], [3, 8]]
    assert shares(3) == [[2, 8], [3], [5]]
    assert shares(5) == [[2], [3], [5], [8], [2]]


def test_every_method_is_another_estimator_and_nothing_else():
    configs = {}
    for cell in cells("main", "rooms_three", dict.fromkeys(METHODS, GRID[0])):
        if cell.seed == 0:
            config = config_of(cell, "asset:alfworld-tiny")
            config.validate()
            configs[cell.method] = config
    assert list(configs) == list(METHODS)
    told_apart = {"advantage_estimator", "estimator_options"}
    first = configs["GRPO"].to_dict()
    for name, config in configs.items():
        differing = {key for key, value in config.to_dict().items() if value != first[key] and key != "panel"}
        assert differing <= told_apart, name
    settings = [json.dumps([c.advantage_estimator, c.estimator_settings()], sort_keys=True) for c in configs.values()]
    assert len(set(settings)) == len(METHODS)


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_an_ablation_has_one_thing_changed_and_the_same_episodes(name: str):
    cell = next(cell for cell in cells("ablations", "rooms_three", CHOSEN) if cell.method == name)
    config = config_of(cell, "asset:alfworld-tiny")
    config.validate()
    assert cell.tuning == CHOSEN[PROXMO]
    assert config.group_size * config.num_groups == 128
    assert config.advantage_estimator != "proxmo" or cell.what.options or cell.what.group_size != 8


def test_the_stages_are_whole_and_seeds_of_the_tuning_are_used_nowhere_else():
    tuning = list(cells("tuning", "rooms_three", {}))
    main = [cell for world in WORLDS for cell in cells("main", world, CHOSEN)]
    ablations = list(cells("ablations", "rooms_three", CHOSEN))
    assert len(tuning) == len(METHODS) * len(GRID) * len(all_cells.TUNING_SEEDS)
    assert len(main) == sum(len(SEEDS[world]) * len(METHODS) for world in WORLDS)
    assert all(len(seeds) >= 5 for seeds in SEEDS.values())
    keys = [cell.key for cell in (*tuning, *main, *ablations)]
    assert len(set(keys)) == len(keys)
    assert not {cell.seed for cell in tuning} & {cell.seed for cell in (*main, *ablations)}
    # A method is left out of what follows until all of its grid was tried.
    assert {cell.method for cell in cells("main", "rooms_six", {PROXMO: GRID[0]})} == {PROXMO}
    assert not list(cells("ablations", "rooms_three", {"GRPO": GRID[0]}))


def test_the_protocol_names_what_the_code_has():
    page = (ROOT / "docs" / "evidence_protocol.md").read_text(encoding="utf-8")
    methods = page.partition("## Methods")[2].partition("## ")[0]
    assert re.findall(r"^\| (.+?) \| `", methods, re.MULTILINE) == list(METHODS)
    worlds = page.partition("## Worlds")[2].partition("## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", worlds, re.MULTILINE) == list(WORLDS)
    for name, world in WORLDS.items():
        row = re.search(rf"\| `{name}` \|.*\| ([\d,]+) \|", page)
        assert row
        assert int(row[1].replace(",", "")) == world.turns
    for command in re.findall(r"python -m benchmarks.evidence.comparison (.+)", page):
        parse(command.split())


def test_what_was_trained_is_read_again_and_a_damaged_line_is_named(tmp_path: Path):
    path = file_of("main", "rooms_six", tmp_path)
    one = next(cells("main", "rooms_six", CHOSEN))
    append(path, record(one, 0.7))
    assert read(path)[one.key]["solved"] == record(one, 0.7)["solved"]
    with path.open("a", encoding="utf-8") as file:
        file.write('{"half a li\n')
    with pytest.raises(ValueError, match=r"main_rooms_six.jsonl, line 2: this is no training .* take the line out"):
        read(path)


def test_the_tuning_chooses_the_largest_area_and_waits_for_the_whole_grid():
    records = [
        record(Cell("tuning", "rooms_three", "GRPO", tuning, 100), 0.5 if tuning == GRID[3] else 0.3) for tuning in GRID
    ]
    assert choose(records) == {"GRPO": GRID[3]}
    assert choose(records[:-1]) == {}


def test_the_area_is_the_mean_over_the_turns():
    assert area([[0, 0.5, 9], [10, 0.5, 9], [40, 0.5, 9]]) == pytest.approx(0.5)
    assert area([[0, 0.0, 9], [10, 1.0, 9], [20, 1.0, 9]]) == pytest.approx(0.75)


def test_turns_until_five_iterations_together_succeed_in_four_of_five():
    rows = [[1000 * step, 128 if step > 6 else 0, 128] for step in range(1, 21)]
    assert turns_to({"training": rows}) == 10_000  # of iterations 6 to 10 four are won, which is 80%
    assert turns_to({"training": rows[:9]}) == math.inf


def test_the_test_is_students_paired_one():
    scipy = pytest.importorskip("scipy.stats")
    values = [0.03, -0.01, 0.05, 0.02, 0.04]
    assert p_value(values) == pytest.approx(scipy.ttest_1samp(values, 0.0).pvalue)
    assert p_value([0.0, 0.0]) == 1.0
    assert p_value([0.1]) == 1.0
    assert p_value([0.1, 0.1, 0.1]) < 1e-6
    found = mean(values)
    assert found.value == pytest.approx(0.026)
    assert found.low < found.value < found.high


def test_a_difference_pairs_seeds_and_tasks(tmp_path: Path):
    """A method that solves the same tasks and a few more differs from the other by just these."""
    rng = np.random.default_rng(1)
    by_method: dict[str, dict[int, Any]] = {PROXMO: {}, "GRPO": {}}
    for seed in range(5):
        solved = rng.integers(0, 3, 100)
        more = np.minimum(2, solved + (rng.random(100) < 0.2))
        for method, counts in ((PROXMO, solved), ("GRPO", more)):
            curve = [[0, 0.4, 100], [9, counts.sum() / 200, 200]]
            by_method[method][seed] = {"curve": curve, "solved": "".join(map(str, counts))}
    found = differences(by_method, PROXMO)["GRPO"]
    expected = np.mean(
        [by_method["GRPO"][seed]["curve"][1][1] - by_method[PROXMO][seed]["curve"][1][1] for seed in range(5)]
    )
    assert found.mean.value == pytest.approx(expected)
    assert 0 < found.drawn[0] < expected < found.drawn[1]
    assert found.p < 0.01
    assert found.p_corrected == found.p
    assert bootstrap(np.zeros((5, 9))) == (0.0, 0.0)


def test_the_tables_have_what_there_is(tmp_path: Path):
    assert list(tables(tmp_path)) == ["No training is done yet."]
    for cell in cells("tuning", "rooms_three", {}):
        append(file_of("tuning", results=tmp_path), record(cell, 0.5 if cell.tuning == GRID[1] else 0.4))
    chosen = choose(list(read(file_of("tuning", results=tmp_path)).values()))
    assert chosen == dict.fromkeys(METHODS, GRID[1])
    for cell in itertools.islice(cells("main", "rooms_three", chosen), 3 * len(METHODS)):
        append(
            file_of("main", "rooms_three", tmp_path),
            record(cell, 0.8 if cell.method == PROXMO else 0.6, seed=cell.seed),
        )
    text = "\n".join(tables(tmp_path))
    assert "after 40,000 turns; 3 of 8 seeds; at the start 40.0%" in text
    row = next(line for line in text.splitlines() if line.startswith("| GRPO |") and "[" in line)
    assert re.search(r"\| -\d+\.\d \[[-+]\d+\.\d, [-+]\d+\.\d\] \| \[[-+]", row)
    assert "9,000" in row  # turns to 80%
    from docs.figures.evidence_comparison import draw

    picture = draw("rooms_three", tmp_path, tmp_path)
    assert picture is not None
    assert "points more than ProxMO" in picture.read_text()
    assert draw("rooms_six", tmp_path, tmp_path) is None
    for cell in cells("ablations", "rooms_three", chosen):
        append(file_of("ablations", results=tmp_path), record(cell, 0.7, seed=cell.seed))
    assert "| no modulation |" in "\n".join(tables(tmp_path))


def test_the_page_has_the_tables_that_the_results_give():
    page = PAGE.read_text(encoding="utf-8")
    assert page.split(BEGIN)[1].split(END)[0].strip() == "\n".join(tables()).strip()


def test_shorter_trainings_are_kept_apart(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse(["--stage", "main", "--turns", "100"])
    assert "--results FOLDER" in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_as_it_is_typed_is_kept_and_not_run_again(tmp_path: Path):
    for tuning in GRID:
        append(file_of("tuning", results=tmp_path), record(Cell("tuning", "rooms_three", "GRPO", tuning, 100), 0.4))
    command = [sys.executable, "-m", "benchmarks.evidence.comparison", "--stage", "main", "--methods", "GRPO"]
    command += ["--turns", "1500", "--lanes", "1", "--results", str(tmp_path)]
    subprocess.run([*command, "--minutes", "0.4"], cwd=ROOT, check=True, timeout=600)
    found = list(read(file_of("main", "rooms_three", tmp_path)).values())
    assert [one["seed"] for one in found] == [0]
    assert found[0]["curve"][0][0] == 0
    assert found[0]["curve"][-1][0] >= 1500
    assert len(found[0]["solved"]) == 256
    assert found[0]["curve"][-1][2] == 256
    assert sum(map(int, found[0]["solved"])) / 256 == found[0]["curve"][-1][1]
    assert found[0]["training"][-1][0] == found[0]["curve"][-1][0]
    assert 0 < found[0]["minutes"]["advantages"] < found[0]["minutes"]["learning"] < found[0]["minutes"]["all"]
    assert found[0]["tuning"] == asdict(GRID[0]) == asdict(Tuning(**found[0]["tuning"]))
    done = subprocess.run(
        [*command, "--minutes", "0"], cwd=ROOT, check=True, timeout=600, capture_output=True, text=True
    )
    assert "7 of 8 trainings to go" in done.stdout

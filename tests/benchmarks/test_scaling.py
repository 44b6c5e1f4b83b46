"""The simulation of a run: against closed formulas, and what holds of every run where there are none."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scaling import __main__ as command
from benchmarks.scaling import driver_costs, gpu_cluster, table
from benchmarks.scaling.constants import (
    DriverTimes,
    EngineTimes,
    LearnerTimes,
    Recorded,
    RunnerTimes,
    Times,
    TransferTimes,
    quadratic,
)
from benchmarks.scaling.events import Clock, Process, Processors, Signal
from benchmarks.scaling.playing import Engine
from benchmarks.scaling.scenarios import REMEDIES, remedied, results
from benchmarks.scaling.simulation import PARTS, PHASES, simulate
from benchmarks.scaling.training import Layout, Training
from benchmarks.scaling.workload import Mixed, Recording

STEP, TOKEN, REQUEST_STEP, WINDOW = 3e-3, 2e-5, 1e-4, 2e-3
#: A turn costs nothing but its steps, and nobody but the engines and the learners takes any time.
FREE = Times(
    EngineTimes(STEP, TOKEN, REQUEST_STEP, True, 0, 0, 0, 0, max_num_seqs=128, max_tokens=8192, block=1),
    RunnerTimes(0, 0, 0, 0, 0, 0, WINDOW, max_concurrent=128, send_s=0, handle_s=0),
    DriverTimes(0, 0, 0, (0, 0, 0), (0, 0, 0), 0, 0, 0, 0, 0, 0),
    LearnerTimes(0.2, 1e-5, 0, threads=1, steps=4, gradient_bytes=0, allreduce_bytes_per_s=1, snapshot_s=0, export_s=0),
    TransferTimes(0, 1.0, load_s=0, score_s=0),
    cores=16,
)
#: As FREE; but a runner that has nothing to play is asked again at once, which has to take some time.
NEARLY_FREE = replace(FREE, driver=replace(FREE.driver, hop_s=1e-3))
#: Everybody takes some.
TIMES = Times(
    EngineTimes(STEP, TOKEN, REQUEST_STEP, False, 4e-4, 2e-4, 2e-5, 2e-4, max_num_seqs=32, max_tokens=8192, block=32),
    RunnerTimes(8e-4, 1e-3, 6e-4, 5e-5, 3e-4, 1e-7, WINDOW, max_concurrent=32, send_s=1e-5, handle_s=2e-5),
    DriverTimes(2e-4, 3e-4, 2e-5, (5e-4, 5e-6, 1e-8), (6e-4, 5e-6, 1e-8), 1e-7, 1e-5, 1e-5, 3e-6, 1200, 0.01),
    LearnerTimes(
        0.1, 5e-6, 1e-5, 2, steps=4, gradient_bytes=4e6, allreduce_bytes_per_s=1e9, snapshot_s=0.02, export_s=0.03
    ),
    TransferTimes(4e6, 4e8, load_s=0.02, score_s=0.01),
    cores=2,
)
MIXED = Mixed(turns=(1, 6), response=(2, 12), first=60, observation=20)


def test_a_queue_waits_as_long_as_the_formula_says():
    """M/D/1: work of a fixed length comes at random. The mean wait is rho s / 2 (1 - rho)."""
    clock, rng, service, load, count = Clock(), random.Random(0), 1.0, 0.7, 40_000
    process = Process(clock)
    waits, done = [], Signal(clock, count)

    def arrive() -> None:
        came = clock.now
        process.do(service, lambda: (waits.append(clock.now - came - service), done.fire()))

    def story():
        for _ in range(count):
            yield rng.expovariate(load / service)
            arrive()
        yield done

    clock.run(story())
    assert sum(waits) / count == pytest.approx(load * service / (2 * (1 - load)), rel=0.05)
    assert process.busy_s / clock.now == pytest.approx(load, rel=0.02)


def test_processes_share_the_cores_evenly():
    clock = Clock()
    processors, ended = Processors(clock, 2), {}
    for name, seconds, threads in (("short", 1.0, 1), ("long", 2.0, 1), ("wide", 1.0, 2)):
        processors.work(seconds, lambda name=name: ended.update({name: clock.now}), threads)

    def story():
        yield 10.0

    clock.run(story())
    # Four threads on two cores, until the wide job and the short one have had their second each; then one alone.
    assert ended == pytest.approx({"short": 2.0, "wide": 2.0, "long": 3.0})


def test_who_waits_for_nobody_is_told_instead_of_waiting_for_ever():
    clock = Clock()

    def story():
        yield Signal(clock)

    with pytest.raises(RuntimeError, match="waits for somebody"):
        clock.run(story())


def decoding(requests: int, new: int, length: int) -> float:
    """Seconds of equal requests that come at once."""
    whole = STEP * length + REQUEST_STEP * requests * length
    return whole + TOKEN * (new + requests * (length - 1))


@pytest.mark.parametrize("size", [1, 8, 32])
def test_equal_episodes_on_one_engine_take_exactly_what_their_steps_take(size):
    prompt, observation, length = 50, 12, 7
    layout = Layout(1, 1, 0, 1, group_size=size)
    played = [[[(prompt, length), (observation, length)]] * size]
    outcome = simulate(FREE, Recording(played), layout, iterations=1)
    # The first prompt is computed once, but for its last token; then what is new, and the last one sampled.
    first = decoding(size, prompt + size - 1, length)
    second = decoding(size, size * (observation + 1), length)
    assert outcome.phases["sampling"] == pytest.approx(2 * WINDOW + first + second)
    assert outcome.phases["learning"] == pytest.approx(0.2 + 1e-5 * size * (prompt + observation + 2 * length))


def test_requests_beyond_the_bound_wait_for_the_others():
    layout = Layout(1, 1, 0, 1, group_size=6)
    times = replace(FREE, engine=replace(FREE.engine, max_num_seqs=2))
    outcome = simulate(times, Recording([[[(10, 5)]] * 6]), layout, iterations=1)
    # Three pairs, one after the other; the last of a pair is done as the next begins.
    whole = WINDOW + decoding(2, 11, 5) + 2 * decoding(2, 2, 5)
    assert outcome.phases["sampling"] == pytest.approx(whole)


def test_what_is_under_way_goes_on_under_new_weights_and_is_computed_again():
    training = Training(FREE, Recording([[[(30, 100)]]]), Layout(1, 1, 0, 1, group_size=1))
    engine: Engine = training.engines[0]
    (group,) = training._deal(1)
    at: list[float] = []

    def story():
        training.runners[0].sample([group], lambda _: at.append(training.clock.now))
        yield WINDOW + STEP * 10
        yield engine.order(1.0, version=1)
        yield 10.0

    training.clock.run(story())
    assert set(group.versions) == {0, 1}
    assert group.versions.total() == 100
    again = 30 + group.versions[0]
    assert at[0] == pytest.approx(WINDOW + 1.0 + decoding(1, 30, 100) + TOKEN * again)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("learners", [0, 2])
@pytest.mark.parametrize("max_staleness", [0, 1, 2, 4])
def test_every_group_is_learned_from_once_and_none_is_too_old(max_staleness, learners, together):
    layout = Layout(2, 2, learners, 6, group_size=4, max_staleness=max_staleness, together=together)
    training = Training(TIMES, MIXED, layout)
    training.run(10)
    learned = [number for each in training.iterations for number in each.groups]
    assert learned == list(range(60))  # in the order of dealing
    ages = {age for each in training.iterations for age in each.tokens_by_age}
    assert min(ages) >= 0
    assert max(ages) <= max_staleness
    for each in training.iterations:
        assert each.sampling + each.learning + each.transfer + each.between == pytest.approx(each.seconds)
        assert all(-1e-9 <= each.busy[part] <= each.seconds * (1 + 1e-9) for part in PARTS), each.busy


def test_it_is_the_same_run_with_the_same_seed_and_another_with_another():
    layout = Layout(2, 2, 1, 6, group_size=4, max_staleness=1)
    assert simulate(TIMES, MIXED, layout) == simulate(TIMES, MIXED, layout)
    assert simulate(TIMES, MIXED, layout).seconds != simulate(TIMES, MIXED, layout, seed=1).seconds


def test_playing_ahead_takes_the_longer_half_and_waiting_both():
    layout = Layout(1, 1, 1, 8)
    waiting = simulate(NEARLY_FREE, MIXED, layout, iterations=12)
    ahead = simulate(NEARLY_FREE, MIXED, replace(layout, max_staleness=2), iterations=12)
    halves = [waiting.phases[phase] for phase in ("sampling", "learning", "transfer")]
    assert waiting.seconds == pytest.approx(sum(halves), abs=1e-9)
    assert ahead.seconds < 0.95 * sum(halves)
    assert ahead.seconds >= ahead.phases["learning"]
    assert 0 < ahead.staleness_mean <= 2
    assert waiting.staleness_max == 0


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_more_engines_are_never_slower_where_the_driver_costs_nothing(max_staleness):
    taken = [
        simulate(NEARLY_FREE, MIXED, Layout(n, n, n, 32, max_staleness=max_staleness), iterations=8).seconds
        for n in (1, 2, 4, 8)
    ]
    assert all(more <= fewer * 1.001 for fewer, more in itertools.pairwise(taken)), taken


@pytest.mark.parametrize("max_staleness", [0, 1])
def test_a_few_stand_for_many_that_are_alike(max_staleness):
    layout = Layout(24, 24, 24, 8 * 24, group_size=4, max_staleness=max_staleness)
    all_of_them = simulate(TIMES, MIXED, layout, most=24)
    few = simulate(TIMES, MIXED, layout, most=8)
    assert layout.fewer(8) == 3
    assert 0.75 * all_of_them.seconds < few.seconds < all_of_them.seconds, "the slowest of fewer is not as slow"


def test_what_grows_with_the_square_of_the_runners_is_found_in_the_driver():
    costly = replace(TIMES, driver=replace(TIMES.driver, round_s=(0, 0, 1e-5)))
    many = simulate(costly, MIXED, Layout(64, 64, 64, 4 * 64), most=4)
    assert many.busiest == "driver"
    assert many.phases["sampling"] > 0.9 * 64 * 64**2 * 1e-5
    times, layout = remedied(costly, many.layout, 1)
    mended = simulate(times, MIXED, layout, most=4)
    assert many.phases["sampling"] - mended.phases["sampling"] > 0.9 * 64 * 64**2 * 1e-5


def test_the_way_to_the_engines_is_packed_once_for_all_runners():
    layout = Layout(8, 64, 8, 4 * 64)
    costly = replace(TIMES, driver=replace(TIMES.driver, handle_s=1e-3))
    free, paid = (simulate(times, MIXED, layout, most=64).phases["transfer"] for times in (TIMES, costly))
    assert paid - free == pytest.approx(8e-3, rel=0.05)


def test_the_code_of_the_driver_is_timed_as_it_is():
    assert driver_costs.stream_pass_s(4) > 0
    assert driver_costs.round_pass_s(4) > 0
    known = (1e-5, 2e-7, 3e-9)
    assert driver_costs.fitted(lambda n: quadratic(known, n)) == pytest.approx(known, rel=1e-6)


def recorded(**more) -> Recorded:
    return Recorded(TIMES, [[[[60, 5], [20, 5]]] * 4] * 3, {"core": 1e-3}, {"core": 1.0}, "a machine", **more)


def test_what_was_measured_is_read_as_it_was_written(tmp_path):
    recorded().write(tmp_path / "times.json")
    again = Recorded.read(tmp_path / "times.json")
    assert dataclasses.asdict(again.times) == json.loads(json.dumps(dataclasses.asdict(TIMES)))
    assert again.groups == recorded().groups
    (tmp_path / "other.json").write_text('{"times": {}}')
    with pytest.raises(ValueError, match=r"other\.json is no file of --measure"):
        Recorded.read(tmp_path / "other.json")


def test_every_number_of_the_gpu_cluster_is_one_of_the_constants_and_says_where_it_is_from():
    times = dataclasses.asdict(gpu_cluster.gpu_times(TIMES))
    for name, (value, source) in gpu_cluster.NUMBERS.items():
        part, _, field = name.partition(".")
        assert times[part][field] == value
        assert source


def test_the_page_says_what_is_saturated_first(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_cluster, "WORKLOAD", MIXED)
    rows = list(results(recorded(), (1, 4), most=1))
    assert {row["remedy"] for row in rows} == {REMEDIES[0][0]}
    said = table.saturation([row for row in rows if row["scenario"] == "a GPU cluster"], 0)
    assert "as long with 4 as with one" in said or "nothing is saturated up to 4" in said
    slower = [
        rows[0],
        rows[0] | {"number": 8, "seconds": 9 * rows[0]["seconds"], "busy": rows[0]["busy"] | {"driver": 1}},
    ]
    assert "first of all the driver" in table.saturation(slower, 0)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.put_into(page, table.tables(recorded(), rows))
    assert page.read_text().startswith("before\n")
    assert "old" not in page.read_text()
    assert "has not been compared with real runs" in page.read_text()
    checked = [{"engines": 1, "max_staleness": 0, "measured_s": 2.0, "predicted_s": 2.1, "off": 0.05}]
    assert "| 1 | 0 | 2.00 s | 2.10 s | +5% |" in table.tables(recorded(checked=checked), rows)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "one of them"),
        (["--measure", "a", "--times", "b"], "one of them"),
        (["--measure", "a", "--check"], "go with --times"),
        (["--times", "a", "--into", "nowhere/page.md"], "there is no"),
        (["--times", "a", "--numbers", "4", "16"], "begins with 1"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(words, reason, capsys):
    with pytest.raises(SystemExit):
        command.parse(words)
    assert reason in capsys.readouterr().err


def test_a_file_that_is_not_there_is_said(tmp_path, capsys):
    assert command.main(["--times", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_page_and_picture_are_what_was_simulated(repository: Path, tmp_path: Path) -> None:
    """Else say: python -m benchmarks.scaling --times FILE --into docs/scaling.md"""
    docs = repository / "docs"
    rows = json.loads((docs / "figures" / "scaling.json").read_text(encoding="utf-8"))
    times = Recorded.read(docs / "figures" / "scaling_times.json")
    (tmp_path / "scaling.md").write_text((docs / "scaling.md").read_text(encoding="utf-8"), encoding="utf-8")
    table.put_into(tmp_path / "scaling.md", table.tables(times, rows))
    assert (tmp_path / "scaling.md").read_text() == (docs / "scaling.md").read_text()
    spec = importlib.util.spec_from_file_location("figures_scaling", docs / "figures" / "scaling.py")
    assert spec is not None
    assert spec.loader is not None
    figures = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = figures
    spec.loader.exec_module(figures)
    figures.main(tmp_path)
    assert (tmp_path / "scaling.svg").read_text() == (docs / "figures" / "scaling.svg").read_text()
    assert all(set(row["phases"]) == set(PHASES) for row in rows)

"""Credit assignment costs nothing beside an iteration: processor time, memory, and how they grow."""

import importlib.util
import time
import tracemalloc
from pathlib import Path

import pytest

from proxmo_rllib.advantages import TurnTable, estimate_advantages


@pytest.fixture(scope="module")
def synthetic_table():
    path = Path(__file__).parents[2] / "benchmarks" / "advantages.py"
    spec = importlib.util.spec_from_file_location("benchmarks_advantages", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.synthetic_table


def cpu_seconds(table: TurnTable, name: str) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        estimate_advantages(table, name)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.slow
def test_19283_turns_take_at_most_a_quarter_of_a_second_of_one_core(synthetic_table):
    """On a quiet core less than 0.1 s; a busy machine gets some leave."""
    assert cpu_seconds(synthetic_table(32, 16, 19_283), "proxmo") <= 0.25


@pytest.mark.slow
def test_the_cost_is_linear_in_the_number_of_groups(synthetic_table):
    few, many = (cpu_seconds(synthetic_table(groups, 16, 600 * groups), "proxmo") for groups in (8, 64))
    assert many <= 8 * few * 1.6


def test_memory_does_not_grow_with_the_batch(synthetic_table):
    """Beyond the results themselves, which are a dozen numbers a turn."""
    peaks = {}
    for groups in (4, 32):
        table = synthetic_table(groups, 4, 100 * groups)
        tracemalloc.start()
        estimate_advantages(table, "proxmo")
        peaks[groups] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[32] - peaks[4] < 28 * 100 * 8 * 25


def test_one_huge_group_is_worked_off_in_blocks(synthetic_table):
    """3,000 distinct anchors: their similarity matrix alone would take 72 MB."""
    table = synthetic_table(1, 16, 3000, words=5)
    tracemalloc.start()
    estimate_advantages(table, "proxmo")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6

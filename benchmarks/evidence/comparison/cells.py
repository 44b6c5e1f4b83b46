"""The trainings of the comparison: which there are, and which are done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.evidence.comparison.methods import ABLATIONS, GRID, METHODS, PROXMO, Method, Tuning
from benchmarks.evidence.comparison.statistics import Record
from benchmarks.evidence.comparison.worlds import WORLDS

RESULTS = Path(__file__).parent.parent / "results" / "comparison"

TUNED_IN = "rooms_three"
TUNING_SEEDS = (100,)
SEEDS: Mapping[str, tuple[int, ...]] = {
    world: tuple(range(8)) if world == TUNED_IN else tuple(range(5)) for world in WORLDS
}
ABLATION_SEEDS = tuple(range(4))
STAGES = ("tuning", "main", "ablations")


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        stage: that it is for.
        world: by its name.
        method: by its name, of the table or of the ablations.
        tuning: learning rate and entropy.
        seed: of the tasks, their order and the sampling.
    """

    stage: str
    world: str
    method: str
    tuning: Tuning
    seed: int

    @property
    def what(self) -> Method:
        """The method itself."""
        return (ABLATIONS if self.stage == "ablations" else METHODS)[self.method]

    @property
    def key(self) -> str:
        """Tells it from all others; a change of its method or of the world's length makes it another."""
        world = WORLDS[self.world]
        parts = [self.world, world.turns, world.lr, self.method, self.what.described(), asdict(self.tuning), self.seed]
        return json.dumps(parts, sort_keys=True)

    def __str__(self) -> str:
        lr, entropy = self.tuning.lr_factor, self.tuning.entropy_coef
        return f"{self.world}, {self.method}, lr x {lr:g}, entropy {entropy:g}, seed {self.seed}"


def cells(stage: str, world: str, chosen: Mapping[str, Tuning]) -> Iterator[Cell]:
    """The trainings of a stage, one seed of all methods after the other.

    Args:
        stage: of `STAGES`.
        world: by its name; tuning and ablations have one.
        chosen: what the tuning chose, by method; those that are not in it are left out.
    """
    if stage == "tuning":
        for seed in TUNING_SEEDS:
            for tuning in GRID:
                yield from (Cell(stage, TUNED_IN, method, tuning, seed) for method in METHODS)
    elif stage == "main":
        for seed in SEEDS[world]:
            yield from (Cell(stage, world, method, chosen[method], seed) for method in METHODS if method in chosen)
    elif PROXMO in chosen:
        for seed in ABLATION_SEEDS:
            yield from (Cell(stage, TUNED_IN, method, chosen[PROXMO], seed) for method in ABLATIONS)


def file_of(stage: str, world: str = TUNED_IN, results: Path = RESULTS) -> Path:
    """Where the trainings of a stage are kept: one line of JSON each."""
    return results / (f"main_{world}.jsonl" if stage == "main" else f"{stage}.jsonl")


def read(path: Path) -> dict[str, Record]:
    """The trainings of a file, by key.

    Raises:
        ValueError: a line is none; names file and line.
    """
    found: dict[str, Record] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            found[record["key"]] = record
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: this is no training ({error}); take the line out.") from error
    return found


def append(path: Path, record: Record) -> None:
    """Adds a training, as one line and at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, sort_keys=True) + "\n")


def choose(records: Sequence[Record]) -> dict[str, Tuning]:
    """What the tuning chose: of each method the settings with the largest area under the curve, mean over its seeds.

    Args:
        records: of the tuning.

    Returns:
        By method; those are left out of which a part of the grid is missing.
    """
    by_method: dict[str, dict[Tuning, list[float]]] = {}
    for record in records:
        method, tuning = record["method"], Tuning(**record["tuning"])
        by_method.setdefault(method, {}).setdefault(tuning, []).append(record["area"])
    whole = {
        method: areas
        for method, areas in by_method.items()
        if all(len(areas.get(tuning, ())) == len(TUNING_SEEDS) for tuning in GRID)
    }
    return {
        method: max(GRID, key=lambda tuning, areas=areas: sum(areas[tuning]))  # type: ignore[misc]
        for method, areas in whole.items()
    }

"""Kinds of tasks of ScienceWorld 1.2, and how many variations of each are in which split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from env_wrappers.core import PLAIN_SPLITS

# Variations in train, valid and test, in this order: those of train begin at 0. A test asks the engine.
VARIATIONS: Mapping[str, tuple[int, int, int]] = {
    "boil": (14, 7, 9),
    "change-the-state-of-matter-of": (14, 7, 9),
    "chemistry-mix": (16, 8, 8),
    "chemistry-mix-paint-secondary-color": (18, 9, 9),
    "chemistry-mix-paint-tertiary-color": (18, 9, 9),
    "find-animal": (150, 75, 75),
    "find-living-thing": (150, 75, 75),
    "find-non-living-thing": (150, 75, 75),
    "find-plant": (150, 75, 75),
    "freeze": (14, 7, 9),
    "grow-fruit": (62, 31, 33),
    "grow-plant": (62, 31, 33),
    "identify-life-stages-1": (6, 3, 5),
    "identify-life-stages-2": (4, 2, 4),
    "inclined-plane-determine-angle": (84, 42, 42),
    "inclined-plane-friction-named-surfaces": (692, 346, 348),
    "inclined-plane-friction-unnamed-surfaces": (80, 40, 42),
    "lifespan-longest-lived": (62, 31, 32),
    "lifespan-longest-lived-then-shortest-lived": (62, 31, 32),
    "lifespan-shortest-lived": (62, 31, 32),
    "measure-melting-point-known-substance": (218, 109, 109),
    "measure-melting-point-unknown-substance": (150, 75, 75),
    "melt": (14, 7, 9),
    "mendelian-genetics-known-plant": (60, 30, 30),
    "mendelian-genetics-unknown-plant": (240, 120, 120),
    "power-component": (10, 5, 5),
    "power-component-renewable-vs-nonrenewable-energy": (10, 5, 5),
    "test-conductivity": (450, 225, 225),
    "test-conductivity-of-unknown-substances": (300, 150, 150),
    "use-thermometer": (270, 135, 135),
}


def task_ids(split: str, kinds: Sequence[str], limit: int | None) -> list[str]:
    """Ids such as "boil/3", kind after kind in turn, so that the first ones are of all kinds.

    Args:
        split: one of `PLAIN_SPLITS`.
        kinds: names of `VARIATIONS`.
        limit: variations of each kind at most; None for all.
    """
    place = PLAIN_SPLITS.index(split)
    found = []
    for turn in range(max(VARIATIONS[kind][place] for kind in kinds) if limit is None else limit):
        for kind in kinds:
            counts = VARIATIONS[kind]
            if turn < counts[place]:
                found.append(f"{kind}/{sum(counts[:place]) + turn}")
    return found


def parse_task(task: str) -> tuple[str, int]:
    """Kind and variation of a task id.

    Raises:
        ValueError: there is no such task.
    """
    kind, _, word = task.partition("/")
    known = kind in VARIATIONS and word.isascii() and word.isdigit() and word == str(int(word))
    if known and int(word) < sum(VARIATIONS[kind]):
        return kind, int(word)
    raise ValueError(f"task={task!r} is no task of ScienceWorld; ids look like 'boil/3', and tasks(split) lists them.")

"""Trials in a file, one JSON object a line, and the table and the verdict over them."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.faults import trials
from benchmarks.faults.kinds import Fault, all_faults
from benchmarks.faults.trials import Trial
from benchmarks.pages import put_between

BEGIN, END = "<!-- fault table -->", "<!-- end of the fault table -->"
_HEADINGS = ("fault", "trials", "outcome", "seconds (median, max)", "lost", "the terminal's line")
_LINE = 110  # characters of it


def read(path: Path) -> list[Trial]:
    """The trials of a file, those of a name that is no fault's included."""
    if not path.exists():
        return []
    return [Trial.from_json(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]


def append(path: Path, trial: Trial) -> None:
    """Adds one."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(trial.as_json(), ensure_ascii=False) + "\n")


def as_markdown(found: Iterable[Trial]) -> str:
    """The table: a row a fault, in the order of `all_faults`."""
    rows = [_HEADINGS, ("---",) * len(_HEADINGS)]
    for name, mine in by_fault(found).items():
        outcomes = Counter(trial.outcome for trial in mine)
        said = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        rows.append((name, str(len(mine)), said, _seconds(mine), _lost(mine), _line(mine)))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def by_fault(found: Iterable[Trial]) -> dict[str, list[Trial]]:
    """Trials of each fault, in the table's order."""
    listed = list(found)
    names = [*all_faults(), *(trial.fault for trial in listed)]
    groups = {name: [trial for trial in listed if trial.fault == name] for name in dict.fromkeys(names)}
    return {name: mine for name, mine in groups.items() if mine}


def _seconds(mine: Sequence[Trial]) -> str:
    known = [trial.seconds for trial in mine if math.isfinite(trial.seconds)]
    if not known:
        return "-"
    start = [trial.start_s for trial in mine if math.isfinite(trial.start_s)]
    text = f"{statistics.median(known):.1f}, {max(known):.1f}"
    return text + (f" (starts in {statistics.median(start):.0f})" if start else "")


def _lost(mine: Sequence[Trial]) -> str:
    iterations, groups = sum(trial.lost_iterations for trial in mine), sum(trial.dropped for trial in mine)
    parts = [f"{iterations} iterations"] if iterations else []
    parts += [f"{groups} groups dropped"] if groups else []
    left = sum(bool(trial.leftovers) for trial in mine)
    parts += [f"leftovers {left} times"] if left else []
    return ", ".join(parts) or "nothing"


def _line(mine: Sequence[Trial]) -> str:
    """The line that most trials began with; numbers may differ, so lines are compared by their first words."""
    spoken = [trial for trial in mine if trial.said]
    if not spoken:
        return "none"
    first = Counter(" ".join(trial.said[0].split()[:3]) for trial in spoken)
    words = first.most_common(1)[0][0]
    line = next(trial.said[0] for trial in spoken if trial.said[0].startswith(words.split()[0]))
    longest = max(trial.lines for trial in mine)
    more = f" (up to {longest} lines)" if longest > 1 else ""
    silent = len(mine) - len(spoken)
    none = f" ({silent} trials: none)" if silent else ""
    return (line if len(line) <= _LINE else line[: _LINE - 1] + "…") + more + none


def broken_bounds(found: Iterable[Trial]) -> list[str]:
    """Trials beyond the bounds, one sentence each."""
    faults = all_faults()
    return [f"{t.fault}, trial {t.number}: {why}" for t in found for why in _why(t, faults.get(t.fault))]


def _why(trial: Trial, fault: Fault | None) -> Iterable[str]:
    if fault is None:
        yield "there is no such fault"
        return
    if trial.wrong:
        yield f"wrong: {'; '.join(trial.wrong[:3])}"
    allowed = {trials.RECOVERED, *((trials.RESUMED, trials.ENDED) if fault.may_end else ())}
    if trial.outcome not in allowed and not (trial.outcome == trials.WRONG and trial.wrong):
        yield f"{trial.outcome}. {trial.detail}".strip()
    if trial.lost_iterations:
        yield f"{trial.lost_iterations} iterations with a checkpoint were lost"
    if fault.how == "disturb" and trial.dropped:
        yield f"{trial.dropped} groups were dropped"
    for words in trial.leftovers:
        if words.startswith("processes"):  # a file may be what a killed process could not remove
            yield f"it left {words}"
    if fault.times > 1 and trial.seconds > trials.SECOND_SIGNAL_S:
        yield f"the second signal took {trial.seconds:.1f} s"
    if fault.engine and trial.seconds > trial.start_s + trials.ENGINE_SPARE_S:
        yield f"{trial.seconds:.0f} s later, and an engine starts in {trial.start_s:.0f} s"


def put_into(page: Path, table: str) -> None:
    """Replaces the table of a page."""
    put_between(page, BEGIN, END, table)

"""Plans are held to what real processes take, and the page to what is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.plan import (
    ENGINES,
    LEARNERS,
    LearnerCase,
    computed,
    measured,
    measured_learner,
    planned_engine,
    planned_learner,
    with_tables,
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", LEARNERS, ids=str)
def test_a_learner_takes_what_was_planned(case: LearnerCase) -> None:
    assert planned_learner(case) == pytest.approx(measured_learner(case), rel=0.15)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("model", "dtype"), ENGINES)
def test_an_engine_takes_what_was_planned(model: str, dtype: str) -> None:
    assert planned_engine(model, dtype) == pytest.approx(measured("engine", model, dtype), rel=0.15)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_page_is_up_to_date(repository: Path) -> None:
    """Else say: python -m benchmarks.plan --into docs/plan.md"""
    page = (repository / "docs" / "plan.md").read_text(encoding="utf-8")
    assert with_tables(page, computed()) == page

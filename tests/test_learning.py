"""The agent learns: the quickstart's first iterations, with vLLM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from proxmo_rllib.cli.settings import load_example

QUICKSTART = Path(__file__).resolve().parents[1] / "tuned_examples" / "quickstart.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_success_in_training_rises_within_minutes(local_ray: None, tmp_path: Path):
    config = load_example(QUICKSTART).config.evaluation(panel=None, evaluation_interval=None)
    algorithm = config.debugging(run_folder=str(tmp_path)).build_algo()
    try:
        rates = [algorithm.train()["env_runners"]["success_rate"] for _ in range(10)]
    finally:
        algorithm.stop()
    # Three runs of it rose from 0.2 to 0.6; an iteration's standard error, tasks included, is 0.06.
    assert np.mean(rates[-4:]) > np.mean(rates[:2]) + 0.2, rates

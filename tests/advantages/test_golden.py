"""Parity with the recorded outputs of the official code."""

import json

import numpy as np
import pytest

from proxmo_rllib.advantages import TurnTable, estimate_advantages

GIGPO = ("gamma", "step_weight", "episode_mean_over")
MODULATED = (*GIGPO, "psc_alpha", "psc_range")
VARIANTS = {
    "proxmo": ("proxmo_official", None, {}),
    "proxmo_without_modulation": ("proxmo_official", None, {"psc_range": 0.0}),
    "gigpo_mean_std": ("gigpo", GIGPO, {"normalization": "mean_std"}),
    "gigpo_mean": ("gigpo", GIGPO, {"normalization": "mean"}),
    "gigpo_mean_with_modulation": ("proxmo_without_aggregation", MODULATED, {"normalize_std": False}),
}


@pytest.mark.shared
@pytest.mark.parametrize("variant", VARIANTS)
def test_official_code_is_matched_on_every_recorded_case(shared, variant):
    cases = json.loads((shared / "golden" / "advantages.json").read_text())["cases"]
    name, taken, changed = VARIANTS[variant]
    for case in cases:
        columns = case["columns"]
        table = TurnTable(
            group=columns["group_id"],
            episode=columns["episode_id"],
            reward=columns["reward"],
            success=columns["success"],
            anchor=columns["anchor"],
        )
        params = case["params"]
        options = {key: params[key] for key in (params if taken is None else taken)}
        advantages = estimate_advantages(table, name, **(options | changed))
        assert set(case["expected"]) == set(VARIANTS)
        for part, expected in case["expected"][variant].items():
            np.testing.assert_allclose(getattr(advantages, part), expected, rtol=0, atol=1e-5, err_msg=part)

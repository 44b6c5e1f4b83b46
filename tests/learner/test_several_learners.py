"""Two learners in two processes compute what one computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ray
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.advantages import estimate_advantages
from proxmo_rllib.inference.weights import serialise
from proxmo_rllib.learner import GroupedTrainingData
from proxmo_rllib.learner.advantages_connector import turn_table
from proxmo_rllib.metrics_logger import LoggedMetrics
from proxmo_rllib.orchestration.learners import Learners

pytestmark = pytest.mark.slow


def make_inspect() -> Callable[[Any], dict[str, Any]]:
    """Made in a function, so that Ray's processes, which know no tests, get the function itself."""

    def inspect(learner: Any) -> dict[str, Any]:
        parameters = dict(learner.policy.lm.named_parameters())
        return {
            "gradients": {name: p.grad.numpy().copy() for name, p in parameters.items() if p.grad is not None},
            "weights": {name: p.detach().numpy().copy() for name, p in parameters.items()},
            "version": learner.policy_version,
        }

    return inspect


@pytest.mark.parametrize("lora", [pytest.param(None, marks=pytest.mark.smoke), {"rank": 4, "alpha": 8}])
def test_gradient_does_not_depend_on_the_number_of_learners(
    local_ray: None, config: ProxMOConfig, tools: Any, lora: dict[str, Any] | None
):
    """Groups of unequal size, so that the shards have unequal numbers of sequences, tokens and micro-batches."""
    config.policy(lora=lora)
    config.training(kl_coef=0.1, entropy_coef=0.05, max_tokens_per_microbatch=60, num_groups=3, lr=1e-4)
    # What the sum is divided by is no sum of weights, and GSPO's unit is the turn.
    config.training(loss_weighting="dr_grpo", objective={"name": "gspo", "clip_low": 0.1, "clip_high": 0.1})
    config.env_runners(max_turns=4).inference(max_response_tokens=2)
    groups = [*tools.groups(1, 3, max_turns=12), *tools.groups(4, 3, max_turns=2, seed=1)[1:]]
    alone = tools.build(config)
    logged = tools.update(alone, groups)
    inspect = make_inspect()
    expected = inspect(alone)

    episodes = tools.training_data(groups).episodes
    diagnostics = estimate_advantages(
        turn_table(episodes), config.estimator(), **config.estimator_settings()
    ).diagnostics()

    config.learners(num_learners=2, num_gpus_per_learner=0)
    learners = config.copy(copy_frozen=False).build_learner_group(spaces=tools.spaces)

    metrics = LoggedMetrics.like(MetricsLogger(root=True))
    try:
        data = GroupedTrainingData(
            group_refs=[ray.put(group) for group in groups], group_tokens=[group.num_tokens for group in groups]
        )
        metrics.aggregate(learners.update(training_data=data, num_epochs=1), key="learners")
        seen = [result.get() for result in learners.foreach_learner(inspect)]
        state = learners.get_state()["learner"]
        parts, reference = Learners(learners).export_policy()
        (whole,), adapters = ray.get(parts), ray.get(reference)
    finally:
        learners.shutdown()
    assert len(seen) == 2
    scale = max(float(np.abs(gradient).max()) for gradient in expected["gradients"].values())
    assert scale > 1e-4
    for rank in seen:
        assert rank["version"] == expected["version"] == 1
        for name, gradient in expected["gradients"].items():
            np.testing.assert_allclose(rank["gradients"][name], gradient, rtol=1e-3, atol=1e-5 * scale, err_msg=name)
    for name, weight in seen[0]["weights"].items():
        assert np.array_equal(weight, seen[1]["weights"][name])
    together = metrics.compile()["learners"]["default_policy"]
    for name in ("policy_loss", "total_loss", "entropy", "kl_to_reference", "clip_fraction", "num_skipped_steps"):
        assert together[name] == pytest.approx(logged[name], rel=1e-4, abs=1e-6), name
    for name in ("groups", "total/mean", "total/std", "step/abs_max", "returns/std", "anchors/singleton_share"):
        assert together["advantages"][name] == pytest.approx(diagnostics[name], abs=1e-6), name
    copy = tools.build(config.copy(copy_frozen=False).learners(num_learners=0))
    copy.set_state(state)
    for name, weight in inspect(copy)["weights"].items():
        assert np.array_equal(weight, seen[0]["weights"][name])
    assert copy.policy_version == 1
    assert np.array_equal(whole, serialise(copy.policy.whole_weights()))
    assert (adapters is None) == (lora is None)
    if lora is not None:
        assert all(".lora_" in name for name in expected["gradients"])
        assert np.array_equal(adapters, serialise(copy.policy.exported_weights()))

"""The quickstart under disagreement between engine and learner: `python -m benchmarks.objectives_quickstart`, and
`--only ppo --iterations 10` for less of it.

As `benchmarks.objectives`, in the real thing: vLLM, the shipped tiny policy, ALFWorld's rooms, the Learner. Each cell
is the quickstart's first iterations; two quiet cores take about a minute for one. Three kinds of disagreement:

    said       the engine's logprobs reach the learner with Gaussian noise of that deviation, a token
    said, wild the same with Student's t of 2 degrees of freedom
    sampled    the engine gets weights with relative Gaussian noise of that deviation, new ones at every transfer, as a
               coarse quantisation would make them; what it says of its samples is true

Printed is the success rate of training over the last 3 iterations, 128 episodes each. With "sampled" the perturbed
engine plays, so that what is measured is lower than what has been learnt.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from benchmarks.objectives import METHODS, Noise, perturb
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.cli.settings import load_example
from proxmo_rllib.learner import CausalLMModule, ProxMOLearner, columns

QUICKSTART = Path(__file__).resolve().parents[1] / "tuned_examples" / "quickstart.py"
NOISES = (Noise("none"), Noise("said", 0.5), Noise("said, wild", 0.5), Noise("sampled", 0.03), Noise("sampled", 0.1))


def noisy_parts(noise: Noise) -> tuple[type[ProxMOLearner], type[CausalLMModule]]:
    """A learner that hears the engine wrongly, and a policy that reaches the engine wrongly."""
    generator = torch.Generator().manual_seed(0)

    class NoisyLearner(ProxMOLearner):
        def _add_fixed_logprobs(self, batch: dict[str, torch.Tensor]) -> None:
            mask = batch[columns.LOSS_MASK]
            said = batch[columns.BEHAVIOUR_LOGPROBS]
            said[mask] = perturb(said[mask], noise, generator)
            super()._add_fixed_logprobs(batch)

    class NoisyModule(CausalLMModule):
        def exported_weights(self) -> dict[str, torch.Tensor]:
            tensors = super().exported_weights()
            if noise.kind != "sampled":
                return tensors
            return {
                name: tensor * (1 + noise.scale * torch.randn(tensor.shape, generator=generator).to(tensor))
                for name, tensor in tensors.items()
            }

    return NoisyLearner, NoisyModule


def quickstart(method: Mapping[str, Any], noise: Noise) -> ProxMOConfig:
    """The quickstart with another loss, and an engine that disagrees."""
    learner, module = noisy_parts(noise)
    config = load_example(QUICKSTART).config.evaluation(panel=None, evaluation_interval=None)
    # The disagreement is wanted here: neither check may end the run.
    config.inference(weight_check_tolerance=1e6, max_kl_to_engine=1e6)
    config.training(**method).learners(learner_class=learner)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=module, model_config=config.module_settings()))
    return config.debugging(record_groups=0)


def train(method: Mapping[str, Any], noise: Noise, iterations: int) -> tuple[float, float]:
    """One run: success rate of its last 3 iterations, and the mean divergence that was logged, nats a token."""
    algorithm = quickstart(method, noise).build_algo()
    try:
        results = [algorithm.train() for _ in range(iterations)]
    finally:
        algorithm.stop()
    rates = [result["env_runners"]["success_rate"] for result in results[-3:]]
    kl = [result["learners"]["default_policy"]["mismatch"]["kl"] for result in results]
    return float(np.mean(rates)), float(np.mean(kl))


def main() -> None:
    """Trains and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--only", default="", help="methods whose name begins so")
    arguments = parser.parse_args()
    began = time.perf_counter()
    print("| " + " | ".join(["success, % (KL)", *map(str, NOISES)]) + " |")
    print("|" + "---|" * (1 + len(NOISES)))
    for name, method in METHODS.items():
        if not name.startswith(arguments.only):
            continue
        cells = []
        for noise in NOISES:
            rate, kl = train(method, noise, arguments.iterations)
            cells.append(f"{100 * rate:.0f} ({kl:.1g})")
        print("| " + " | ".join([f"`{name}`", *cells]) + " |", flush=True)
    minutes = (time.perf_counter() - began) / 60
    print(f"\none seed, {arguments.iterations} iterations; {minutes:.1f} minutes")


if __name__ == "__main__":
    main()

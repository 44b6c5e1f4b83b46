"""A sweep with PBT: four trials train, and the worse ones go on with the better ones' weights (arXiv 1711.09846).

This example: the quickstart's agent and rooms, with smaller iterations. Every four iterations the worst trial takes
over the weights and the optimizer's state of the best, and that one's settings, a little changed: learning rate, weight
of the step advantage, weight of the entropy. These change in the trial's own processes; no engine starts anew.

How to run this script: `proxmo tune quickstart_pbt`, or `proxmo tune tuned_examples/quickstart_pbt.py`

Results to expect: see docs/sweeps.md.
"""

from __future__ import annotations

from ray import tune
from ray.tune.search import BasicVariantGenerator

from proxmo_rllib.stopping import StopCriteria
from proxmo_rllib.tuning.pbt import InPlacePBT
from tuned_examples.quickstart_sweep import small_quickstart

LR = tune.loguniform(1e-4, 3e-3)
STEP_WEIGHT = tune.uniform(0.3, 5.0)
ENTROPY_COEF = tune.loguniform(1e-3, 0.1)

config = small_quickstart().training(lr=LR, step_weight=STEP_WEIGHT, entropy_coef=ENTROPY_COEF)
tune_config = tune.TuneConfig(
    metric="evaluation/success_rate",
    mode="max",
    num_samples=4,
    search_alg=BasicVariantGenerator(random_state=0),
    scheduler=InPlacePBT(
        time_attr="training_iteration",
        perturbation_interval=4,  # as often as the panel is played
        quantile_fraction=0.25,
        synch=True,  # the trials wait for each other: each is compared with all others at the same iteration
        hyperparam_mutations={"lr": LR, "step_weight": STEP_WEIGHT, "entropy_coef": ENTROPY_COEF},
    ),
)
stop = StopCriteria(iterations=12)

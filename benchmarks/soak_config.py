"""What the soak trains: the quickstart with two environment runners and a learner of its own, without end."""

from __future__ import annotations

from proxmo_rllib import StopCriteria
from tuned_examples.quickstart import config

# Every process that a run can lose; the learner apart from the driver, which nobody replaces.
config.env_runners(num_env_runners=2).learners(num_learners=1).evaluation(panel=None, evaluation_interval=None)
stop = StopCriteria(iterations=1_000_000)

"""Estimators against the true policy gradient, in worlds small enough to know it.

    python -m benchmarks.evidence.audit

Each world is a handful of texts (`worlds.py`), each episode of it is written down with its probability (`exact.py`),
and so the gradient of the expected return is known. An estimator makes one gradient of each group, the sum over its
turns of advantage times the gradient of the log-probability, over the number of episodes, as the learner's first step
does. Printed by world, success rate and group size:

    angle     degrees between the expectation of the estimator's gradient and the true one: bias, that no number of
              groups mends
    length    of that expectation along the true gradient, in lengths of that one; an optimiser such as Adam does not
              see it, but it differs between tasks and over the training
    noise     standard deviation of one group's gradient across the true one, in lengths of the expectation along it
    episodes  until the mean gradient is within 15 degrees of the true one; "never" where the bias is larger

Two thousand groups a cell take ten minutes on one core; what is there is not computed again. `--page` writes the
tables of docs/evidence.md.
"""

"""Time and memory of a learner's optimizer step, beside plain loops and TRL."""

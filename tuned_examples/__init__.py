"""One runnable file per experiment: each builds a config, nothing else."""

"""Trainings that differ in their advantage estimator alone, compared as docs/evidence_protocol.md says.

    python -m benchmarks.evidence.comparison --stage tuning --minutes 55
    python -m benchmarks.evidence.comparison --stage main --world rooms_three --minutes 55
    python -m benchmarks.evidence.comparison --stage ablations --minutes 55
    python -m benchmarks.evidence.comparison --page

Each training becomes a line of a file in `benchmarks/evidence/results/comparison` when it is over. Those that are
there are not run again, and no training begins after the minutes: what is missing is run next time. `--page` draws the
tables of docs/evidence.md from the files and runs nothing.
"""

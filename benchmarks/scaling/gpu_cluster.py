"""Service times of a cluster that nobody here has: a model of 1.5B weights, an engine and a learner on a GPU each.

What the driver and the environment runners take for a turn is measured, on the processors of `--measure` and for the
quickstart's turns, though these are shorter. Each other number stands beside where it comes from; those that say
"assumed" are nobody's measurement.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.scaling.constants import Times, TransferTimes
from benchmarks.scaling.workload import Mixed

WEIGHTS = 1_543_714_304  # of Qwen2.5-1.5B, the head counted once
#: NVIDIA's data sheet of the H100 SXM, as in proxmo_rllib/planning/hardware.py: bfloat16 operations and bytes a second.
OPERATIONS, BANDWIDTH = 989e12, 3.35e12
REACHED = 0.4  # of these operations in large products: assumed, as `proxmo plan` does

NUMBERS: dict[str, tuple[float, str]] = {
    "engine.step_s": (0.004 + 2 * WEIGHTS / BANDWIDTH, "4 ms assumed, as `proxmo plan` does; reading all weights once"),
    "engine.token_s": (2 * WEIGHTS / (OPERATIONS * REACHED), "2 operations a weight"),
    "engine.request_step_s": (10e-6, "assumed: sampling and scheduling of a request"),
    "engine.max_num_seqs": (256, "vLLM's usual bound, assumed"),
    "engine.max_tokens": (8192, "vLLM's usual bound, assumed"),
    "engine.block": (16, "vLLM's block of tokens on a GPU"),
    "learner.update_s": (0.5, "assumed: advantages, columns, copies to the GPU"),
    "learner.token_s": (6 * WEIGHTS / (OPERATIONS * REACHED), "6 operations a weight"),
    "learner.steps": (4, "the setting num_minibatches of this scenario"),
    "learner.gradient_bytes": (4.0 * WEIGHTS, "float32"),
    "learner.allreduce_bytes_per_s": (40e9, "assumed: a connection of 400 Gbit/s for each GPU, four fifths reached"),
    "learner.snapshot_s": (12.0 * WEIGHTS / 5e9, "weights and two moments in float32; 5 GB/s assumed"),
    "learner.export_s": (2.0 * WEIGHTS / 2e9, "bfloat16; 2 GB/s assumed, from the GPU into the object store"),
    "transfer.weights_bytes": (2.0 * WEIGHTS, "bfloat16"),
    "transfer.load_s": (2.0 * WEIGHTS / 1.5e9, "1.5 GB/s assumed: into a file, read again, to the GPU"),
    "transfer.score_s": (0.05, "assumed: a prefill of 256 tokens and the way there"),
}
#: Episodes of 3 to 30 turns, responses of 5 to 200 tokens; prompts as long as ALFWorld's, all assumed.
WORKLOAD = Mixed(turns=(3, 30), response=(5, 200), first=300, observation=60)
#: Bytes a second from one node's object store to another's, one copy at a time. Ray's own benchmark takes 16.9 s for
#: 2^30 bytes to 50 nodes (release/perf_metrics/scalability/object_store.json of ray-project/ray). If all that have a
#: copy give it on, this is six rounds of copies.
COPY_BYTES_PER_S = 6 * 2**30 / 16.94


def gpu_times(measured: Times) -> Times:
    """Service times of the cluster.

    Args:
        measured: of the driver and the environment runners.
    """

    def of(part: str) -> dict[str, float]:
        return {name.partition(".")[2]: value for name, (value, _) in NUMBERS.items() if name.startswith(f"{part}.")}

    engine = replace(measured.engine, on_device=True, **of("engine"))
    learner = replace(measured.learner, threads=1, **of("learner"))
    transfer = TransferTimes(copy_bytes_per_s=COPY_BYTES_PER_S, **of("transfer"))
    return replace(measured, engine=engine, learner=learner, transfer=transfer, cores=16.0)

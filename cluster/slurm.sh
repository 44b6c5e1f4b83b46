#!/usr/bin/env bash
# One training on a Slurm allocation: a Ray head on the first node, workers on the others, then the script.
#
#   sbatch --nodes=2 cluster/slurm.sh tuned_examples/alfworld_qwen2_5_1_5b.py lr=1e-6
#
# Submit it from the checkout. Set VENV to an environment that all nodes see (default: .venv of the checkout).
#
# A job whose time is over, that is pre-empted, or that loses a node, saves and is queued again; then it goes on where it
# was. The run is in $PROXMO_RUNS, or runs/, and keeps its name, since the job keeps its number.
#SBATCH --job-name=proxmo
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=2
#SBATCH --cpus-per-task=24
#SBATCH --mem=128G
#SBATCH --time=24:00:00
#SBATCH --output=proxmo-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -euo pipefail

if [[ $# -lt 1 ]]; then
    echo "usage: sbatch cluster/slurm.sh SCRIPT [key=value ...]" >&2
    exit 2
fi
: "${SLURM_JOB_ID:?is not set: start this script with sbatch}"
cd "$SLURM_SUBMIT_DIR"
# shellcheck source=/dev/null
source "${VENV:-.venv}/bin/activate"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))  # several jobs may share a node
cpus=${SLURM_CPUS_PER_TASK:-1}
gpus=${SLURM_GPUS_ON_NODE:-0}

# A token of this job's own keeps other users of the cluster out.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
export RAY_worker_niceness=0  # on a node that is shared, Ray's own 15 leaves the run to starve
export RAY_TMPDIR=${SLURM_TMPDIR:-/tmp}/ray-$SLURM_JOB_ID  # sockets need a short path

steps=()
# Whatever ends this script ends Ray on all nodes: srun passes the signal on.
cleanup() {
    trap - TERM
    kill "${watcher:-}" "${steps[@]}" 2> /dev/null || true
    wait
}
trap cleanup EXIT

start_ray() {  # on a node
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --nodelist="$node" ray start --block "$@" --num-cpus="$cpus" --num-gpus="$gpus" &
    steps+=($!)
}
start_ray "$head" --head --node-ip-address="$head_ip" --port="$port" --include-dashboard=false
export RAY_ADDRESS=$head_ip:$port
for node in "${nodes[@]:1}"; do
    start_ray "$node" --address="$RAY_ADDRESS"
done

# Wait until all nodes have joined, two minutes at most: a training that starts earlier waits without a word.
python - "${#steps[@]}" <<'PYTHON'
import sys
import time

import ray

wanted, deadline = int(sys.argv[1]), time.monotonic() + 120
while True:
    try:
        ray.init(address="auto", logging_level="ERROR", ignore_reinit_error=True)
        here = sum(node["Alive"] for node in ray.nodes())
    except ConnectionError:
        here = 0
    if here >= wanted:
        break
    if time.monotonic() > deadline:
        sys.exit(f"{here} of {wanted} Ray nodes joined within 120 s: see the log of this job for the others")
    time.sleep(2)
PYTHON

# Slurm signals this shell, two minutes before the end; bash passes nothing on by itself.
proxmo train --run-dir "${PROXMO_RUNS:-runs}/slurm-$SLURM_JOB_ID" --auto-resume --grace-period 100 "$@" &
training=$!
trap 'kill -TERM "$training"' TERM
# A node whose Ray is gone is not waited for: the training saves, ends, and the job is queued again.
lost() {  # prints the nodes whose Ray has ended
    for step in "${!steps[@]}"; do
        kill -0 "${steps[$step]}" 2> /dev/null || echo "${nodes[$step]}"
    done
}
(
    while [[ -z $(lost) ]]; do
        sleep 2
        kill -0 $$ || exit 0  # this script was killed, and Slurm ends the rest
    done
    echo "Ray has ended on $(lost): the training is told to save and to end" >&2
    kill -TERM $$
) &
watcher=$!
# `wait` returns at each signal too.
until wait "$training"; status=$?; ! kill -0 "$training" 2> /dev/null; do :; done
gone=$(lost)
if [[ $status -ne 0 && -n $gone && ${SLURM_RESTART_COUNT:-0} -ge 3 ]]; then
    echo "lost $gone, and this is the fourth start: not queued again" >&2
    exit 1
fi
if [[ $status -eq 130 || ($status -ne 0 && -n $gone) ]]; then
    echo "interrupted: queued again"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"

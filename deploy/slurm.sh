#!/usr/bin/env bash
# A Ray cluster inside one SLURM allocation, one bench command on it:
#   sbatch --nodes=2 --gpus-per-node=4 deploy/slurm.sh run 'methods=[recnet,vre]' dataset=msvd
# or an array of jobs, a seed each, which share one results folder and wait for what another is importing:
#   sbatch --array=0-2 deploy/slurm.sh run 'methods=[recnet,vre]' dataset=msvd 'seeds=[ARRAY]'
# Run it from the checkout, which all nodes must see under the same path. A job that is preempted or loses a node is queued
# again, and goes on where it ended; so does the same line given again.
#SBATCH --job-name=bench
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# srun does not take the processors of a task from sbatch by itself since SLURM 22.05: Ray would be bound to one of them.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
set -- "${@//ARRAY/${SLURM_ARRAY_TASK_ID:-0}}"
bin=$PWD/.venv/bin
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs on one node keep apart
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p) # head would end the pipe early, which pipefail minds
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):$port

# The token of this job alone, on storage that the nodes share, for the owner's eyes.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$PWD/.bench/token-$SLURM_JOB_ID
mkdir -p .bench
(umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
    "$bin/ray" start --head --port="$port" --node-ip-address="${address%:*}" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    for _ in $(seq 60); do # workers need a head that answers
        if timeout 1 bash -c "</dev/tcp/${address%:*}/$port" 2>/dev/null; then break; fi
        sleep 1
    done
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" --overlap \
        "$bin/ray" start --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
fi
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
    bash -c '
        until "$0/ray" status --address="$1" >/dev/null 2>&1; do sleep 2; done
        "$0/python" -c "
import sys, time, ray  # a node that comes late would not be asked whether it has code and features
ray.init(address=sys.argv[1], log_to_driver=False)
until = time.time() + 600
while sum(node[\"Alive\"] for node in ray.nodes()) < int(sys.argv[2]):
    if time.time() > until: sys.exit(\"not all nodes have joined within ten minutes\")
    time.sleep(1)
" "$1" "$2" || exit 1
        exec "$0/bench" "${@:3}" executor.address="$1"' \
    "$bin" "$address" "$SLURM_JOB_NUM_NODES" "$@"

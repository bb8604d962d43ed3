#!/usr/bin/env bash
# Several machines without a scheduler: start this on each of them, with the same variables and arguments.
#   HOST=node1 MIN_NODES=2 launch/multi_node.sh DATA --output FILE --checkpoint_dir FOLDER [options]
# The variables are explained in README.md.
set -euo pipefail

if (($# == 0)); then
    echo "usage: HOST=node1 MIN_NODES=2 $0 DATA --output FILE [options of torchdr-cne fit]" >&2
    exit 2
fi
HOST=${HOST:?name the machine where the others meet, for example HOST=node1}
MIN_NODES=${MIN_NODES:?say how many machines have to be there, for example MIN_NODES=2}
MAX_NODES=${MAX_NODES:-$MIN_NODES}
gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)
NPROC=${NPROC:-$((gpus > 0 ? gpus : 1))}
# Each process gets its part of the cores; torchrun would leave it one.
cores=$(($(nproc) / NPROC))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > 0 ? cores : 1))}

# Without the -- torchrun takes an option of the fit such as --s for a short form of one of its own.
exec torchrun --nnodes="$MIN_NODES:$MAX_NODES" --nproc_per_node="$NPROC" \
    --rdzv-backend=c10d --rdzv-endpoint="$HOST:${PORT:-29400}" --rdzv-id="${JOB_ID:-torchdr_cne}" \
    --max-restarts="${MAX_RESTARTS:-3}" \
    -- "$(dirname "$0")/fit.py" "$@"

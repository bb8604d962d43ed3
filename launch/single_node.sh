#!/usr/bin/env bash
# One machine: launch/single_node.sh DATA --output FILE [options of torchdr-cne fit]
# NPROC, MAX_RESTARTS and OMP_NUM_THREADS are explained in README.md.
set -euo pipefail

if (($# == 0)); then
    echo "usage: [NPROC=4] $0 DATA --output FILE [options of torchdr-cne fit]" >&2
    exit 2
fi
gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)
NPROC=${NPROC:-$((gpus > 0 ? gpus : 1))}
# Each process gets its part of the cores; torchrun would leave it one.
cores=$(($(nproc) / NPROC))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > 0 ? cores : 1))}

# Without the -- torchrun takes an option of the fit such as --s for a short form of one of its own.
exec torchrun --standalone --nproc_per_node="$NPROC" --max-restarts="${MAX_RESTARTS:-1}" \
    -- "$(dirname "$0")/fit.py" "$@"

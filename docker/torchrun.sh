#!/bin/sh
# A run on hosts without a scheduler: the same command on each, which must share the folder of runs.
#   sh docker/torchrun.sh FIRST_HOST HOSTS PROCESSES CONFIG [OVERRIDES...]
# Whatever ends it, the same command goes on from the newest checkpoint.
set -eu
if [ "$#" -lt 4 ]; then
    echo "usage: $0 FIRST_HOST HOSTS PROCESSES CONFIG [OVERRIDES...]" >&2
    exit 2
fi
first=$1 hosts=$2 processes=$3
shift 3
exec recsys together --nnodes "$hosts" --nproc-per-node "$processes" \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "recsys-$hosts-$processes" \
    run "$@" --resume

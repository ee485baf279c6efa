#!/usr/bin/env bash
# Run a command on several ranks of this machine under torchrun.
#   launch/torchrun.sh RANKS COMMAND ...        e.g.  launch/torchrun.sh 2 hpcfed train digits
# OMP_NUM_THREADS: threads a rank, 1 unless you set it.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
ranks=$1
shift
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# --standalone picks a free port, so that two jobs on one machine do not meet. --local-addr: torchrun would look its
# host's name up instead, and wait for minutes where that has no address.
exec torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node "$ranks" --no-python "$@"

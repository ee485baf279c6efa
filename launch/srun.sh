#!/usr/bin/env bash
# Run a command on several ranks under Slurm: inside a job (sbatch, salloc), or from the login node.
#   launch/srun.sh NODES RANKS_A_NODE COMMAND ...     e.g.  launch/srun.sh 2 4 hpcfed train digits
# MPI: what srun speaks to the ranks, none (gloo or NCCL) unless you set it; pmix for Open MPI, pmi2 for MPICH and Intel.
# SRUN_FLAGS: more flags, e.g. "--partition gpu --time 10".  OMP_NUM_THREADS: cores and threads a rank, 1 unless you set it.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
fi
nodes=$1 ranks=$2
shift 2
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# --ntasks-per-node: srun -N2 -n4 alone may place 3 + 1.  --cpus-per-task: srun does not take it from the job.
# shellcheck disable=SC2086  # several flags in one variable
exec srun --nodes "$nodes" --ntasks $((nodes * ranks)) --ntasks-per-node "$ranks" \
    --cpus-per-task "$OMP_NUM_THREADS" --kill-on-bad-exit=1 --mpi="${MPI:-none}" ${SRUN_FLAGS:-} "$@"

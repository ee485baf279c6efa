#!/usr/bin/env bash
# Run a command on several ranks under mpirun (Open MPI, MPICH or Intel MPI).
#   launch/mpirun.sh RANKS COMMAND ...          e.g.  launch/mpirun.sh 4 hpcfed train digits
# MPIRUN: the mpirun to use, the first on PATH unless you set it.  MPIRUN_FLAGS: more flags, e.g. "--hostfile hosts".
# OMP_NUM_THREADS: threads a rank, 1 unless you set it.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
fi
ranks=$1
shift
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Open MPI 5 and 4: more ranks than cores are fine; a rank that waits for votes leaves its core to the others.
export PRTE_MCA_rmaps_default_mapping_policy="${PRTE_MCA_rmaps_default_mapping_policy:-:oversubscribe}"
export OMPI_MCA_rmaps_base_oversubscribe="${OMPI_MCA_rmaps_base_oversubscribe:-1}"
export OMPI_MCA_mpi_yield_when_idle="${OMPI_MCA_mpi_yield_when_idle:-1}"
if [ "$(id -u)" = 0 ]; then # in a container
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# shellcheck disable=SC2086  # several flags in one variable
exec "${MPIRUN:-mpirun}" ${MPIRUN_FLAGS:-} -n "$ranks" "$@"

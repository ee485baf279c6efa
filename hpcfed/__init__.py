"""hpcfed: federated zeroth-order fine-tuning at one bit a round, under torchrun, mpirun, srun or alone."""

import os

__version__ = "0.1.0"

# torch's OpenMP threads would otherwise spin after every operation, on the cores where directions are drawn next (and
# where other ranks of the node compute). It must be said before torch is imported; a user's own setting wins.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

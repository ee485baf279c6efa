"""hpcfed: federated zeroth-order fine-tuning at one bit a round, under torchrun, mpirun, srun or alone."""

__version__ = "0.1.0"

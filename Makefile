# make demo: the main job on a fresh machine.  make test: everything CI runs.  All set up .venv first, once.
# make unit, ranks, mpi, slurm, gpu: one folder of the tests.
PYTHON ?= python3
TORCH ?= torch
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.NOTPARALLEL:
.PHONY: demo test unit ranks mpi slurm gpu check setup clean

demo: .venv/ready
	torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node 2 -m hpcfed train digits --out runs/demo --force

test: .venv/ready check unit ranks mpi slurm gpu

unit: .venv/ready
	python -m pytest tests/unit --numprocesses 2 --dist worksteal

ranks mpi slurm gpu: .venv/ready
	python -m pytest tests/$@

check: .venv/ready
	ruff check .
	ruff format --check .
	mypy

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .[test]
	touch $@

clean:
	rm -rf .venv runs build

# make         install, run the default study and say where its report is
# make test    install and run the tests
# make test-faults  the slow tests: kill -9 at many moments, real limits (a quarter of an hour)
# make test-cluster  the smoke study as jobs of a real Slurm, which it starts on this machine
# make coverage  what the tests of the losses run of the losses' code (fails below 99 % of lines)
# make lint    formatting and static checks
# make clean   remove what runs have written (results/reference stays)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: all install test test-faults test-cluster coverage lint clean

all: install
	$(BIN)/snakemake --cores all

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into $(VENV): a minute or two"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-faults: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults

test-cluster: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[slurm]'
	$(BIN)/python -m tests.cluster.slurm

coverage: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov=losses tests/losses

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	for study in config/*.yaml; do $(BIN)/snakemake --lint --configfile $$study || exit 1; done

clean:
	find results -mindepth 1 -maxdepth 1 -type d ! -name reference -exec rm -r {} +
	rm -rf resources .snakemake

# `make demo` and `make test` do all set-up themselves, the virtual environment included.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STUDY ?= digits_pareto
SEED ?= 0

.PHONY: demo test test-all test-cluster lint soak soak-long bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed  ## the main job on the embedded data set: a Pareto front in a minute or two after set-up
	$(BIN)/python -m search.run --study $(STUDY)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

test-all: $(VENV)/.installed-dev  ## also what waits for clocks, servers and whole trainings
	$(BIN)/python -m pytest -m 'not cluster'

test-cluster: $(VENV)/.installed-dev  ## studies on a Ray cluster of three raylets on this machine; installs Ray (70 MB)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest -n 0 -m cluster

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: $(VENV)/.installed-dev  ## a scripted study through one fault of each kind: a minute
	$(BIN)/python -m tests.search.soak --seed $(SEED)

soak-long: $(VENV)/.installed-dev  ## 200 random kills: some minutes
	$(BIN)/python -m tests.search.soak --seed $(SEED) --kills 200

bench: $(VENV)/.installed  ## speed of the training loop; minutes on an idle machine
	$(BIN)/python -m benchmarks.training

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "frontrunner needs Python 3.11 or later: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

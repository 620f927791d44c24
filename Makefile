# Two commands are enough: `make demo` and `make test`. Both set up .venv by themselves; Python 3.11 or newer is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
INSTALLED := $(VENV)/.installed
# Test processes, with one thread each: two torch processes with default threads slow each other down tenfold.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-lowest test-wheel lint format docs clean

help:  ## Show what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@# Compiled on all cores, where pip takes one; what is written for a later Python is left out.
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true
	touch $@

install: $(INSTALLED)  ## Create .venv and install the tested versions into it

demo: $(INSTALLED)  ## Watch a small model learn, forget and be judged: offline, on a CPU, in minutes
	$(BIN)/unlearn-hf demo --overwrite

test: lint  ## Check style and types, and run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

test-slow: $(INSTALLED)  ## Run the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m slow --timeout 1800

test-lowest: $(LOWEST)/.installed  ## Run the tests with the lowest versions that pyproject.toml promises
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n $(WORKERS)

# UV_TORCH_BACKEND=cpu spares the gigabytes of CUDA that the torch of the package index brings along.
$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[dev]'
	touch $@

test-wheel:  ## Build the wheel, install it into an empty environment and run it from another folder
	PYTHON=$(PYTHON) scripts/check_wheel.sh

lint: $(INSTALLED)  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## Repair style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## Build the documentation as a site in build/site, with its links checked
	$(BIN)/mkdocs build --strict

clean:  ## Remove the environment and all caches (run folders stay)
	rm -rf $(VENV) $(LOWEST) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

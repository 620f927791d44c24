# Two commands are enough: `make demo` and `make test`. Both set up .venv by themselves; Python 3.11 or newer is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Test processes, with one thread each: two torch processes with default threads slow each other down tenfold.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-wheel lint format clean

help:  ## Show what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(INSTALLED)  ## Create .venv and install the tested versions into it

demo: $(INSTALLED)  ## Watch a small model learn, forget and be judged: offline, on a CPU, in minutes
	$(BIN)/unlearn-hf demo --overwrite

test: lint  ## Check style and types, and run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

test-slow: $(INSTALLED)  ## Run the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m slow --timeout 1800

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

clean:  ## Remove the environment and all caches (run folders stay)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

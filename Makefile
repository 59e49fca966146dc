# Every target makes the virtual environment it needs. PYTHON chooses the interpreter (3.11 to 3.14).
PYTHON ?= python3
MINUTES ?= 10
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo test mutants chaos soak bench lint clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' Makefile

venv: $(INSTALLED)  ## make .venv and install the project with its pinned dependencies

# pip's own output is shown only when it fails.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 15) or sys.exit( \
	  f"riverwatch needs Python 3.11 to 3.14, $(PYTHON) is {v.major}.{v.minor}: make PYTHON=python3.12 ...")'
	@echo "installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[dev,report]'
	@touch $@

demo: $(INSTALLED)  ## replay a small card stream and print its alerts; no server needed
	@$(BIN)/riverwatch demo

test: $(INSTALLED)  ## run all tests in JOBS=2 processes, real Kafka and Redis included (needs Java 17 and Maven)
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

mutants: $(INSTALLED)  ## break one protection at a time; the simulation must notice each
	@$(BIN)/python -m tests.simulation.mutants

chaos: $(INSTALLED)  ## faults on three Kafka nodes and a store; count what is lost, doubled or wrong
	@$(BIN)/python -m tests.chaos

soak: $(INSTALLED)  ## MINUTES=10 of steady load; draw memory, descriptors, lag, the store's bytes
	@$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES)

bench: $(INSTALLED)  ## measure, print a table, write build/bench.json
	@$(BIN)/python -m benchmarks

lint: $(INSTALLED)  ## check format, rules and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

clean:  ## remove .venv, caches and build output
	@rm -rf $(VENV) build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

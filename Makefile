# Every target sets up its needs; a second call does no work twice.
# PYTHON chooses the interpreter of a new .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt

# One thread a process: the runner and pytest-xdist fill the cores with processes.
export OMP_NUM_THREADS := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help bench official test test-slow lint format docs leaderboard-check constraints clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

bench: .venv/.installed ## train every router on the embedded corpus into runs/ and render the board
	$(BIN)/python -m bench run --routers all --seeds 3

official: .venv/.installed ## the committed board: results/ and leaderboard.md
	$(BIN)/python -m bench run --suite quick --seeds 6 --official

test: .venv/.installed ## the tests, but for the slow ones
	$(BIN)/python -m pytest -n 2 --durations=30

test-slow: .venv/.installed-clusters ## the slow tests, those of Ray and Slurm among them
	$(BIN)/python -m pytest -n 2 --durations=30 -m slow

lint: .venv/.installed-dev ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/.installed-dev ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.installed ## write the generated pages of docs/
	$(BIN)/python -m bench.commands.reference suites > docs/suites.md
	$(BIN)/python -m bench.commands.reference routers > docs/routers.md
	$(BIN)/python -m bench.flops.prices > docs/priced-operations.md

leaderboard-check: .venv/.installed ## fail if leaderboard.md or a study's page is out of date
	$(BIN)/python -m bench leaderboard --check --official

constraints: .venv/.installed-dev ## pin what is installed now, and the executors of clusters
	$(INSTALL) --editable '.[corpus,test,dev,ray,slurm]'
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean: ## remove the environment and all caches, but no runs
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build *.egg-info

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing the packages of constraints.txt into .venv, once; this takes minutes."
	$(INSTALL) --editable '.[corpus,test]'
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(INSTALL) --editable '.[corpus,test,dev]'
	@touch $@

.venv/.installed-clusters: .venv/.installed
	$(INSTALL) --editable '.[corpus,test,ray,slurm]'
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; $(PYTHON) is older." \
		"Give another: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv

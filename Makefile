# Two commands matter: `make reproduce` and `make test`. Both build .venv first, from requirements.lock.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# The first interpreter on PATH that the lock was made for, else python3 (REQUIRE_PYTHON says why not).
PYTHON ?= $(shell for p in python3 python3.11 python3.12; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && { echo "$$p"; exit; }; \
	done; echo python3)
VENV ?= .venv
# Handed on to snakemake or pytest: make reproduce ARGS='--dry-run', make test ARGS='tests/score/test_score.py'
ARGS ?=

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --no-input
# What rules and tests start by name (snakemake, faithdiff, dvc) is this environment's.
WITH_VENV := PATH="$(abspath $(VENV))/bin:$$PATH"
# OpenMP threads that spin while they wait make a step several times slower beside another process.
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
# A process for each core, up to a memory of some 8 GB; the tests of a file share what they build.
IN_PARALLEL := --numprocesses=logical --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

.PHONY: help .venv install reproduce test test-slow lint bench bench-peers gpu-check pull prior clean

help: ## List the targets
	@sed -n 's/^\([a-z.-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

define REQUIRE_PYTHON
command -v "$(PYTHON)" >/dev/null || { echo "make: no '$(PYTHON)' on this machine: install Python 3.11 or 3.12," \
	"or name one: make PYTHON=/path/to/python3.12 ..." >&2; exit 2; }; \
"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	|| { echo "make: '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1), but the pinned packages need Python 3.11 or 3.12:" \
	"name one: make PYTHON=/path/to/python3.12 ..." >&2; exit 2; }; \
"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null \
	|| { echo "make: '$(PYTHON)' has no venv or pip module: install them (Debian, Ubuntu: the package python3-venv)," \
	"or name another Python: make PYTHON=/path/to/python3.12 ..." >&2; exit 2; }
endef

.venv: $(VENV)/stamp ## Build the environment (the other targets do it when it is missing or out of date)

$(VENV)/stamp: requirements.lock pyproject.toml
	@if ! "$(VENV)/bin/python" -c 'import pip' 2>/dev/null; then \
		$(REQUIRE_PYTHON); echo "== 0/3 $(VENV), by $(PYTHON)"; "$(PYTHON)" -m venv --clear "$(VENV)"; fi
	@$(MAKE) --no-print-directory install PIP='$(PIP)'
	@touch "$@"

# Also the last step of a conda environment: make install PIP='python -m pip'
install: ## Install the locked packages and the suite with $(PIP)
	@echo "== 1/3 setuptools and wheel, which build the packages that have no wheel"
	@$(PIP) install --constraint requirements.lock setuptools wheel
	@echo "== 2/3 torch, with what this machine's build of it needs"
	@$(PIP) install --constraint requirements.lock torch
	@echo "== 3/3 everything else, exactly as locked"
	@$(PIP) install --no-deps --no-build-isolation --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .

reproduce: .venv ## Run the miniature of the study: snakemake --cores all $(ARGS)
	@$(WITH_VENV) snakemake --cores all $(ARGS)

test: .venv ## Run the tests, without the slow ones
	@$(WITH_VENV) $(ONE_THREAD) pytest --durations=25 $(IN_PARALLEL) $(ARGS)

test-slow: .venv ## Run the tests marked slow
	@$(WITH_VENV) $(ONE_THREAD) pytest -m slow --durations=25 $(IN_PARALLEL) $(ARGS)

lint: .venv ## Check style and types
	@$(WITH_VENV) ruff check .
	@$(WITH_VENV) ruff format --check .
	@$(WITH_VENV) mypy
	@$(WITH_VENV) snakefmt --check Snakefile workflow

bench: .venv ## Measure images and steps per second of every stage, as a table
	@$(WITH_VENV) $(ONE_THREAD) faithdiff bench $(ARGS)

# torchmetrics: pip install .[peers]; asv: ARGS='--asv COMMAND', from an environment of its own.
bench-peers: .venv ## Time the suite beside other packages, and its hot loops beside other ways
	@$(WITH_VENV) $(ONE_THREAD) python -m faithdiff.planning.peers --page docs/benchmark.md $(ARGS)

gpu-check: ## Measure parity, speed and memory on this GPU in ten minutes (SMALL=1: rehearse on the CPU)
	@PYTHONPATH="$(CURDIR)" $(if $(wildcard $(VENV)/stamp),"$(VENV)/bin/python",python3) \
		-m faithdiff.planning.gpu_check $(if $(SMALL),--small) $(ARGS)

pull: .venv ## Fetch the data of the committed results from a DVC remote
	@$(WITH_VENV) faithdiff pull $(ARGS)

prior: .venv ## Train the shipped prior again and write it to prior/mini (about two hours)
	@$(WITH_VENV) faithdiff fetch --dataset prior
	@$(WITH_VENV) $(ONE_THREAD) faithdiff prepare --dataset prior
	@$(WITH_VENV) $(ONE_THREAD) faithdiff train-prior
	@$(WITH_VENV) faithdiff ship-prior --target prior/mini

clean: ## Delete the environment and caches; data, checkpoints and results stay
	rm -rf "$(VENV)" .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -path ./.git -prune -o -name __pycache__ -type d -exec rm -rf {} +

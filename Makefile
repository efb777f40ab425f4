# make demo [TASK=lift] [COMPARE=fm]   collect, prepare, train, evaluate; a table and outputs/demo/TASK/summary.json
#           [OBSERVATIONS=images]      from cameras, beside a blind twin
# make test                            the gate: style, types, the site, the whole test suite
# make lint                            style and types
# make docs                            the site, in outputs/site
#
# Each creates .venv from requirements.lock first. PYTHON chooses its interpreter (3.11 or 3.12), TORCH_INDEX adds a
# package index for another build of torch, for example https://download.pytorch.org/whl/cpu.

PYTHON ?= $(shell for python in python3.11 python3.12 python3; do command -v $$python && break; done)
TASK ?= lift
COMPARE ?= none
OBSERVATIONS ?= state
JOBS ?= 2

BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check

.PHONY: demo test lint docs
.DELETE_ON_ERROR:

demo: .venv/installed
	@$(BIN)/lfm demo task=$(TASK) compare=$(COMPARE) observations=$(OBSERVATIONS)

test: lint docs
	@$(BIN)/python -m pytest -n $(JOBS)

lint: .venv/installed
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

docs: .venv/installed
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' || \
		{ echo "error: expected Python 3.11 or 3.12, found '$(PYTHON)'; choose one: make PYTHON=python3.11 ..."; exit 1; }
	@echo "installing requirements.lock into .venv (a few minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c requirements.lock torch
	@$(PIP) --no-deps -r requirements.lock
	@$(PIP) --no-deps -e .
	@touch $@

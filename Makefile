# Two commands for a fresh machine: `make demo` and `make test`. Both first install everything with
# plain pip into .venv, at the exact versions of constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# One thread a core. Without it each process of the demo would ask for all cores at once, or,
# under `accelerate launch`, settle for one.
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)
# Python compiles what is imported when it is imported: the install took 82 s instead of 148 s so,
# and the first import 9 s more. Containers often forbid to keep the result; here it must be kept.
PIP_INSTALL := $(BIN)/pip install --quiet --no-compile -c constraints.txt
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo serve test lint types pytest docs format gpu test-cluster
.DEFAULT_GOAL := help

help: ## say what each command does
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## make .venv with everything in it

demo: $(STAMP) ## pretrain, evaluate and report on a synthetic world, or on EVENTS=my.parquet ARGS='key=value …'
	$(BIN)/python -m benchmarks.demo $(if $(EVENTS),'events=$(EVENTS)') $(ARGS)

serve: export OMP_NUM_THREADS := 1
serve: $(STAMP) ## answer on http://localhost:8000 with the model of `make demo`; ARGS='port=… workers=…'
	@test -d runs/demo || { echo 'error: there is no runs/demo; make demo trains it' >&2; exit 1; }
	@test -e indexes/demo/CURRENT || $(BIN)/python -m serving.build_index checkpoint=runs/demo corpus=corpora/demo out=indexes/demo
	$(BIN)/python -m serving checkpoint=runs/demo index=indexes/demo $(ARGS)

# pyright works on one core for half a minute: beside the tests the other one is not idle meanwhile.
test: lint ## all that must pass before a commit: the three below
	@$(MAKE) --no-print-directory -j2 types pytest

lint: $(STAMP) ## ruff and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: $(STAMP) ## pyright
	$(BIN)/pyright

# Tests are many small operations: processes of one thread, one more than cores, since a quarter of the
# time of each is waiting for processes that it started. A file stays in one process, whose fixtures
# its tests share; in their order, else the longest file of one test comes last.
WORKERS := $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n + 1 : 4)))
pytest: export OMP_NUM_THREADS := 1
pytest: $(STAMP) ## the tests
	$(BIN)/python -m pytest -m 'not cluster' -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-cluster: export OMP_NUM_THREADS := 1
test-cluster: $(STAMP) ## two hosts (root and `ip`), Spark (Java 17), Ray, stores, Milvus, kills
	$(PIP_INSTALL) -e '.[serve,bench,dev,spark,ray,cloud]'
	$(BIN)/python -m pytest tests/cluster tests/serving/milvus

docs: $(STAMP) ## build the documentation into build/site; pytest builds it too
	$(BIN)/python -m benchmarks.report.docs
	$(BIN)/python -m mkdocs build --strict

# Not in .venv: a CUDA image has its own torch. What else it lacks comes from a folder of wheels,
# gathered before with `pip download -d wheels -c constraints.txt PACKAGE ...`, since no network is
# needed here.
GPU_PACKAGES := .gpu-packages
gpu: export PYTHONPATH := $(CURDIR)/$(GPU_PACKAGES)
gpu: ## what only a GPU shows, in 8 minutes: PYTHON=python3 of a CUDA image, WHEELS=folder of wheels
	$(if $(WHEELS),$(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target $(GPU_PACKAGES) $(WHEELS)/*.whl)
	$(PYTHON) -m benchmarks.speed gpu

format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and alone: if its index is down or has no wheel for this Python, the error says so.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("error: CLUE needs Python 3.11 or newer, $(PYTHON) is %d.%d; try make PYTHON=python3.12" % v[:2])'
	@echo "installing into .venv, about two minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP_INSTALL) torch==2.13.0
	$(PIP_INSTALL) -e '.[serve,bench,dev]'
	@touch $@

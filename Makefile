# Everything a user types. `make demo` and `make test` install what they need into .venv first.
SHELL := /bin/bash
PYTHON ?= python3
METHOD ?= irnet
PRESET ?= pipelines/presets/shapes.yaml
JOBS ?= 1
CASES ?= 1000
SEED ?= 0
BIN := $(CURDIR)/.venv/bin
DETECTRON2 := git+https://github.com/facebookresearch/detectron2.git@02b5c4e295e990042a714712c21dc79b731e8833
export PATH := $(BIN):$(PATH)
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: install demo test test-all lint fuzz bench ablation photos rehearse detectron2 clean

install: .venv/installed

# Isolated builds cannot serve pydensecrf (its sources need Cython < 3 and are stale) nor Detectron2 (it imports torch).
.venv/installed: setup.cfg pyproject.toml constraints.txt
	@echo "installing into .venv: 3 to 6 minutes and 6 GB (PyTorch brings its CUDA libraries)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "error: Python 3.10 to 3.12 is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); use make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt "cython<3" "setuptools<81" wheel numpy
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	CYTHON_FORCE_REGEN=1 $(BIN)/pip install --quiet --no-build-isolation -c constraints.txt pydensecrf
	@$(MAKE) --no-print-directory detectron2
	@touch $@

# Optional: where its host cannot be reached, everything works with detector.engine: torchvision.
detectron2:
	@if $(BIN)/python -c 'import detectron2' 2>/dev/null; then echo "Detectron2 is installed"; \
	elif GIT_TERMINAL_PROMPT=0 timeout 10 git ls-remote --quiet https://github.com/facebookresearch/detectron2.git HEAD >/dev/null 2>&1; then \
	  echo "building Detectron2: about 3 minutes"; \
	  $(BIN)/pip install --quiet --no-build-isolation -c constraints.txt "$(DETECTRON2)" || \
	    echo "Detectron2 could not be built; detector.engine: torchvision works without it"; \
	else echo "Detectron2's Git host cannot be reached; detector.engine: torchvision works without it"; fi

# The run lives in this clone: params.yaml is a copy of the preset unless there is one already.
demo: install
	@test -f params.yaml || cp $(PRESET) params.yaml
	@echo "running dvc repro on the embedded data set: about 9 minutes on two cores"
	@$(BIN)/python -m pipelines.mend
	$(BIN)/dvc repro
	@$(BIN)/python -m stages.evaluation.table
	@echo "report: metrics/report/index.html"

test: install
	$(BIN)/python -m pytest -m "not slow"
	@$(MAKE) --no-print-directory lint

test-all: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

# Each case in a process with limits; CASE=number runs one of them again and keeps its folder.
fuzz: install
	@echo "about 4 cases a second on an idle core, tests/fuzz/soak.py says what they are"
	$(BIN)/python -m tests.fuzz.soak --cases $(CASES) --seed $(SEED) $(if $(CASE),--case $(CASE)) \
	  $(if $(KINDS),--kinds "$(KINDS)")

bench: install
	$(BIN)/python -m benchmarks.run

ablation: install
	$(BIN)/python -m pipelines.ablation $(METHOD) --jobs $(JOBS) \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(ROWS),--rows $(ROWS))

photos: install
	@test -n "$(ROOT)" || { echo "error: make photos METHOD=$(METHOD) ROOT=folder [WEIGHTS=file]"; exit 1; }
	$(BIN)/python -m pipelines.photos $(METHOD) "$(ROOT)" $(if $(WEIGHTS),--weights "$(WEIGHTS)") \
	  $(if $(ROWS),--rows $(ROWS))

# PRESET=voc2012, the name of a preset or a file; ROOT=folder: the first images of the real data set.
rehearse: install
	$(BIN)/python -m pipelines.rehearse "$(PRESET)" $(METHOD) $(if $(ROOT),--root "$(ROOT)") \
	  $(if $(BATCH),--batch $(BATCH)) $(if $(MEMORY),--memory $(MEMORY)) $(if $(OFFLINE),--offline)

clean:
	rm -rf .work

# Everything runs in a virtual environment of its own; `make run` is all a first user
# needs. Extra arguments: make run ARGS="-c token-epsilon=6.0".
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

SOURCES := pyproject.toml README.md server_app.py client_app.py \
	$(shell find fedcot strategies fedcot_weights -type f -not -name '*.pyc' 2>/dev/null)

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help install run test test-slow check format bench results-main results-privacy results-words \
	results-community results-social results-memorization results-modes results-levels results-recorded results-hardware bench-teacher mutants \
	pretrain clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## virtual environment with fedcot and the tools for tests

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Dependencies change with pyproject.toml only.
$(VENV)/.dependencies: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet "hatchling>=1.25" ".[dev]"
	@touch $@

# Not editable: Flower's simulation must not see a checkout that changes under it.
$(VENV)/.installed: $(VENV)/.dependencies $(SOURCES)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --force-reinstall .
	@touch $@

run: install ## the main job: FedCoT on 5 simulated clients through `flwr run`
	$(BIN)/fedcot run $(ARGS)

test: install ## all tests but the slow ones
	$(BIN)/python -m pytest -m "not slow" -n logical --maxprocesses 8 --dist loadfile $(ARGS)

test-slow: install ## the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

check: install ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## what is timed, and against what
	$(BIN)/python -P benchmarks/bench.py $(ARGS)

results-community: install ## communities: size, diversity, granularity, coalitions -> results/community.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/community_runs.py $(ARGS)

results-social: install ## social learning with hidden rules -> results/social.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/social_runs.py $(ARGS)

results-memorization: install ## canaries, honest and leaked -> results/memorization.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/memorization_runs.py $(ARGS)

results-modes: install ## all three modes on one split -> results/modes.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mode_runs.py $(ARGS)

results-levels: install ## six levels of real rationales -> results/svamp-levels.json
	OMP_NUM_THREADS=1 $(BIN)/python -P benchmarks/granularity_runs.py $(ARGS)

bench-teacher: install ## prompts a second of a batched teacher, against one by one
	OMP_NUM_THREADS=1 $(BIN)/python -P benchmarks/teacher_throughput.py $(ARGS)

results-main: install ## three seeds of the main job with controls -> results/main-job.json
	$(BIN)/fedcot compare --config conf/results-main.toml --seeds 3 \
		--folder runs/results-main --output results/main-job.json $(ARGS)

results-privacy: install ## accuracy against prompt epsilon -> results/privacy-curve.json
	$(BIN)/python -P benchmarks/privacy_curve.py $(ARGS)

results-words: install ## what mechanisms keep of 4,000 English words -> results/english-words.json
	$(BIN)/python -P benchmarks/english_words.py $(ARGS)

results-recorded: install ## real questions with recorded rationales -> results/recorded.json
	$(BIN)/python -P benchmarks/recorded_runs.py $(ARGS)

results-hardware: install ## what larger models need -> results/hardware.json
	OMP_NUM_THREADS=1 $(BIN)/python -P benchmarks/hardware_table.py $(ARGS)

mutants: install ## break the privacy code in many ways; every break must be noticed
	$(BIN)/python -P benchmarks/mutants.py $(ARGS)

pretrain: install ## rebuild the built-in models from their seed, in build/weights
	$(BIN)/fedcot pretrain --output build/weights $(ARGS)

clean: ## remove the virtual environment and caches, keep runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build

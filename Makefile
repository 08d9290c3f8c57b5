# `make demo` and `make test` need Python 3.11 or newer and nothing else: they make the environment themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
DEMO_TRAIN := runs/demo-train

.PHONY: install demo demo-train check test lint types clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("mmeb needs Python 3.11 or newer: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/mmeb run --model demo --tasks all --data demo --output $(DEMO)
	$(BIN)/mmeb leaderboard build --demo --results $(DEMO) --output $(DEMO)

# The full workflow with a small Qwen2-VL from random weights: train, score before and after, build a table.
demo-train: install
	rm -rf $(DEMO_TRAIN)
	$(BIN)/mmeb train --recipe demo-vlm --data demo --output $(DEMO_TRAIN)/model
	$(BIN)/mmeb run --model demo-vlm --tasks all --data demo --output $(DEMO_TRAIN)/results/before
	$(BIN)/mmeb run --model $(DEMO_TRAIN)/model --tasks all --data demo --output $(DEMO_TRAIN)/results/after
	$(BIN)/mmeb leaderboard build --demo --results $(DEMO_TRAIN)/results --output $(DEMO_TRAIN)

# Without reusing results: the scores of an earlier run say nothing about this code.
check: install
	$(BIN)/mmeb run --model demo --tasks all --data demo --output $(DEMO) --fresh
	$(BIN)/mmeb check $(DEMO) --baseline leaderboard/demo-baseline.json

test: lint types check install
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

# `make demo` and `make test` set up everything themselves, in .venv. PYTHON=python3.12 picks another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHELL := /bin/bash

.PHONY: demo test lint clean
.DEFAULT_GOAL := demo

# The constraints pin torch itself, so pip never picks another build of it on the way.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed, $(PYTHON) is older" >&2; \
		  echo "hint: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/anomaly-ov inspect examples --out demo
	@echo
	@echo "Look at:"
	@echo "  demo/*.overlay.png    where each picture is suspicious"
	@echo "  demo/findings.jsonl   one record per picture ('anomaly-ov schema' explains the fields)"
	@echo "Your own pictures:      $(BIN)/anomaly-ov inspect FOLDER --out RESULTS"

test: $(STAMP)
	@$(BIN)/python -m pytest

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

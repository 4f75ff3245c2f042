# `make demo` installs what inspecting and serving need into .venv-demo, or uses a complete .venv; `make setup`, `make
# test` and `make lint` install everything into .venv, `make docs` its tools into .venv-docs. PYTHON=python3.12 picks
# another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_VENV := $(if $(wildcard $(STAMP)),$(VENV),.venv-demo)
DEMO_BIN := $(DEMO_VENV)/bin
SHELL := /bin/bash

.PHONY: demo setup test lint docs results clean
.DEFAULT_GOAL := demo

# $(call install,VENV,EXTRA,WHAT): pip's own lines are the progress. The constraints pin torch itself, so pip never
# picks another build of it on the way.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "error: Python 3.11 or newer is needed, $(PYTHON) is older" >&2; \
	  echo "hint: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
@echo "installing $(3) into $(1)" >&2
@SECONDS=0; test -x $(1)/bin/python || $(PYTHON) -m venv $(1) && \
	$(1)/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$(2)]' >&2 && \
	echo "installed into $(1) in $$SECONDS s" >&2
@touch $@
endef

$(STAMP): pyproject.toml constraints.txt
	$(call install,$(VENV),dev,everything for development (1 GB and more))

.venv-demo/.installed: pyproject.toml constraints.txt
	$(call install,.venv-demo,server,what the demonstration needs (400 MB))

.venv-docs/.installed: pyproject.toml constraints.txt
	$(call install,.venv-docs,docs,what the documentation needs (500 MB))

setup: $(STAMP)

# Inspects the examples on the command line, then serves the page with the same pictures until Ctrl-C.
PORT ?= 8765

demo: $(DEMO_VENV)/.installed
	@rm -f demo/findings.jsonl demo/*.overlay.png
	@TIMEFORMAT='inspected in %1R s'; time $(DEMO_BIN)/anomaly-ov inspect examples --out demo
	@compgen -G 'demo/*.overlay.png' > /dev/null || { echo "error: no overlay was written to demo/" >&2; exit 1; }
	@echo
	@echo "Written:  demo/*.overlay.png (where each picture is suspicious), demo/findings.jsonl (one record per picture)"
	@echo "Now the page, with the same pictures; drop your own onto it:"
	@$(DEMO_BIN)/anomaly-ov serve examples --data demo/service --port $(PORT)

# On every core, at most four; each file in one process, because what its tests share is dear.
test: $(STAMP)
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

# The site in build/site; any warning is an error.
docs: .venv-docs/.installed
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# Every figure of README.md and docs/benchmarks.md. DATA holds train/ and eval/ with the sets that these pages name;
# single lines run alone.
DATA ?= data
OUT ?= runs/results
EVAL := $(DATA)/eval/elpv $(DATA)/eval/brainmri $(DATA)/eval/mtd $(DATA)/eval/mvtec3d_rgb/tire
MORE := $(DATA)/eval/headct $(DATA)/eval/br35h
RUN_PYTHON := $(BIN)/python

results: $(STAMP)
	@test -d $(DATA)/eval || { echo "error: no folder $(DATA)/eval" >&2; echo "hint: make results DATA=FOLDER" >&2; exit 2; }
	$(RUN_PYTHON) benchmarks/detector.py $(EVAL) $(MORE) --measured 400 --without own_patches --without mirror --without expert --again
	$(RUN_PYTHON) benchmarks/calibration.py --data $(DATA)/eval/elpv --data $(DATA)/eval/mtd/magnetic_tile --rows $(OUT)/calibration
	$(BIN)/anomaly-ov eval ablation --recipe recipes/ablation-tiny.yaml --data $(DATA) $(EVAL:%=--test %) --out $(OUT)/ablation --summary results/ablation-tiny.json
	$(RUN_PYTHON) benchmarks/words.py $(EVAL) $(MORE)
	$(RUN_PYTHON) benchmarks/eval_overhead.py $(DATA)/eval/elpv
	for script in pixel_metrics expert inspect_speed cold_start cache memory serve_load serve_kill serve_page; do $(RUN_PYTHON) benchmarks/$$script.py || exit; done
	$(RUN_PYTHON) benchmarks/readme_tables.py

clean:
	rm -rf $(VENV) .venv-demo .venv-docs build demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

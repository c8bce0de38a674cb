PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The tested versions; the ranges a user may have are in pyproject.toml.
CONSTRAINTS := requirements/constraints.txt

.PHONY: demo test clean bench-prepare

demo: $(VENV)/.installed
	$(BIN)/peterrec run configs/demo.yaml --out runs/demo

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --cov --cov-report=term

bench-prepare: $(VENV)/.installed
	$(BIN)/python benchmarks/prepare.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "peterrec needs Python 3.11 or later: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# torch first and by exact version: some package indexes then give the small CPU build.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet "$$(grep -E '^torch==' $(CONSTRAINTS))"
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs

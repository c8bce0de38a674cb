PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The tested versions; the ranges a user may have are in pyproject.toml.
CONSTRAINTS := requirements/constraints.txt

.PHONY: demo test lint tests test-full test-lowest test-newest test-paper soak docs docs-serve notebooks dist clean bench

demo: $(VENV)/.installed
	$(BIN)/peterrec run configs/demo.yaml --out runs/demo

# Without compiled files each of many processes would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --jobs 2 lint tests

lint:
	$(BIN)/mypy
	$(BIN)/lint-imports

tests:
	$(BIN)/pytest -n 2 --dist loadscope -m "not slow" --cov --cov-report=term

# Slow tests too, and every combination of parameters, where `make test` takes every pair of values: most of an hour.
test-full: $(VENV)/.installed-dev
	PETERREC_FULL=1 $(BIN)/pytest -n 2 --dist loadgroup

# The ends of the ranges in pyproject.toml, each in an environment of its own; on Linux torch comes with CUDA (5 GB).
test-lowest: RESOLUTION := lowest-direct
test-newest: RESOLUTION := highest
test-lowest test-newest: | $(VENV)/bin/python
	$(BIN)/python -m venv --clear .venv-$@
	.venv-$@/bin/python -m pip install --quiet uv
	.venv-$@/bin/uv pip install --quiet --python .venv-$@/bin/python --resolution $(RESOLUTION) --editable ".[dev]"
	.venv-$@/bin/pytest -n 2

# Breaks the code of each statement of docs/paper.md, in one way at a time: a test that the page names must fail.
test-paper: $(VENV)/.installed-dev
	$(BIN)/python tests/paper_mutations.py

# The documentation site, in site/ (`make test` builds it, too); a warning is an error. `docs-serve` shows it while you write.
docs docs-serve: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.installed-docs
	$(BIN)/mkdocs serve

# Notebooks with their outputs, in notebooks/executed/, which the site then shows: some minutes.
notebooks: $(VENV)/.installed-dev
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python docs/run_notebooks.py

# Wheel and sdist, in dist/, checked: what they say of themselves, and what is in them.
dist: $(VENV)/.installed-dist
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python .ci/check_distribution.py dist

# Attacks the service for twenty minutes: requests, operations and faults in any order, with SQLite and with Redis.
soak: $(VENV)/.installed-dev
	PETERREC_SOAK_SECONDS=600 $(BIN)/pytest -s tests/serving/soak

# The tables of docs/performance.md: more than an hour, on a machine that does nothing else. `many_tasks.py` needs what
# `peterrec fetch ml-1m` gets, and is skipped without it.
bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/peers/install.py --only recbole
	$(BIN)/python benchmarks/speed.py --scaling
	$(BIN)/python benchmarks/paths.py
	$(BIN)/python benchmarks/waiting.py
	$(BIN)/python benchmarks/compiled_start.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/prepare.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/answer_files.py
	$(BIN)/python benchmarks/large_table.py
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/many_tasks.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/serve_load.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "peterrec needs Python 3.11 or later: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# torch first and by exact version: some package indexes then give the small CPU build.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet "$$(grep -E '^torch==' $(CONSTRAINTS))"
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[serve]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[dev,bench]"
	touch $@

# Reads the sources and imports nothing of them: neither torch nor peterrec need be installed.
$(VENV)/.installed-docs: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) \
	  $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	touch $@

$(VENV)/.installed-dist: $(CONSTRAINTS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) build twine
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[bench]"
	touch $@

clean:
	rm -rf $(VENV) runs site dist notebooks/executed

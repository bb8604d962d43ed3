# `make demo` and `make test` work on a fresh machine with Python >= 3.11; everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint types doctest wheel clean

demo: $(READY)
	$(BIN)/torchdr-cne demo --output demo

test: $(READY)
	$(BIN)/python -m pytest -q tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

doctest: $(READY)
	$(BIN)/python -m pytest -q --doctest-modules torchdr_cne
	$(BIN)/python -m pytest -q --doctest-glob='*.md' README.md docs

wheel: $(READY)
	$(BIN)/python -m build --wheel --outdir dist .

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, %s is %d.%d; set PYTHON=python3.11" % (sys.executable, *sys.version_info[:2]) if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache

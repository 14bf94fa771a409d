# `make demo` and `make test` need nothing but Python >= 3.10: the first one called builds .venv.
# Every path is relative, so that the clone may lie in a folder with a space in its name.

PYTHON ?= python3
# One thread per process: the tests' tensors are small, and the machine's cores are better spent on several processes.
TEST_THREADS ?= 1
TEST_WORKERS ?= auto
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -c constraints.txt

.PHONY: help demo test lint format type docs commit-checks clean
.DEFAULT_GOAL := help

help:
	@echo "make demo           meta-train, adapt to unseen tasks, write demo/"
	@echo "make test           the test suite (PYTEST_ARGS='-k name' to choose)"
	@echo "make lint           ruff and the import layers"
	@echo "make format         let ruff rewrite the code"
	@echo "make type           mypy"
	@echo "make docs           build the documentation, warnings as errors"
	@echo "make commit-checks  format, lint, type"
	@echo "make clean          remove what the other targets made, .venv included"

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { echo "'$(PYTHON)' was not found: install Python 3.10 or newer, or say which one: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "sb3_bomrl needs Python 3.10 or newer, and this one is %d.%d: make PYTHON=/path/to/python" % sys.version_info[:2])'
	"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# torch comes first: its pinned version then stands when the package's own, open requirement is resolved.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) -e ".[dev]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP_INSTALL) -e ".[docs]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py --output demo

test: $(VENV)/.installed
	OMP_NUM_THREADS=$(TEST_THREADS) MKL_NUM_THREADS=$(TEST_THREADS) OPENBLAS_NUM_THREADS=$(TEST_THREADS) MPLBACKEND=Agg \
		$(BIN)/python -m pytest -n $(TEST_WORKERS) --maxprocesses=4 --dist=worksteal $(PYTEST_ARGS)

lint: $(VENV)/.installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

type: $(VENV)/.installed
	$(BIN)/python -m mypy

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

commit-checks:
	$(MAKE) format
	$(MAKE) lint
	$(MAKE) type

clean:
	rm -rf $(VENV) build dist demo docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

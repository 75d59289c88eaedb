# Needs only make and Python 3.11, 3.12 or 3.13. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
DEMO ?= persona-demo
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-slow lint format docs bench clean

# The main job on the sample data, from events to recommendations.
demo: $(VENV)/.installed
	$(BIN)/persona demo $(DEMO)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto -m "not slow"

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n auto -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The references: commands from the help pages, metrics from their registry, fields of dialects and columns of tables
# from what the code reads and writes by.
docs: $(VENV)/.installed
	$(BIN)/python docs/generate_cli.py
	$(BIN)/python docs/generate_metrics.py
	$(BIN)/python docs/generate_dialects.py
	$(BIN)/python docs/generate_warehouse.py

# One benchmark: make bench ONLY=name. What each measures, and results: benchmarks/README.md
bench: $(VENV)/.test
	@for script in benchmarks/$(or $(ONLY),*).py; do \
	  grep -q '__main__' "$$script" || continue; \
	  echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is newer than pyproject.toml once its packages are there, so that a second run installs nothing.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2]; ok or sys.exit( \
	  f"persona needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is {sys.version.split()[0]}; try: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing persona and what it needs into $(VENV), about half a minute ..."
	@$(PIP) install --editable .
	@# Hybrid model: in the core from Python 3.12 on; on 3.11 it is compiled, where there is a compiler.
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 12))' && command -v cc >/dev/null; then \
	  $(PIP) install --editable '.[hybrid]' >/dev/null 2>&1 || echo "without the hybrid model: it did not compile here"; fi
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	@$(PIP) install --editable '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@$(PIP) install --editable '.[dev]'
	@touch $@

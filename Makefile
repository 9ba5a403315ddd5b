# Python ≥ 3.11 and make are all that is needed; PYTHON names another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MODEL ?=
JOBS ?= 2

.PHONY: help install demo test check format types bench docs lock clean

help:  ## Say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

# What users get, exactly as locked; the marker says which lock a venv was made from.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "holdfast needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# The same and what developers need besides.
$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

install: $(VENV)/.installed-dev  ## Make the virtual environment with everything

demo: $(VENV)/.installed  ## A real run whose worker is killed in the middle; MODEL=openai/gpt-5-mini for a real model
	$(BIN)/holdfast demo $(if $(MODEL),--model $(MODEL))

test: check  ## Everything: lint, format, types, all tests on a real server, replays
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

check: types  ## Lint, format and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev  ## Format, and mend what the linter can
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

# mypy follows no mapped folders, so it gets the namespace as a folder of links.
types: $(VENV)/.installed-dev
	@rm -rf .types && mkdir -p .types/holdfast
	@ln -s $(CURDIR)/holdfast/*.py $(CURDIR)/holdfast/py.typed .types/holdfast/
	@for part in activities workflows client worker examples; do ln -s $(CURDIR)/$$part .types/holdfast/$$part; done
	MYPYPATH=.types $(BIN)/mypy -p holdfast -p tests -p bench

bench: $(VENV)/.installed-dev  ## Holdfast beside a bare Temporal workflow, as ratios
	$(BIN)/python -m bench

docs: $(VENV)/.installed-dev  ## Run the code of README and docs as tests
	$(BIN)/python -m pytest tests/test_docs.py

lock: $(VENV)/.installed-dev  ## Pin everything anew
	$(BIN)/uv pip compile --quiet --no-header --universal --generate-hashes --extra local --extra fast pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --no-header --universal --generate-hashes --extra local --extra fast --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:  ## Remove what was made
	rm -rf $(VENV) .types .holdfast build *.egg-info

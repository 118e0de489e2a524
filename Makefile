PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Tests use models built in code or files at hand; asking a hub would be a mistake.
test: export HF_HUB_OFFLINE = 1

.PHONY: test lint types real
.DEFAULT_GOAL := test

test: $(VENV)/.installed
	$(BIN)/pytest -q

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

real: $(VENV)/.installed
	$(BIN)/python scripts/real_text.py

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	@# torch goes first and alone, so that no other package's range picks another build of it.
	$(PIP) install -c constraints.txt torch==2.13.0
	$(PIP) install -c constraints.txt -e ".[all]" --group dev
	touch $@

# Everything starts from a bare Python (3.11 or 3.12) and does its own set-up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test test-all lint install porting clean

demo: $(VENV)/installed
	$(BIN)/sf-jax demo --out demo

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal

# With the long sweeps (marker `slow`), and programs compiled with full optimisation as users run them.
test-all: lint
	SF_JAX_TEST_OPTIMISE=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m ""

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/installed

$(VENV)/installed: setup.cfg requirements.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("sf_jax needs Python 3.11 or 3.12: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e .[dev]
	touch $@

# PyTorch, transformers and PEFT, which the tests of ported checkpoints compare with.
porting: $(VENV)/installed-porting

$(VENV)/installed-porting: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e .[porting]
	touch $@

clean:
	rm -rf $(VENV) demo runs

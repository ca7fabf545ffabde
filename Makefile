# make demo and make test each do all of their own set-up, in .venv; Python 3.10 or newer is all they ask for.
SHELL := /usr/bin/env bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# -qq: some package sources make pip warn dozens of times about nothing; errors still show.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
# Also holds for the environments in which pip builds packages.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

.PHONY: help install demo test lint format test-dropin clean

help:
	@echo "make demo        answer a question about an image and paint one, with the bundled model"
	@echo "make test        run the tests        make lint    check style and types"
	@echo "make install     .venv with everything the tests need"
	@echo "make test-dropin TRANSFORMERS=4.48.3    run the drop-in's tests on another version of transformers"

install: $(VENV)/.dev-installed

$(VENV)/.core-installed: pyproject.toml constraints.txt $(wildcard src/openjanus/kernels/*.[ch])
	$(PYTHON) -m venv $(VENV)
	@echo "installing openjanus into $(VENV) (a minute or two, once)"
	$(PIP) -e .
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.core-installed dropin/pyproject.toml
	@echo "installing what the tests need into $(VENV) (a minute or two, once)"
	$(PIP) -e '.[dev]' -e dropin
	@touch $@

demo: $(VENV)/.core-installed
	@echo; echo '$$ openjanus understand "How many circles are there?" --image examples/images/shapes.png --max-tokens 32'
	@$(BIN)/openjanus understand "How many circles are there?" --image examples/images/shapes.png --max-tokens 32 2>&1
	@echo; echo '$$ openjanus generate "a red circle left of a blue star" --seed 0 -o out/'
	@picture=$$($(BIN)/openjanus generate "a red circle left of a blue star" --seed 0 -o out/) && echo "The picture is here: $$picture"
	@echo; echo '$$ openjanus generate "a red circle left of a blue star" --model janusflow-tiny --seed 0 -o out/'
	@picture=$$($(BIN)/openjanus generate "a red circle left of a blue star" --model janusflow-tiny --seed 0 -o out/) && echo "The picture is here: $$picture"

# Two workers, one thread each: tests are many and small.
test: $(VENV)/.dev-installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup $(ARGS)

lint: $(VENV)/.dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The drop-in promises a range of transformers; each version has an environment of its own.
TRANSFORMERS ?= 5.17.0
DROPIN := .venvs/transformers-$(TRANSFORMERS)

$(DROPIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DROPIN)
	grep -E '^(torch|numpy|pillow|pytest)' constraints.txt > $(DROPIN)/constraints.txt
	PIP_CONSTRAINT=$(CURDIR)/$(DROPIN)/constraints.txt $(DROPIN)/bin/python -m pip install -qq --disable-pip-version-check \
	  transformers==$(TRANSFORMERS) accelerate diffusers peft pytest pytest-timeout pytest-xdist -e .
	@touch $@

test-dropin: $(DROPIN)/.installed
	OMP_NUM_THREADS=1 $(DROPIN)/bin/python -m pytest tests/dropin $(ARGS)

format: $(VENV)/.dev-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venvs

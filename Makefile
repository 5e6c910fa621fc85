# `make` alone prints what there is. VENV=folder uses another environment (a torch that is already
# in it is kept); PIP_ARGS=... goes to every `pip install`,
# PYTEST_ARGS=... to pytest. No "-n 2" by default: each worker imports torch for itself, and on two
# busy cores it doubled the time of a suite of 25 s.
VENV ?= .venv
PIP_ARGS ?=
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile $(PIP_ARGS)
# What an installed hwnas is made of besides the .py files, which an editable install reads in place.
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(shell find csrc -name "*.cpp" -o -name "*.h" -o -name "*.cu" -o -name "*.cuh")

.PHONY: help demo test dev lint bench docs
.DELETE_ON_ERROR:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.hwnas  ## install, build, then on this CPU: profile, search, train, export, report
	@$(BIN)/hwnas demo

test: $(VENV)/.hwnas-dev  ## the fast test suite
	$(BIN)/python -m pytest -m "not slow and not gpu" $(PYTEST_ARGS)

dev: $(VENV)/.hwnas-dev  ## editable install with everything that tests, lint and types need

lint: $(VENV)/.hwnas-dev  ## ruff, mypy --strict, import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.hwnas-dev  ## measure the compiled core, and predictions against this machine
	$(BIN)/python benchmarks/latency_sum.py
	$(BIN)/python benchmarks/latency.py

docs: $(VENV)/.hwnas-docs  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

# 3.11 first: of the versions that run hwnas it is the one that the constraints were tried with.
$(BIN)/python:
	@for python in $${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3}; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Creating $(VENV) with $$($$python --version)"; \
	    exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "error: no Python 3.11 or newer with the venv module found (Debian: apt-get install python3-venv)." >&2; \
	echo "Set PYTHON=/path/to/python." >&2; exit 1

# The tools of the build go first, so that pip builds hwnas in this environment (no isolation: no
# second download of them). A torch that the environment already has is exempt from the constraints.
$(VENV)/.build-tools: constraints.txt | $(BIN)/python
	@command -v $${CXX:-c++} >/dev/null || { echo "error: no C++ compiler (Debian: apt-get install g++)." >&2; exit 1; }
	@echo "Installing into $(VENV): the first time this takes a few minutes"
	@if $(BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; \
	  then grep -v '^torch==' constraints.txt; else cat constraints.txt; fi > $(VENV)/constraints.txt
	$(PIP) -c $(VENV)/constraints.txt scikit-build-core pybind11 cmake ninja
	@touch $@

$(VENV)/.hwnas: $(SOURCES) $(VENV)/.build-tools | links
	$(PIP) -c $(VENV)/constraints.txt --no-build-isolation -e .
	@touch $@

$(VENV)/.hwnas-dev: $(SOURCES) $(VENV)/.build-tools | links
	$(PIP) -c $(VENV)/constraints.txt --no-build-isolation -e '.[dev]'
	@touch $(VENV)/.hwnas $@

$(VENV)/.hwnas-docs: $(SOURCES) $(VENV)/.build-tools | links
	$(PIP) -c $(VENV)/constraints.txt --no-build-isolation -e '.[docs]'
	@touch $(VENV)/.hwnas $@

# Type checkers and the import linter read files, not the mapping in pyproject.toml.
.PHONY: links
links:
	@for folder in kernels latency_tables recipes; do \
	  [ -e hwnas/$$folder ] || ln -s ../$$folder hwnas/$$folder; \
	done

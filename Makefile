# Everything a newcomer or CI needs. Only Python >= 3.11 and make are expected on the machine.
#   make demo       the licence audit, live
#   make test       the test suite (under 6 minutes on 2 cores)
#   make check      lint, types, import contracts
#   make release    the evaluation suites of the examples, replayed from tapes (seconds)
#   make record     the examples' tapes and the pictures of their traces, anew from real runs
#   make test-all   the slow lanes too: full kill counts, full simulations
#   make bench      what a step, an event and a pause cost here, beside the bare limits and other engines
#                   (ONLY=W1,W4 or ONLY=core,otlp and PEERS=burr,langgraph choose); writes benchmarks/RESULTS.md
#   make bench-quick  the hot path against the figures kept in benchmarks/reference.json
#   make docs       the documentation as a site, in ./site

SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; break; }; done)
STAMP := $(VENV)/.installed
# One more than there are processors: many tests wait for a process, a terminal or a browser.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)
# The tests start hundreds of interpreters: each compiled everything anew where this forbade to keep what was compiled.
unexport PYTHONDONTWRITEBYTECODE


.DEFAULT_GOAL := help
.PHONY: help install demo check lint types contracts format test release record test-all bench bench-quick docs screenshots clean

help:
	@sed -n 's/^#   //p' Makefile

install: $(STAMP)

# Installed once; again only when pyproject.toml changes.
$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "flowdeck needs Python 3.11 or newer; install it, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "flowdeck needs Python 3.11 or newer, and $(PYTHON) is not; name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "installing into $(VENV): once, a minute or two" >&2
	@if command -v uv >/dev/null 2>&1; then \
		{ test -x $(BIN)/python || uv venv --quiet --python "$(PYTHON)" $(VENV); } && \
		uv pip install --quiet --python $(BIN)/python -e '.[dev]'; \
	else \
		{ test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV); } && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/flowdeck demo

check: lint types contracts

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports --no-cache

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(STAMP)
	$(BIN)/pytest -m "not slow" -n $(JOBS) --dist loadgroup

# What the examples promise, checked by our own evaluation tool; the verdict is the exit code.
release: $(STAMP)
	@store=$$(mktemp -d) && { env -u FLOWDECK_MODEL $(BIN)/python -m flowdeck_evals run examples --tag release --quiet --store "$$store"; \
		code=$$?; rm -rf "$$store"; exit $$code; }

test-all: $(STAMP)
	FLOWDECK_TEST_OTHER_DUCKDB=$$($(BIN)/python -m tests.other_duckdb) FLOWDECK_SIM_SEEDS=200000 \
		$(BIN)/pytest -n $(JOBS) --dist loadgroup --timeout 1800

bench: $(STAMP)
	$(BIN)/python -m benchmarks --install

bench-quick: $(STAMP)
	$(BIN)/python -m benchmarks --quick

# The site, in ./site: references are written from the code first.
docs: $(STAMP)
	@$(BIN)/python -c 'import mkdocs' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/python -m docs.event_reference
	$(BIN)/python -m docs.command_reference
	$(BIN)/python -m docs.filter_reference
	$(BIN)/python -m docs.sql_reference
	$(BIN)/python -m tests.otlp.tables
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

record: $(STAMP)
	env -u FLOWDECK_MODEL $(BIN)/python -m examples.record

screenshots: $(STAMP)
	$(BIN)/python -m docs.screenshots

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

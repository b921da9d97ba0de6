# `make demo` shows what Aftergate finds; `make test` installs the package and runs its tests. Set-up happens once, in .venv.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
JOBS ?= 2
SOURCES := $(shell find src -type f -not -name '*.pyc' 2>/dev/null) hatch_build.py

.PHONY: help demo test check quality bench clean

help:
	@echo 'make demo     scan the sample logs in demo/logs and write report.html'
	@echo 'make test     install the package as a wheel and run the tests'
	@echo 'make check    format, lint, types, layers, generated docs'
	@echo 'make quality  score every labelled set of logs and write docs/quality.md'
	@echo 'make bench    measure the speed'
	@echo 'make clean    remove what these made'

# The first Python on the path that will do.
.venv/.made:
	@python=''; for each in python3.13 python3.12 python3.11 python3 python; do \
	  if "$$each" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then python=$$each; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo 'Python 3.11, 3.12 or 3.13 is needed and none is on the PATH' >&2; exit 1; fi; \
	[ -x $(BIN)/python ] || "$$python" -m venv .venv
	@touch $@

# What builds the wheel. Its core is compiled to C where a compiler and Python's headers are there, or Debian has them; else it stays Python.
.venv/.builder: .venv/.made constraints.txt
	@echo 'setting up .venv (once)'
	@$(PIP) install -c constraints.txt hatchling mypy msgspec setuptools
	@lacking() { $(BIN)/python hatch_build.py --lacking; }; \
	if [ -n "$$(lacking)" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev python3-dev >/dev/null; } || true; \
	fi; \
	if [ -n "$$(lacking)" ]; then echo "nothing is compiled, so scans take twice as long: $$(lacking)"; fi
	@touch $@

# What Aftergate needs to run, at the versions it is tested with.
.venv/.runtime: .venv/.made .venv/.builder constraints.txt pyproject.toml
	@$(PIP) install -c constraints.txt --no-build-isolation '.[enrich]'
	@touch $@

.venv/.dev: .venv/.runtime
	@$(PIP) install -c constraints.txt --no-build-isolation '.[enrich,dev]'
	@touch $@

# The package itself, built as a wheel: tests and demo run what users get, never the source tree.
.venv/.installed: .venv/.runtime $(SOURCES) README.md LICENSE
	@$(PIP) install --no-deps --no-build-isolation --force-reinstall .
	@touch $@

# A browser for the tests of the pages: the one on the path, else Debian's.
.venv/.browser: .venv/.made
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	  else echo 'no chromium on the PATH: install it to run the tests of the pages' >&2; exit 1; fi; }
	@touch $@

# Peers that only the tests use: an OpenID provider, an OAuth client, a checker of accessibility (npm), and Go's own verifier of logs (Debian).
# Node older than 20, as Debian 12 has it, gets a newer one from npm beside the packages.
NODE := oidc-provider@9.13.3 oauth4webapi@3.8.8 axe-core@4.14.1
PEER_PATH := $(CURDIR)/.venv/node/node_modules/.bin
APT := apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends
NPM := npm install --silent --no-audit --no-fund --no-package-lock --prefix .venv/node
.venv/.peers: .venv/.made Makefile
	@may() { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; }; \
	command -v npm >/dev/null || { if may; then { $(APT) nodejs npm >/dev/null; }; fi; }; \
	command -v npm >/dev/null || { echo 'no npm on the PATH: install Node.js to run the tests against other OAuth software' >&2; exit 1; }; \
	new=''; [ "$$(node -p 'parseInt(process.versions.node)')" -ge 20 ] || new='node@22.23.3'; \
	$(NPM) $(NODE) $$new; \
	if ! command -v go >/dev/null || [ ! -d /usr/share/gocode/src/golang.org/x/mod ]; then \
	  if may; then { $(APT) golang-go golang-golang-x-mod-dev >/dev/null; }; else echo 'no Go with x/mod: its check of our log is left out'; fi; fi
	@touch $@

# What only the benchmarks use: a load generator (Debian) and a peer (npm).
.venv/.bench: .venv/.peers
	@command -v wrk >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { $(APT) wrk >/dev/null; }; } || { echo 'no wrk on the PATH: install it to measure' >&2; exit 1; }
	@$(NPM) @cerbos/cerbos-linux-x64@0.55.0
	@touch $@

demo: .venv/.installed
	@$(BIN)/aftergate scan demo/logs --report report.html
	@echo
	@echo 'The report is report.html: open it in a browser; it needs no network.'
	@echo 'Next:'
	@echo '  .venv/bin/aftergate scan YOUR-LOGS --report report.html'
	@echo '  .venv/bin/aftergate scan demo/logs --findings findings.jsonl --summary summary.json'
	@echo '  .venv/bin/aftergate serve        decisions on live trust, approvals, tasks: docs/walkthrough.md'
	@echo '  .venv/bin/aftergate --help'

test: .venv/.dev .venv/.installed .venv/.browser .venv/.peers
	@PATH="$(PEER_PATH):$$PATH" $(BIN)/python -m pytest -n $(JOBS)

check: .venv/.dev .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports
	@if [ -e src/aftergate/tools/docs.py ]; then $(BIN)/python -m aftergate.tools.docs --check; fi

quality: .venv/.dev .venv/.installed
	@$(BIN)/python quality/run.py --jobs $(JOBS)

bench: .venv/.dev .venv/.installed .venv/.bench
	$(BIN)/python bench/run.py

clean:
	rm -rf .venv build dist report.html findings.jsonl summary.json demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

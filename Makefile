# `make` alone lists what there is. Everything happens in $(VENV); nothing else is touched.
PYTHON ?= python3
VENV ?= .venv
# The release that executorch and torchao are built against. A newer one, or this one from an index
# that prefers CUDA builds, brings several gigabytes; a CPU build for Linux is at
# TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu".
TORCH ?= torch==2.13.0
# Two at a time, a file to a worker: what is dear to build is shared within a file.
PYTEST_ARGS ?= -n 2 --dist loadfile
BENCH_ARGS ?=
HOSTILE_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv
BASE := $(VENV)/.crykit-base
ALL := $(VENV)/.crykit-all
NATIVE := $(VENV)/.crykit-native

.PHONY: help demo test check bench bench-report hostile screenshot kotlin clean

help:
	@echo "make demo        a made-up night through the real engine (no microphone, no torch)"
	@echo "make test        install everything, then check and test"
	@echo "make check       ruff, formatting, pyright, import rules"
	@echo "make bench       every runtime on this machine (BENCH_ARGS=--quick)"
	@echo "make bench-report  the same, written to docs/benchmarks.md"
	@echo "make hostile     2,000 damaged models and manifests (HOSTILE_ARGS='--seed 2')"
	@echo "make screenshot  docs/screenshot.svg, drawn by the app itself"
	@echo "make kotlin      a compiler, so that the Android kit is tested too (needs java and junit4)"
	@echo "make clean       remove $(VENV), caches and builds"

demo: $(BASE)
	@$(BIN)/crykit demo

test: check
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(ALL) $(NATIVE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(ALL) $(NATIVE)
	$(BIN)/crykit bench $(BENCH_ARGS)

hostile: $(ALL) $(NATIVE)
	$(BIN)/python -m crykit_bench.hostile $(HOSTILE_ARGS)

bench-report: $(ALL) $(NATIVE)
	$(BIN)/crykit bench $(BENCH_ARGS) --markdown docs/benchmarks.md

# Textual draws the screen as SVG and quits after so many whole seconds: at ten times real time, in
# the middle of the night's fifth cry.
SCREENSHOT_AFTER_S ?= 44
screenshot: $(BASE)
	TEXTUAL_SCREENSHOT=$(SCREENSHOT_AFTER_S) TEXTUAL_SCREENSHOT_LOCATION=docs \
	TEXTUAL_SCREENSHOT_FILENAME=screenshot.svg TERM=xterm-256color COLORTERM=truecolor \
	COLUMNS=120 LINES=36 \
	$(BIN)/python -c 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))' \
	  $(BIN)/crykit demo --speed 10 < /dev/null > /dev/null
	@test -s docs/screenshot.svg

# What compiles the Android kit in its test: Kotlin's compiler, out of the environment's packages.
KOTLIN := $(VENV)/kotlin
kotlin: $(KOTLIN)
$(KOTLIN): | $(BIN)/pip
	$(PIP) install --quiet --no-deps --target $@ kotlin-jupyter-kernel==0.19.0.944

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "crykit needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No virtual environment could be made; on Debian and Ubuntu:" \
	       "apt install python3-venv" >&2; exit 2; }

# The install proper, as on a Raspberry Pi: no torch.
$(BASE): pyproject.toml | $(BIN)/pip
	$(PIP) install --quiet --editable .
	@touch $@

# torch by itself first, so that nothing below can pull in another one.
$(ALL): pyproject.toml | $(BIN)/pip
	$(PIP) install --quiet $(TORCH)
	$(PIP) install --quiet --editable '.[all]'
	@touch $@ $(BASE)

# ExecuTorch without torch, built against the ExecuTorch that $(ALL) brought. In this environment
# itself: an isolated one would fetch what is here already.
$(NATIVE): $(ALL) $(shell find native -type f -not -path '*/build/*' 2>/dev/null)
	@command -v $${CXX:-c++} > /dev/null || { \
	  echo "The native runtime needs a C++ compiler; on Debian and Ubuntu:" \
	       "apt install g++ python3-dev" >&2; exit 2; }
	$(PIP) install --quiet --no-build-isolation --no-deps --force-reinstall ./native
	@touch $@

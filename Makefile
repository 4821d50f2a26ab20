# Every target creates .venv and installs what it needs; a machine needs python3, python3-venv and make.

PYTHON ?= python3
# Where it is installed; another one for another Python.
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that run tests at once.
JOBS ?= 2
# More arguments for pytest, such as ARGS="-k replay".
ARGS ?=

.PHONY: help demo demo-tunnel test test-long e2e lint mutants bench constraints clean

help: ## What can be made here
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "wgpy needs Python 3.11 or newer; set PYTHON=python3.12 or the like" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "apt-get install --no-install-recommends python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[fast,edge,hub]' --group dev
	@touch $@

demo: $(VENV)/installed ## A hub, an edge, kubectl through the tunnel; no root, no cluster (DEMO_ONCE=1, DEMO_CONTEXT=NAME)
	@$(BIN)/python -m benchmarks.demo_hub

demo-tunnel: $(VENV)/installed ## Two wgpy devices, a real handshake, 100 MB; no root needed
	@$(BIN)/python -m benchmarks.demo

test: $(VENV)/installed ## Every test that this machine can run; what was left out is listed at the end
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-long: $(VENV)/installed ## The tests that take minutes: rekeying, expiry, roaming in real time
	$(BIN)/python -m pytest -m long $(ARGS)

e2e: $(VENV)/installed ## The story on a real Kubernetes node, by a real browser; root; builds Kubernetes the first time
	$(BIN)/python tests/tools/prepare_kubernetes.py
	$(BIN)/python -m pytest -m kube tests/kube -x -v -s $(ARGS)

lint: $(VENV)/installed ## ruff, mypy and the floors of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/mutants-installed: $(VENV)/installed
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --group mutants
	@touch $@

mutants: $(VENV)/mutants-installed ## Change the code one place at a time, and see which test notices; hours (ARGS="wgpy.noise.*")
	$(BIN)/mutmut run --max-children $(JOBS) $(ARGS)
	$(BIN)/mutmut results

$(VENV)/bench-installed: $(VENV)/installed
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fast,bench]'
	@touch $@

bench: $(VENV)/bench-installed ## All benchmarks with moderate options, half an hour as root; ARGS="tunnel --help" for one
	$(BIN)/python -m benchmarks $(or $(ARGS),all)

constraints: $(VENV)/installed $(VENV)/bench-installed ## Write down the versions that are installed now
	@{ echo '# What was tested. Made by `make constraints`: pip freeze of the development environment.'; \
	   $(BIN)/pip freeze --exclude-editable; } > constraints.txt

clean: ## Remove everything that is not in the repository
	rm -rf $(VENV) mutants build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

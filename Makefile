# make demo, make run, make test: everything is set up in .venv, nothing outside the clone is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STATE ?= .run
# Workers for two cores: most of a test is waiting. `loadfile` keeps the tests of a module in one of them, which share its
# fixtures, and hands out the largest modules first. The fast tests never wait; those on a cluster run one at a time.
WORKERS ?= 4
test-fast: WORKERS = 2
PARALLEL = -n $(WORKERS) --dist loadfile

.PHONY: help demo run test test-fast test-long lint types imports tests test-cluster test-wheel bench-api bench-cluster bench-redaction bench-rollback bench-switch lock wheel clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   play a blue-green deployment on this machine, with load, and count lost requests"
	@echo "make run    start the service on the embedded sandbox, to play with"
	@echo "make test   lint, types, import rules and tests"
	@echo "make test-fast   the tests that need neither sandbox nor service, in under a minute"
	@echo "make test-long   kill the service at every single write, resume all that an older one left, a million decisions"
	@echo "make bench-api   how fast REST and the log stream are on this machine"
	@echo "make test-cluster, make bench-cluster, make bench-rollback, make bench-switch   tests and figures on the Kubernetes that KUBECONFIG names"

demo: $(VENV)/.run
	@$(BIN)/deployer demo

run: $(VENV)/.run
	@$(BIN)/deployer sandbox --data-dir $(STATE)

test: lint types imports tests

# What can be tested without a sandbox and without a service: for the minute between two edits.
test-fast: $(VENV)/.dev
	$(BIN)/pytest -m fast $(PARALLEL) $(PYTEST_ARGS)

# Every point at which the service can be killed, of which `make test` tries a sample in CI, and a million decisions of
# operations to which anything happens; about thirty-five minutes.
test-long: $(VENV)/.dev
	$(BIN)/pytest tests/model tests/kill tests/engine/test_migration.py \
	  tests/plugins/test_strategies.py --kill=all $(PARALLEL) $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy -p deployer

imports: $(VENV)/.dev
	$(BIN)/lint-imports

tests: $(VENV)/.dev
	$(BIN)/pytest -m "not cluster" $(PARALLEL) $(PYTEST_ARGS)

test-cluster: $(VENV)/.dev
	$(BIN)/pytest -m cluster $(PYTEST_ARGS)

# Speed of REST and the log stream on this machine; BENCH_ARGS="get viewers --repeat 5" narrows it.
bench-api: $(VENV)/.dev
	$(BIN)/python bench/api.py $(BENCH_ARGS)

# What it costs to hide secrets, and that it grows with the text alone.
bench-redaction: $(VENV)/.dev
	$(BIN)/python bench/redaction.py

# Speed and cost of deployments on the cluster that KUBECONFIG names; BENCH_ARGS="--at-once 20" narrows it.
bench-cluster: $(VENV)/.dev
	$(BIN)/python bench/cluster.py $(BENCH_ARGS)

# How long a rollback takes there, at one app and at twenty at once; BENCH_ARGS="--at-once 5" narrows it.
bench-rollback: $(VENV)/.dev
	$(BIN)/python bench/rollback.py $(BENCH_ARGS)

# What users lose while apps are switched, through a real ingress controller; BENCH_ARGS="--mode gateway" narrows it.
bench-switch: $(VENV)/.dev
	$(BIN)/python bench/switch.py $(BENCH_ARGS)

wheel: $(VENV)/.dev
	rm -rf build dist
	$(BIN)/python -m build --wheel --no-isolation

# The wheel, installed with what its metadata asks for into an environment of its own, plays the demo.
test-wheel: wheel
	rm -rf $(STATE)/wheel && $(PYTHON) -m venv $(STATE)/wheel
	sed -e '/--hash/d' -e 's/ *\\$$//' requirements/run.txt > $(STATE)/constraints.txt
	$(STATE)/wheel/bin/pip install --quiet --disable-pip-version-check -c $(STATE)/constraints.txt dist/*.whl
	cd $(STATE) && wheel/bin/python -c 'from deployer.api.openapi.page import assets; assert all(assets())'
	cd $(STATE) && wheel/bin/deployer demo

# The virtual environment with what the service needs to run ...
$(VENV)/.run: requirements/run.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "This Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# ... and what it takes to work on it.
$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

# Writes the locks anew from the ranges in pyproject.toml; needs uv.
LOCK := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml
lock:
	$(LOCK) -o requirements/run.txt
	$(LOCK) --extra dev -c requirements/run.txt -o requirements/dev.txt

clean:
	rm -rf $(VENV) $(STATE) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache

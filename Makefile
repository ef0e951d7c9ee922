# make demo, make run, make test: everything is set up in .venv, nothing outside the clone is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STATE ?= .run
# Workers for two cores: most of a test is waiting. `loadfile` keeps the tests of a module in one of them, which share its
# fixtures; tests/conftest.py orders the modules. The fast tests never wait; those on a cluster run one at a time.
WORKERS ?= 4
test-fast: WORKERS = 2
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo run test test-fast test-long test-kill model lint types imports tests test-cluster test-wheel bench-api bench-cluster bench-flood bench-lists bench-moving bench-redaction bench-rollback bench-switch soak docs docs-links docs-pages lock web wheel release version bench image helm chart test-chart clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   play a blue-green deployment on this machine, with load, and count lost requests"
	@echo "make run    start the service on the embedded sandbox, to play with"
	@echo "make test   lint, types, import rules and tests"
	@echo "make test-fast   the tests that need neither sandbox nor service, in under a minute"
	@echo "make test-long   kill the service at every single write, resume all that an older one left, a million decisions"
	@echo "make test-kill   kill the service at every write on the Kubernetes that KUBECONFIG names"
	@echo "make model   let anything happen to a whole service, in any order, for some minutes; MODEL_ARGS='--steps=100000' for longer"
	@echo "make bench-api   how fast REST and the log stream are on this machine"
	@echo "make soak   5,000 deployments in a row: threads, descriptors, memory and files must not grow; about an hour"
	@echo "make web   build the page under /ui/ from web/; needs Node and npm"
	@echo "make docs   the documentation as a site, in build/site; a link that leads nowhere fails it"
	@echo "make release   sdist, wheel, bill of materials, licences and tag; RELEASE_ARGS=--dry-run for all but the tag"
	@echo "make bench   measure everything and write bench/report.md; BENCH_ARGS=--quick for a small sample"
	@echo "make image   the container image, as an OCI layout, without Docker"
	@echo "make test-chart   tests of the Helm chart; make helm builds Helm for them with Go, make chart writes what is made in it"
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
	  tests/plugins/test_strategies.py tests/cluster/test_replicas.py --kill=all $(PARALLEL) $(PYTEST_ARGS)

# Kills `deployer serve` before and after each write on the cluster that KUBECONFIG names, for hours; prints the matrix.
# PYTEST_ARGS="--part=3/8 -k etcd" plays the third of eight parts of it, with one of the stores.
test-kill: $(VENV)/.dev
	$(BIN)/pytest -m cluster tests/cluster/test_kill.py -s --kill=all $(PYTEST_ARGS)

# A model drives the whole service: users, crashes, a cluster and a disk that fail. --seed of the report draws it again.
model: $(VENV)/.dev
	$(BIN)/pytest tests/whole -s --steps=20000 $(MODEL_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy -p deployer

imports: $(VENV)/.dev
	$(BIN)/lint-imports

# The page under /ui/, from web/ into the package; needs Node and npm. What is built is committed, so that a wheel needs neither.
web: web/node_modules/.package-lock.json
	cd web && npm run --silent check && npm run --silent build

web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# Where npm is, what is committed is compared with a fresh build, and axe looks at the page.
NODE := $(if $(shell command -v npm),web/node_modules/.package-lock.json)

tests: $(VENV)/.dev $(VENV)/.bench $(VENV)/.release $(NODE)
	$(BIN)/pytest -m "not cluster" $(PARALLEL) $(PYTEST_ARGS)

test-cluster: $(VENV)/.dev
	$(BIN)/pytest -m cluster $(PYTEST_ARGS)

# All that is measured, in bench/report.md with plots and raw figures; what needs a cluster, on that of KUBECONFIG.
# BENCH_ARGS=--quick takes a small sample in a few minutes, BENCH_ARGS="--only api soak" only these parts.
bench: $(VENV)/.bench
	$(BIN)/python bench/make_report.py $(BENCH_ARGS)

# Speed of REST and the log stream on this machine; BENCH_ARGS="get viewers --repeat 5" narrows it.
bench-api: $(VENV)/.dev
	$(BIN)/python bench/api.py $(BENCH_ARGS)

# What a flood of bad tokens costs callers who are known.
bench-flood: $(VENV)/.dev
	$(BIN)/python bench/flood.py $(BENCH_ARGS)

# What long lists that many read at once cost in memory.
bench-lists: $(VENV)/.dev
	$(BIN)/python bench/lists.py $(BENCH_ARGS)

# What it costs to hide secrets, and that it grows with the text alone.
bench-redaction: $(VENV)/.dev
	$(BIN)/python bench/redaction.py

# How long it takes to export, import and back up a store, and that memory does not grow with it.
bench-moving: $(VENV)/.dev
	$(BIN)/python bench/moving.py $(BENCH_ARGS)

# Speed and cost of deployments on the cluster that KUBECONFIG names; BENCH_ARGS="--at-once 20" narrows it.
bench-cluster: $(VENV)/.dev
	$(BIN)/python bench/cluster.py $(BENCH_ARGS)

# How long a rollback takes there, at one app and at twenty at once; BENCH_ARGS="--at-once 5" narrows it.
bench-rollback: $(VENV)/.dev
	$(BIN)/python bench/rollback.py $(BENCH_ARGS)

# What users lose while apps are switched, through a real ingress controller; BENCH_ARGS="--mode gateway" narrows it.
bench-switch: $(VENV)/.dev
	$(BIN)/python bench/switch.py $(BENCH_ARGS)

# Whether anything grows while it deploys and deploys; BENCH_ARGS="--deployments 500" narrows it.
soak: $(VENV)/.dev
	$(BIN)/python bench/soak.py $(BENCH_ARGS)

# The site of the documentation. What is not right is an error: a link, an anchor, a reference in a docstring.
SPHINX := $(BIN)/python -m sphinx -W --keep-going -n -q -c docs/site
docs: $(VENV)/.docs
	$(SPHINX) -b html . build/site

# The pages that are made from the product: settings, commands, routes, descriptors. A test says when to run this.
docs-pages: $(VENV)/.dev
	PYTHONPATH=docs/site $(BIN)/python -m pages

# Whether the links to other sites lead somewhere: for people, as it takes a network and others that answer.
docs-links: $(VENV)/.docs
	$(SPHINX) -b linkcheck . build/links

wheel: $(VENV)/.dev
	rm -rf build/lib build/bdist.* dist
	$(BIN)/python -m build --wheel --no-isolation

# A release of the last commit, in build/release, and its tag; RELEASE_ARGS=--dry-run makes everything but the tag.
release: $(VENV)/.release
	@PYTHONPATH=deploy $(BIN)/python -m release $(RELEASE_ARGS)

# Another version, in every file that names it: make version VERSION=1.2.0
version: $(VENV)/.release
	@PYTHONPATH=deploy $(BIN)/python -m release --set-version "$(VERSION)"

# The image as an OCI layout in a tar file, without Docker; needs Debian 12 and no root. See docs/installation.md.
image:
	$(PYTHON) deploy/image/build.py build/image/kube-deployer.tar

# Helm and helm-docs from their Go modules into build/bin, for those who have neither.
helm:
	GOBIN=$(CURDIR)/build/bin CGO_ENABLED=0 go install -trimpath helm.sh/helm/v4/cmd/helm@v4.3.2
	GOBIN=$(CURDIR)/build/bin CGO_ENABLED=0 go install -trimpath github.com/norwoodj/helm-docs/cmd/helm-docs@v1.14.2

# What is made in the chart: copies of the rules, the schema of values, the table in its README.
chart: $(VENV)/.dev
	for file in deploy/chart/rbac/*; do cp deploy/rbac/$${file##*/} $$file; done
	$(BIN)/python deploy/values_schema.py > deploy/chart/values.schema.json
	PATH="$(CURDIR)/build/bin:$$PATH" helm-docs --log-level warning --sort-values-order file --chart-search-root deploy/chart

test-chart: $(VENV)/.dev
	$(BIN)/pytest tests/deploy/test_chart.py $(PYTEST_ARGS)

# The wheel, installed with what its metadata asks for into an environment of its own, plays the demo.
test-wheel: wheel
	rm -rf $(STATE)/wheel && $(PYTHON) -m venv $(STATE)/wheel
	sed -e '/--hash/d' -e 's/ *\\$$//' requirements/run.txt > $(STATE)/constraints.txt
	$(STATE)/wheel/bin/pip install --quiet --disable-pip-version-check -c $(STATE)/constraints.txt dist/*.whl
	cd $(STATE) && wheel/bin/python -c 'from deployer.api.openapi.page import assets; assert all(assets())'
	cd $(STATE) && wheel/bin/python -c 'from deployer.api.ui.files import INDEX, files; assert len(files()[INDEX].plain) > 100'
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

# ... and to make a site of its documentation.
$(VENV)/.docs: requirements/docs.txt $(VENV)/.run
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	@touch $@

# ... to measure it and draw what came out ...
$(VENV)/.bench: requirements/bench.txt $(VENV)/.dev
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

# ... and to release it.
$(VENV)/.release: requirements/release.txt $(VENV)/.run
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/release.txt
	@touch $@

# Writes the locks anew from the ranges in pyproject.toml; needs uv.
LOCK := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml
lock:
	$(LOCK) -o requirements/run.txt
	$(LOCK) --extra dev -c requirements/run.txt -o requirements/dev.txt
	$(LOCK) --extra docs -c requirements/run.txt -c requirements/dev.txt -o requirements/docs.txt
	$(LOCK) --extra bench -c requirements/run.txt -c requirements/dev.txt -c requirements/docs.txt -o requirements/bench.txt
	$(LOCK) --extra release -c requirements/run.txt -c requirements/dev.txt -c requirements/docs.txt -o requirements/release.txt

clean:
	rm -rf $(VENV) $(STATE) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache

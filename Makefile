# Everything runs in environments under .work/ (git-ignored), which scripts/environments creates from requirements/*.lock.
# A computer needs Python 3.10–3.13 with pip, Node 20 or newer with npm, and make.
# With AIRFLOW=3.4, demo, test and e2e run with Airflow 3.4 instead of 3.3; that needs Python 3.11 or newer.

CENTRAL = central$(addprefix -,$(AIRFLOW:3.3=))
RUNTIME = runtime$(addprefix -,$(AIRFLOW:3.3=))

.PHONY: help setup demo check check-deploy sboms format test unit e2e chaos bench locks clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## create or update the environments
	@scripts/environments

demo: ## run central, one worker and an example Dag on this computer (ONCE=1: run it once and exit)
	@scripts/environments dev $(CENTRAL) worker ui
	@exec .work/$(CENTRAL)/bin/python -m demo $(if $(ONCE),--once)

check: ## check style, types, imports, documents, and their agreement with the code
	@scripts/check

check-deploy: ## check what is deployed: packages, workflows, chart, role, images (ARGS=packages: only that)
	@scripts/environments deploy ui
	@.work/deploy/bin/python -m deploy.checks $(ARGS)

sboms: ## write the SBOM of each distribution from its pyproject.toml
	@scripts/environments dev
	@.work/dev/bin/python -m deploy.sboms

format: ## format with ruff and apply its fixes
	@scripts/environments dev
	@.work/dev/bin/ruff format .
	@.work/dev/bin/ruff check --fix .

test: ## run all tests (AIRFLOW=3.4: those that depend on the version of Airflow)
	@AIRFLOW=$(AIRFLOW) scripts/test

unit: ## run the tests of protocol/ and worker/ only
	@scripts/environments dev runtime
	@AIRFLOW_REMOTE_TEST_RUNTIME=$(CURDIR)/.work/runtime/bin/python .work/dev/bin/python -m pytest -q protocol/tests worker/tests

e2e: ## run the tests against a whole Airflow only (ARGS=… is passed to pytest)
	@scripts/environments dev $(CENTRAL) worker $(RUNTIME) ui
	@.work/$(CENTRAL)/bin/python -m pytest --timeout=300 e2e $(ARGS)

chaos: ## run N random runs of faults on real jobs, starting at SEED (default: a random one, which is printed)
	@scripts/environments
	@CHAOS_SEED=$(or $(SEED),$$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')) CHAOS_RUNS=$(or $(N),10) \
		.work/central/bin/python -m pytest -q -s -p no:cacheprovider --timeout=300 e2e/chaos/test_chaos.py $(ARGS)

bench: ## compare with LocalExecutor, CeleryExecutor and edge3 (QUICK=1: under 8 minutes; ONLY=hostile, deferred, travel or largest; ARGS=…)
ifeq ($(ONLY),hostile)
	@scripts/environments central
	@exec .work/central/bin/python -m bench.hostile
else ifeq ($(ONLY),travel)
	@scripts/environments dev central worker runtime
	@exec .work/central/bin/python -m bench.travel $(ARGS)
else ifeq ($(ONLY),largest)
	@scripts/environments dev central worker runtime
	@exec .work/central/bin/python -m bench.travel_largest
else ifeq ($(ONLY),deferred)
	@scripts/environments
	@exec .work/central/bin/python -m bench.deferred
else
	@scripts/environments all bench
	@exec .work/bench/bin/python -m bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(ARGS)
endif

locks: ## update requirements/*.lock (ARGS=--upgrade for newer versions)
	@scripts/lock $(ARGS)

clean: ## remove the environments and all files of earlier runs
	rm -rf .work dist

# Everything runs from environments under .work/ (git-ignored), made by scripts/environments from requirements/*.lock.
# A machine needs Python 3.10–3.13 with pip, Node 20 or newer with npm, and make.
# AIRFLOW=3.4 makes demo, test and e2e run with Airflow 3.4 instead of 3.3; that needs Python 3.11 or newer.

CENTRAL = central$(addprefix -,$(AIRFLOW:3.3=))
RUNTIME = runtime$(addprefix -,$(AIRFLOW:3.3=))

.PHONY: help setup demo check format test unit e2e chaos bench locks clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make or update the environments
	@scripts/environments

demo: ## central and one worker on this machine, running an example Dag (ONCE=1: run it once and exit)
	@scripts/environments dev $(CENTRAL) worker $(RUNTIME) ui
	@exec .work/$(CENTRAL)/bin/python -m demo $(if $(ONCE),--once)

check: ## style, types, who imports whom, docs that must agree with code
	@scripts/check

format: ## let ruff format and fix what it can
	@scripts/environments dev
	@.work/dev/bin/ruff format .
	@.work/dev/bin/ruff check --fix .

test: ## all tests (AIRFLOW=3.4: those that depend on the version of Airflow)
	@AIRFLOW=$(AIRFLOW) scripts/test

unit: ## the tests of protocol/ and worker/ only
	@scripts/environments dev runtime
	@AIRFLOW_REMOTE_TEST_RUNTIME=$(CURDIR)/.work/runtime/bin/python .work/dev/bin/python -m pytest -q protocol/tests worker/tests

e2e: ## the tests against a whole Airflow only (ARGS=… goes to pytest)
	@scripts/environments dev $(CENTRAL) worker $(RUNTIME) ui
	@.work/$(CENTRAL)/bin/python -m pytest --timeout=300 e2e $(ARGS)

chaos: ## N random runs of faults over real jobs, from SEED on (without one: a new one, which is printed)
	@scripts/environments
	@CHAOS_SEED=$(or $(SEED),$$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')) CHAOS_RUNS=$(or $(N),10) \
		.work/central/bin/python -m pytest -q -s -p no:cacheprovider --timeout=300 e2e/chaos/test_chaos.py $(ARGS)

bench: ## measure beside LocalExecutor, CeleryExecutor and edge3 (QUICK=1: under 8 minutes; ONLY=hostile; ONLY=deferred; ARGS=…)
ifeq ($(ONLY),hostile)
	@scripts/environments central
	@exec .work/central/bin/python -m bench.hostile
else ifeq ($(ONLY),deferred)
	@scripts/environments
	@exec .work/central/bin/python -m bench.deferred
else
	@scripts/environments all bench
	@exec .work/bench/bin/python -m bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(ARGS)
endif

locks: ## renew requirements/*.lock (ARGS=--upgrade for newer versions)
	@scripts/lock $(ARGS)

clean: ## remove the environments and what runs left behind
	rm -rf .work dist

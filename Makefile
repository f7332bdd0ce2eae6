# The commands of this project; `make help` lists them. PYTHON is the interpreter, 3.11 to 3.13, that the environments
# are made from; nothing else has to be installed.

PYTHON ?= python3
MAKEFLAGS += --no-print-directory

EXTRAS := --extra ray --extra mlflow
STORES := --extra azure --extra fast --extra gcs --extra parquet --extra postgres --extra s3
PINS := pip compile --universal --fork-strategy fewest --python-version 3.11 --quiet --no-progress \
	--custom-compile-command "make pins" pyproject.toml
PROVIDER_OF_.venv := providers/prefect
PROVIDER_OF_.venv-airflow := providers/airflow
AIRFLOW_TESTS := tests/providers/airflow tests/dags
# A Prefect server alone needs little of the machine: those of its tests that are not slow are among the others.
REAL := ray or slow

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env env-airflow servers run retrain test test-real test-others check docs schema bench soak build pins clean

help: ## List these commands.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: .venv/.stamp ## Make .venv: the engine, every extra that is tested, and Prefect.

env-airflow: .venv-airflow/.stamp ## Make .venv-airflow: the engine and Airflow, which cannot share with Prefect.

servers: env ## Install the servers that tests start; what cannot be installed is named, and its tests are skipped.
	@.venv/bin/python -m tests.servers.install

run: env ## Tune the digits example, from one file to a promoted model, and serve that over HTTP for a moment.
	.venv/bin/tune-tasks run examples/digits/study.yaml
	.venv/bin/python examples/digits/serve.py

retrain: env ## The week after `make run`: drifted images, begun with the best so far, promoted if they are better.
	.venv/bin/tune-tasks retrain examples/digits/study.yaml --run 2026-11-21 --data drifted

test: env env-airflow ## Run all tests: one by one those with real clusters and servers, and beside them all others.
	@failed=0; others=$$(mktemp); \
	$(MAKE) test-others > $$others 2>&1 & \
	$(MAKE) test-real || failed=1; \
	wait $$! || failed=1; \
	cat $$others; rm $$others; \
	exit $$failed

test-real: MARKED := $(REAL)
test-others: MARKED := not ($(REAL))
test-real test-others: env env-airflow ## The one part, or the other: in both environments, also when those in the first fail.
	@failed=0; \
	.venv/bin/python -m pytest -m "$(MARKED)" $(AIRFLOW_TESTS:%=--ignore=%) || failed=1; \
	.venv-airflow/bin/python -m pytest -m "$(MARKED)" $(AIRFLOW_TESTS) || failed=1; \
	exit $$failed

check: env env-airflow ## Run ruff, mypy, and the tests of imports, docs and the README.
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/mypy --cache-dir .mypy_cache/airflow --python-executable .venv-airflow/bin/python providers/airflow/src
	.venv/bin/python -m pytest -q tests/test_imports.py tests/test_docs.py tests/test_readme.py

docs: env ## Write what is generated: docs/spec.md, the schemas of a spec and of model.json, and Prefect's form.
	@mkdir -p docs
	.venv/bin/tune-tasks schema --format markdown > docs/spec.md
	.venv/bin/tune-tasks schema > docs/spec.schema.json
	.venv/bin/tune-tasks schema --of model > docs/model.schema.json
	.venv/bin/python -m tune_tasks_prefect form

schema: docs ## The same.

bench: env ## Measure the overhead for each trial, commits and opening a large study, and checkpoints.
	.venv/bin/python benchmarks/overhead.py
	.venv/bin/python benchmarks/store.py
	.venv/bin/python benchmarks/checkpoints.py

soak: env ## Play random worlds of processes and faults on all cores: MINUTES=10, EXAMPLES=2000 of the state machine.
	.venv/bin/python -m tests.simulation.soak --minutes $(or $(MINUTES),10) --workers $$(nproc) --examples $(or $(EXAMPLES),2000)

build: env ## Build the wheels of the three distributions into dist/.
	@for folder in . providers/airflow providers/prefect; do \
		.venv/bin/uv build --quiet --wheel --no-build-isolation --python .venv/bin/python --out-dir dist $$folder \
		|| exit 1; \
	done
	@ls dist/*.whl

pins: .venv/bin/uv ## Compile requirements/*.in and the extras to the newest pins that fit.
	.venv/bin/uv $(PINS) $(EXTRAS) $(STORES) --extra pandas --extra prefect --extra serve --extra sobol \
		--extra tensorboard requirements/engine.in --upgrade --output-file requirements/engine.txt
	.venv/bin/uv $(PINS) $(EXTRAS) --extra airflow --extra postgres requirements/airflow.in \
		--upgrade --output-file requirements/airflow.txt
	for version in 3.1 3.2; do .venv/bin/uv $(PINS) --extra airflow requirements/airflow-$$version.in \
		--upgrade --output-file requirements/airflow-$$version.txt || exit 1; done

clean: ## Remove the environments, and what was built and cached.
	rm -rf .venv .venv-airflow dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find tune_tasks providers tests -name __pycache__ -type d -prune -exec rm -rf {} +

# uv comes from pip, at the pinned version, so that a machine with nothing but Python will do.
.venv/bin/uv .venv-airflow/bin/uv: %/bin/uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit("Python is %d.%d, \
	must be 3.11 to 3.13: make PYTHON=python3.12 ..." % v[:2])'
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --disable-pip-version-check uv \
		--constraint requirements/$(if $(findstring airflow,$*),airflow,engine).txt

# Compiling at once costs 20 s here and saves 1 to 3 s at every start of Ray, Airflow, Prefect or MLflow.
.venv/.stamp: requirements/engine.txt
.venv-airflow/.stamp: requirements/airflow.txt
.venv/.stamp .venv-airflow/.stamp: %/.stamp: pyproject.toml providers/airflow/pyproject.toml \
		providers/prefect/pyproject.toml | %/bin/uv
	$*/bin/uv pip sync --quiet --python $*/bin/python --compile-bytecode $(filter %.txt,$^)
	$*/bin/uv pip install --quiet --python $*/bin/python --no-deps --no-build-isolation \
		--editable . --editable $(PROVIDER_OF_$*)
	@touch $@

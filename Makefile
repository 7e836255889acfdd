# make run and make test set everything up by themselves: they need Python 3.11 or later and a package registry.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
DEVICE ?= cpu
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal
PEERS := $(VENV)/peers
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DO_NOT_TRACK := true
unexport PYTHONDONTWRITEBYTECODE    # without it every process would compile torch and MLflow anew, for some ten seconds

.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow test-all test-slurm test-browser lint bench mlflow clean

help:    ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

setup: $(READY)    ## the environment in .venv, with the versions of constraints.txt

run: $(READY)    ## train the default, or what ARGS="algo=gmpo seed=1" says
	$(BIN)/genpolicy $(ARGS)

test: $(READY)    ## the quick tests; ARGS="-k settings" for some of them
	$(TESTS) -m "not slow" $(ARGS)

test-slow: $(READY)    ## the tests that train for longer
	$(TESTS) -m slow $(ARGS)

test-all: lint    ## everything
	$(TESTS) $(ARGS)
	$(MAKE) test-slurm test-browser

test-slurm: $(READY)    ## the tests that need SLURM, on a one-machine one that is started and stopped
	@trap 'launch/slurm-dev.sh down' EXIT INT TERM; \
	launch/slurm-dev.sh up && OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 --dist worksteal tests/slurm/slurm_*.py $(ARGS)

test-browser: $(READY)    ## the tests that look at pages in Debian's Chromium
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; } >/dev/null
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser/browser_*.py $(ARGS)

lint: $(READY)    ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(PEERS)    ## the speed of the parts, beside limits and peers; DEVICE=cuda, ARGS="-k gradient"
	@mkdir -p outputs
	OMP_NUM_THREADS=1 PYTHONPATH=$(PEERS) $(BIN)/python -m pytest tests/benchmarks/bench_*.py --device=$(DEVICE) \
	--benchmark-columns=median,iqr,rounds --benchmark-sort=name --benchmark-json=outputs/bench-$(DEVICE).json $(ARGS)

mlflow: $(READY)    ## the dashboard of outputs/ on http://127.0.0.1:5000
	@mkdir -p outputs
	$(BIN)/genpolicy mode=sync
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
	$(BIN)/mlflow server --backend-store-uri sqlite:///$(CURDIR)/outputs/mlflow.db --host 127.0.0.1 --workers 1 $(ARGS)

clean:    ## remove the environment and caches, never outputs/
	rm -rf $(VENV) build dist .coverage .pytest_cache .ruff_cache .hypothesis
	find genpolicy launch tests -name __pycache__ -prune -exec rm -rf {} +

# d4rl and rliable are for the tests only, which compare with them. What d4rl asks for (gym, mujoco_py) does not install on
# today's Python; what rliable's bootstrap asks for (arch) does not import beside pandas 3.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("genpolicy needs Python 3.11 or later; set PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --upgrade pip    # an old one takes a minute more to find out what is needed
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --no-deps d4rl rliable
	@touch $(READY)

# What the speeds are compared with; apart, since it asks for an older gymnasium, which these updates do not use.
$(PEERS): $(READY)
	$(BIN)/pip install --quiet --no-compile --no-deps --target $(PEERS) \
	d3rlpy==2.8.1 structlog colorama dataclasses-json marshmallow typing-inspect mypy-extensions gym==0.26.2 gym-notices

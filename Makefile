# What a newcomer types. Everything these targets make, `make clean` removes.
.PHONY: help demo test lint unit conformance integration e2e soak docs wheel clean

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

help:
	@echo 'make demo         a swarm of three machines on this one, with a load-balanced web site on it'
	@echo 'make test         lint, types, and all tests (the last on a swarm that they make and remove)'
	@echo 'make lint | unit | conformance | integration | e2e   parts of it'
	@echo 'make soak         what is too long for make test'
	@echo 'make docs         write the pages of docs/ that are made from the code'
	@echo 'make wheel        build the package into dist/'
	@echo 'make clean        remove everything that these made'

demo:
	@scripts/ensure-venv.sh
	@scripts/ensure-engine.sh
	@$(BIN)/python scripts/demo.py

# The end-to-end tests say for themselves where Docker or Vagrant is missing, and why.
test: lint
	@scripts/ensure-engine.sh || test -z "$$SWARMKIT_REQUIRE_E2E"
	@scripts/ensure-vagrant.sh || test -z "$$SWARMKIT_REQUIRE_E2E"
	@scripts/ensure-docker-client.sh >/dev/null || test -z "$$SWARMKIT_REQUIRE_E2E"
	$(PYTEST) -m 'not soak' tests/unit tests/conformance tests/integration tests/e2e

lint:
	@scripts/ensure-venv.sh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit:
	@scripts/ensure-venv.sh
	$(PYTEST) tests/unit

# How many Compose files swarmkit turns into the very requests that docker stack deploy sends.
conformance:
	@scripts/ensure-venv.sh
	$(BIN)/python -m tests.conformance

integration e2e:
	@scripts/ensure-venv.sh
	@scripts/ensure-engine.sh
	$(PYTEST) tests/$@

soak:
	@scripts/ensure-venv.sh
	@scripts/ensure-engine.sh
	$(BIN)/python -m tests.conformance 4000
	SWARMKIT_REQUIRE_E2E=1 $(PYTEST) tests -m soak

# The pages of docs/ that are made from the code.
docs:
	@scripts/ensure-venv.sh
	PYTHONPATH=. $(BIN)/python scripts/compose-support.py

wheel:
	@scripts/ensure-venv.sh
	$(BIN)/python -m build --wheel

clean:
	@scripts/clean.sh

# Two commands for a newcomer: `make demo` (a phantom CT through the real service, minutes on a fresh machine) and
# `make test` (everything). Needs Python 3.11 or newer and make; all else goes into $(VENV).

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
TORCH ?= cpu
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header $(UPGRADE)

.PHONY: help demo test check format bench hostile fuzz soak sbom lock image-check venv venv-dev clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: venv ## phantom CT -> service -> upload -> JSON, compared with the phantom's truth
	$(BIN)/lungnodule demo

test: venv-dev ## every test, in parallel
	$(BIN)/python -m pytest -n auto

check: venv-dev ## formatting, lint, types, the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv-dev ## rewrite what `make check` would refuse about the form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: venv-dev ## speed and memory beside the alternatives, some 12 minutes; docs/performance.md has its tables
	$(BIN)/python -m tests.benchmarks --with-monai --json build/benchmark.json

hostile: venv-dev ## the table of hostile inputs and faults, into docs/hostile-input.md
	$(BIN)/python -m tests.hostile --docs docs/hostile-input.md

fuzz: venv-dev ## an hour of mutated input to every parser
	$(BIN)/python -m tests.hostile.fuzz --minutes 60

soak: venv-dev ## two hours of good and hostile traffic with random kills
	$(BIN)/python -m tests.benchmarks.soak --hours 2 --json build/soak.json

image-check: ## build the image from a debootstrapped base and try it (root; Debian's buildah and debootstrap)
	deploy/image_check.sh

sbom: venv-dev ## what the service is made of: build/sbom.cdx.json (CycloneDX) and build/licences.md
	TOOLS=$(BIN) deploy/sbom.sh

lock: venv-dev ## resolve requirements/*.lock anew; UPGRADE=--upgrade moves to the newest versions
	$(LOCK) pyproject.toml requirements/build.in -c requirements/constraints.in -o requirements/service.lock
	$(LOCK) pyproject.toml requirements/build.in --extra cuda -c requirements/service.lock -o requirements/cuda.lock
	$(LOCK) pyproject.toml requirements/build.in --extra dev --extra s3 --extra otel -c requirements/service.lock -o requirements/dev.lock
	$(LOCK) pyproject.toml requirements/build.in --extra dev --extra s3 --extra otel --extra training -c requirements/dev.lock \
		--no-emit-package torch -o requirements/training.lock

venv: $(VENV)/.service ## the service alone, from its lock
venv-dev: $(VENV)/.training ## the same with what tests, checks and training need; TORCH=cuda for a GPU

clean: ## remove the virtual environment and what tools left behind
	rm -rf $(VENV) build dist demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found; on Debian or Ubuntu: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make a virtual environment. On Debian or Ubuntu, as root: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.service: requirements/service.lock pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --no-deps --require-hashes -r requirements/service.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.training: requirements/training.lock requirements/install_torch.sh $(VENV)/.service
	$(PIP_INSTALL) --no-deps --require-hashes -r requirements/training.lock
	requirements/install_torch.sh $(BIN)/python $(TORCH)
	@touch $@

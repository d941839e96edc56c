# Everything a developer types. The work is in scripts/; caches lie outside the checkout (STRATA_CACHE).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(STRATA_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/strata)
export CARGO_TARGET_DIR ?= $(CACHE)/target
PYTHON ?= python3
TEST_PYTHON = $$($(PYTHON) scripts/environment.py scripts/test.txt)

.PHONY: help check fix test

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

check: ## format, lints, types; no test is run
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	python=$(TEST_PYTHON); $$python -m ruff check .; $$python -m ruff format --check .

fix: ## what check can mend by itself
	cargo fmt --all
	python=$(TEST_PYTHON); $$python -m ruff check --fix .; $$python -m ruff format .

# tests/cluster drives the executable, tests/torch needs torch: they join `make test` with `make build`.
test: ## everything that runs without the executable
	@echo "needs: Rust, Python 3.11 with venv; 3 GB of disk; 10 minutes the first time, 2 afterwards"
	cargo test
	python=$(TEST_PYTHON); PYTHONPATH=pylib/python $$python -m pytest tests --ignore tests/cluster --ignore tests/torch

# Everything a developer types. The work is in scripts/; caches lie outside the checkout (STRATA_CACHE).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(STRATA_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/strata)
export CARGO_TARGET_DIR ?= $(CACHE)/target
PYTHON ?= python3
TEST_PYTHON = $$($(PYTHON) scripts/environment.py scripts/test.txt)
TORCH_PYTHON = $$($(PYTHON) scripts/environment.py scripts/torch.txt)
LOADERS = --corpus $(CACHE)/corpus --peers $$($(PYTHON) scripts/environment.py benches/peers/data/peers.txt --no-deps)

.PHONY: help build demo check lint fix test torture bench bench-coordinator bench-set bench-ranks bench-durable bench-objects bench-restore bench-peers bench-training bench-deaths bench-lives bench-data bench-resume bench-billion bench-chaos bench-shuffle stubs

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

build: ## dist/strata, the executable (REFRESH=1 takes Debian's newest Python again)
	@$(if $(REFRESH),STRATA_REFRESH=1) $(PYTHON) scripts/build.py

demo: ## a training job loses a process and ends as if it hadn't (PYTHON=… has torch; else it is installed into the cache)
	@$(PYTHON) scripts/demo.py

check: lint ## format, lints, types, and the tests that need only the toolchains
	cargo test
	python=$(TEST_PYTHON); $$python -m pytest tests --ignore tests/cluster --ignore tests/torch

lint: ## format, lints, types, and whether generated code is what its source says
	cargo fmt --all --check
	@$(PYTHON) scripts/cargo_target.py
	cargo clippy --workspace --exclude strata-embed --all-targets -- -D warnings
	@if [ -e dist/strata ] || [ -n "$${CI:-}" ]; then $(PYTHON) scripts/build.py --lint; else echo 'embed/: left out until make build has run'; fi
	python=$(TEST_PYTHON); $$python -m ruff check .; $$python -m ruff format --check .; $$python -m mypy
	$(PYTHON) scripts/stubs.py --check

fix: ## what check can mend by itself
	cargo fmt --all
	python=$(TEST_PYTHON); $$python -m ruff check --fix .; $$python -m ruff format .

test: ## everything; says first what it needs (PYTEST='-k crash' passes words on to pytest)
	@$(PYTHON) scripts/test.py

torture: ## the fault tests in their full numbers, about two hours; writes docs/results/torture.md (TORTURE='--moments 100')
	@$(PYTHON) scripts/torture.py $(TORTURE)

bench: ## coordinator, checkpoint and data figures (criterion), next to what the machine allows
	@$(PYTHON) scripts/cargo_target.py
	cargo bench

bench-coordinator: ## calls, barriers and beats beside empty calls, etcd, torchft and TCPStore (BENCH='--only heartbeat --json FILE')
	@$(PYTHON) scripts/cargo_target.py
	etcd=$$($(PYTHON) scripts/unpacked.py benches/peers/etcd.txt)/root/usr/bin/etcd; \
	torchft=$$($(PYTHON) scripts/environment.py benches/peers/lighthouse.txt --no-deps); \
	torch=$$($(PYTHON) scripts/environment.py scripts/torch.txt); \
	cargo bench --bench coordinator -- --etcd $$etcd --torchft $$torchft --tcpstore $$torch $(BENCH)

bench-set: ## what three coordinators cost beside one alone, and how soon another leads (BENCH='--turns 3 --kills 30')
	@$(PYTHON) scripts/cargo_target.py
	cargo bench --bench set -- $(BENCH)

bench-ranks: ## a coordinator with 100,000 ranks, and torchft and TCPStore beside it as far as they go (BENCH='--turns 1')
	@$(PYTHON) scripts/cargo_target.py
	torchft=$$($(PYTHON) scripts/environment.py benches/peers/lighthouse.txt --no-deps); \
	torch=$$($(PYTHON) scripts/environment.py scripts/torch.txt); \
	cargo bench --bench ranks -- --torchft $$torchft --tcpstore $$torch $(BENCH)

bench-durable: ## how much of the disk's own rate (fio) reaches a committed step; TMPDIR is on the disk (BENCH='--rounds 15')
	@$(PYTHON) scripts/debian.py benches/peers/debian.txt
	@$(PYTHON) scripts/cargo_target.py
	cargo bench --bench durable -- $(BENCH)

bench-objects: ## how much of a tuned client's rate an object store gives us, near and over a long line (BENCH='--rounds 9')
	@$(PYTHON) scripts/cargo_target.py
	STRATA_VERSITYGW=$$($(PYTHON) scripts/gotool.py versitygw) cargo bench --bench objects -- $(BENCH)

bench-restore: ## how fast a state is back, from the node's memory and from the disk, beside CRC32C, fio and dcp.load (BENCH='--rounds 15')
	@$(PYTHON) scripts/debian.py benches/peers/debian.txt
	@$(PYTHON) scripts/cargo_target.py
	cargo bench --bench restore -- --python $$($(PYTHON) scripts/environment.py scripts/torch.txt) $(BENCH)

bench-peers: build ## Strata and what a user would pick instead save and restore the same 1 GB (BENCH='--turns 5')
	@$(PYTHON) scripts/debian.py benches/peers/debian.txt
	@$(PYTHON) benches/peers/run.py --python $$($(PYTHON) scripts/environment.py scripts/torch.txt) $(BENCH)

bench-training: build ## what saving costs a training loop, with Strata and with what a user would pick instead (BENCH='--turns 1')
	@$(PYTHON) benches/peers/training.py --python $$($(PYTHON) scripts/environment.py scripts/torch.txt) $(BENCH)

bench-deaths: build ## how soon survivors know of a killed rank, with Strata and under torchrun (BENCH='--rounds 100')
	@$(PYTHON) benches/peers/deaths.py --python $$($(PYTHON) scripts/environment.py scripts/torch.txt) $(BENCH)

bench-lives: build ## what a job loses of which a rank is killed every minute, with Strata and under torchrun with torch DCP (BENCH='--kills 20')
	@$(PYTHON) benches/peers/lives.py --python $$($(PYTHON) scripts/environment.py scripts/torch.txt) $(BENCH)

bench-data: build ## samples a second of Strata and of other loaders from the same local files (BENCH='--turns 1 --only litdata strata')
	@$(TORCH_PYTHON) benches/peers/data/speed.py $(LOADERS) $(BENCH)

bench-resume: build ## how soon Strata and other loaders go on at the half of an epoch (BENCH='--turns 5')
	@$(TORCH_PYTHON) benches/peers/data/resume.py $(LOADERS) $(BENCH)

bench-billion: build ## how soon a fresh process goes on at the half of 10^9 samples (BENCH='--turns 21')
	@$(TORCH_PYTHON) benches/peers/data/billion.py --peers $$($(PYTHON) scripts/environment.py benches/peers/data/peers.txt --no-deps) $(BENCH)

bench-chaos: build ## samples that Strata and other loaders lose and double through kills and resizes (BENCH='--seed 7 --kills 20')
	@$(TORCH_PYTHON) benches/peers/data/chaos.py $(LOADERS) $(BENCH)

bench-shuffle: build ## how well the order mixes samples, and the shards it holds open, beside MosaicML's shuffles (BENCH='--seed 8')
	@$(TORCH_PYTHON) benches/peers/data/quality.py $(LOADERS) $(BENCH)

stubs: ## the Python stubs of the gRPC services, after a change in proto/
	@$(PYTHON) scripts/stubs.py

# The commands for people. Each one installs what it needs: see scripts/provision.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# On a fresh machine, rustup's folder may not be on the PATH.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# Arguments for the demo, for instance DEMO_ARGS=--keep or DEMO_ARGS=--pg=19
DEMO_ARGS ?=
# Arguments for the benchmark, for instance BENCH_ARGS="--quick --only wal"
BENCH_ARGS ?=
# Further arguments for the test runner, for instance TEST_ARGS="-E 'package(holdfast-store)'"
TEST_ARGS ?=

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-9s %s\n' "$$name" "$$text"; done

.PHONY: build
build: ## Build a development version
	@scripts/provision --build
	cargo build --locked --workspace --bins

.PHONY: release
release: ## Build the release version, target/release/holdfast
	@scripts/provision --build
	cargo build --locked --release -p holdfast-cli

.PHONY: demo
demo: ## Back up, break and restore a PostgreSQL, with comments; DEMO_ARGS=--keep leaves it running, --pg=19 takes that PostgreSQL
	@echo "demo: installs PostgreSQL and builds Holdfast first: about 10 minutes on 2 cores, seconds if both are there; then 2 minutes"
	@DEMO_ARGS="$(DEMO_ARGS)" scripts/provision --demo
	@cargo build --locked --workspace --bins
	@$${CARGO_TARGET_DIR:-target}/debug/holdfast-demo $(DEMO_ARGS)

.PHONY: test
test: ## Check everything: lints, every tier of tests, the documents, the independent reader
	@scripts/test all

.PHONY: quick
quick: ## Run the tests alone, without lints and documents; TEST_ARGS goes to the test runner
	@scripts/test tests $(TEST_ARGS)

.PHONY: lint
lint: ## Check format, lints and dependencies
	@scripts/test lint

.PHONY: kube-up
kube-up: ## Start a real Kubernetes with two nodes and the operator on this machine (root, Debian 12)
	@scripts/provision --kube
	@cargo build --locked -p holdfast-cli -p holdfast-testkit --bins
	@$${CARGO_TARGET_DIR:-target}/debug/holdfast-kube up
	@$${CARGO_TARGET_DIR:-target}/debug/holdfast-kube kubectl apply --server-side --force-conflicts -f deploy/crds -f deploy/operator.yaml
	@echo "next: eval \"\$$($${CARGO_TARGET_DIR:-target}/debug/holdfast-kube env)\" && kubectl apply -f deploy/examples/   (see docs/kubernetes.md)"

.PHONY: kube-down
kube-down: ## Stop that Kubernetes and put the machine back as it was
	@cargo run --quiet --locked -p holdfast-testkit --bin holdfast-kube -- down

.PHONY: test-kube
test-kube: ## Run the tests in that Kubernetes, or in the cluster of KUBECONFIG; HOLDFAST_KUBE_KEEP=1 leaves it running
	@scripts/test kubernetes $(TEST_ARGS)

.PHONY: measure-kube
measure-kube: ## Measure failovers, backups and recoveries on that Kubernetes, beside their goals
	@HOLDFAST_FAILOVERS=10 HOLDFAST_BULK_ROWS=3300000 scripts/test kubernetes -E 'test(/^measures::/)'

.PHONY: bench
bench: ## Measure Holdfast beside pgBackRest, Barman and pg_basebackup; BENCH_ARGS=--quick takes five minutes, --list
ifeq (,$(filter --list --help,$(BENCH_ARGS)))
	@BENCH_ARGS="$(BENCH_ARGS)" scripts/provision --bench
	@cargo build --locked --release -p holdfast-cli -p holdfast-testkit --bins
endif
	@/usr/bin/env python3 benches/compare $(BENCH_ARGS)

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: doc
doc: ## Build the API documents, target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

.PHONY: clean
clean: ## Remove what was built; the cache of servers outside the checkout stays
	cargo clean

.PHONY: crds
crds: ## Write deploy/crds again, from the types in crates/kube-api
	@cargo run --quiet --locked -p holdfast-kube-api --example crds -- deploy/crds

# The name of the image from `make image`.
IMAGE ?= ghcr.io/holdfast/holdfast:0.1.0

.PHONY: image
image: ## Make the container image, with podman or docker; IMAGE=... names it
	@builder=$$(command -v podman || command -v docker) || { echo "image: neither podman nor docker is on the PATH" >&2; exit 1; }; \
	"$$builder" build --file Containerfile --tag "$(IMAGE)" .

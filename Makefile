# The commands of the project; `make` lists them.
#
# First runs are long because everything is compiled from source once: Kubernetes (about 8 minutes on 2 cores, less
# without a node; kept in ~/.cache/arbbot for every clone) and this workspace (about 6 minutes).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# The target is named in .cargo/config.toml, so programs are in a directory of its name.
HOST := $(shell rustc --version --verbose | sed -n 's/^host: //p')
DEBUG := target/$(HOST)/debug
RELEASE := target/$(HOST)/release

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
ifdef FAST
demo: tools-api build ## Watch a kill on a real Kubernetes; with FAST=1 without node, images and root
	@$(DEBUG)/demo up --fast
else
demo: tools build
	@$(DEBUG)/demo up
endif

.PHONY: demo-down
demo-down: ## End what `make demo` left running
	@if [ -x $(DEBUG)/demo ]; then $(DEBUG)/demo down; else echo "No demo was ever built here."; fi

.PHONY: test
test: tools ## Format, lint and test everything
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) build --workspace --bins
	tests/run

.PHONY: test-sdk
test-sdk: build ## Run Coinbase's official Python SDK against the simulator
	@tests/sdk/run $(DEBUG)/exchange-simulator

.PHONY: bench-kill
bench-kill: tools-api ## Measure how fast a patch stops a bot: one line of JSON on standard output
	@$(CARGO) build --release --workspace --bins >&2
	@$(RELEASE)/bench-kill

.PHONY: bench-operator
bench-operator: tools-api ## Measure what one operator costs with BOTS=10000 bots: one line of JSON on standard output
	@$(CARGO) build --release --workspace --bins >&2
	@$(RELEASE)/bench-operator $(if $(BOTS),--bots $(BOTS))

.PHONY: bench-exchange
bench-exchange: ## Measure the simulator with a million order events: one line of JSON on standard output
	@$(CARGO) bench --quiet --package exchange-simulator --bench exchange

.PHONY: bench-bot
bench-bot: ## Measure a decision, a durable order and a backtest: one line of JSON on standard output
	@$(CARGO) bench --quiet --package arb-bot --bench bot

.PHONY: soak
soak: ## Simulate DAYS=30 of bot and exchange under the faults of SEED=1: one line of JSON on standard output, and a report
	@SEED=$(or $(SEED),1) DAYS=$(or $(DAYS),30) $(CARGO) test --quiet --profile soak --package arb-bot --test lockstep -- \
		--ignored --exact soak::days_under_faults_end_with_the_same_books_on_both_sides_and_no_wrong_order --nocapture | grep '^{'

.PHONY: build
build: ## Compile the programs
	@echo "Compiling the workspace (about 6 minutes the first time, then seconds)" >&2
	@$(CARGO) build --workspace --bins

.PHONY: images
images: build ## Write the container images to target/images
	@$(DEBUG)/demo images

.PHONY: manifests
manifests: tools-chart ## Generate CustomResourceDefinitions, docs/conditions.md and, from the chart, manifests/
	$(CARGO) run --quiet --package arbbot-crds --bin crdgen -- .
	cp crds/*.yaml charts/arbbot-operator/files/crds/
	manifests/generate

.PHONY: lint
lint: tools-chart ## Check format, code and chart
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --package arbbot-tests --test chart

.PHONY: tools
tools: ## Build the pinned Kubernetes and install what a node needs (apt, root)
	@$(MAKE) --no-print-directory -C tests/tools all

.PHONY: tools-api
tools-api: ## Build only etcd, the API server, the controller manager and kubectl
	@$(MAKE) --no-print-directory -C tests/tools api

.PHONY: tools-chart
tools-chart: ## Build only Helm
	@$(MAKE) --no-print-directory -C tests/tools chart

.PHONY: clean
clean: demo-down ## Remove what was built here; the tools in ~/.cache/arbbot stay
	$(CARGO) clean

# `make demo` and `make test` do all they need: set-up, build, run. `make help` lists the rest.
# ARGS reaches the command: make demo ARGS="--seed 7 --workers 3"

PODIUM := $(or $(CARGO_TARGET_DIR),target)/release/podium
LEARNER_SFT := $(dir $(PODIUM))podium-learner sft --run-file deploy/configs/embedded-sft.toml --device cpu
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint format docs check-config bench embedded-start configuration ci clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## libtorch in .venv and all crates; quick once done
	@deploy/setup/setup.sh

build: setup ## the service binaries and podium, in target/release
	cargo build --release --workspace --bins

demo: build ## train on the embedded data set, about 5 minutes
	$(PODIUM) demo $(ARGS)

test: build ## all tests; needs no network once set up
	cargo test --release --workspace $(ARGS)

lint: setup ## formatting and clippy
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings

format: ## format all code
	cargo fmt --all

docs: setup ## the crates' documentation, in target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

check-config: build ## every run file in deploy/configs
	$(PODIUM) check-config deploy/configs/*.toml

bench: setup ## speed of sampling, scoring and training on this machine
	cargo run --release -p podium-model --example bench -- $(ARGS)

embedded-start: build ## the policy that the demo starts from, anew in runs/start; 25 minutes
	$(LEARNER_SFT) --model-config deploy/launcher/embedded/config.json --init-seed 1 --out runs/start-first-stage
	$(LEARNER_SFT) --model runs/start-first-stage --out runs/start --set run.seed=1 \
		--set sft.steps=2000 --set sft.full_ranking_steps=0 --set sft.learning_rate=1.5e-3
	@sha256sum runs/start/model.safetensors deploy/launcher/embedded/start/model.safetensors

configuration: setup ## docs/configuration.md anew, from the code
	cargo run --release -p podium-config --example reference > docs/configuration.md

ci: ## everything that is checked before a change lands
	.ci/run

clean: ## what cargo built; keeps .venv and runs
	cargo clean

distclean: clean ## .venv as well; keeps runs
	rm -rf .venv

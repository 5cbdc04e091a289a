# `make demo` and `make test` do all they need: set-up, build, run. `make help` lists the rest.
# ARGS reaches the command: make demo ARGS="--seed 7 --workers 3"

PODIUM := $(or $(CARGO_TARGET_DIR),target)/release/podium
LEARNER_SFT := $(dir $(PODIUM))podium-learner sft --run-file deploy/configs/embedded-sft.toml --device cpu
SHARED := $(or $(PODIUM_SHARED),../shared)
MOVIELENS ?= data/ml-100k
SMOLLM2 ?= runs/smollm2
RUN ?= runs/demo-0
CHROMIUM ?= chromium
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup build demo movielens test parity thinking gpu prometheus namespaces slurm fuzz lint format docs book check-config benchmark \
	embedded-start configuration commands dashboards picture oracle fixtures ci clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## libtorch in .venv and all crates; quick once done
	@deploy/setup/setup.sh

build: setup ## the service binaries and podium, in target/release
	cargo build --release --workspace --bins

demo: build ## train on the embedded data set, about 5 minutes
	$(PODIUM) demo $(ARGS)

movielens: build ## MovieLens-100K from its raw files in MOVIELENS=DIR to an evaluated policy, about 20 minutes
	deploy/reproduce/movielens-100k.sh $(MOVIELENS)

test: build ## all tests; needs no network once set up
	cargo test --release --workspace $(ARGS)

parity: oracle build ## compare with Transformers, PEFT and TRL, and with figures on MovieLens; needs $PODIUM_SHARED or ../shared
	cargo test --release --workspace --features podium-tests/parity --test parity --test movielens $(ARGS) -- --nocapture --skip smollm2

thinking: oracle build ## SmolLM2-135M with templates that open and close the think block, minutes on two cores; needs $PODIUM_SHARED or ../shared
	bash $(SHARED)/smollm2/make.sh $(SMOLLM2) .venv-oracle/bin/python
	PODIUM_SMOLLM2=$(abspath $(SMOLLM2)) cargo test --release --workspace --features podium-tests/parity --test parity smollm2 $(ARGS) -- --nocapture

gpu: build ## what needs a GPU; fails where there is none
	cargo test --release -p podium-tests --features gpu --test gpu $(ARGS)

prometheus: build ## the shipped rules and configuration against real runs; needs prometheus and promtool
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || { \
		echo "prometheus and promtool are needed: on Debian apt-get install prometheus, elsewhere https://prometheus.io/download" >&2; \
		exit 1; }
	cargo test --release --workspace --features podium-tests/prometheus --test prometheus $(ARGS) -- --nocapture --test-threads 1

namespaces: build ## a run over network namespaces as hosts; needs root
	cargo test --release --workspace --features podium-tests/namespaces --test namespaces $(ARGS)

slurm: build ## runs on a Slurm cluster that the test starts on this machine; needs root, slurm-wlm, munge
	cargo test --release --workspace --features podium-tests/slurm --test slurm $(ARGS)

fuzz: ## hostile model files and completions against their readers, two minutes; ARGS: seconds a target, targets
	fuzz/run.sh $(ARGS)

lint: setup ## formatting and clippy
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --features podium-tests/parity,podium-tests/gpu,podium-tests/prometheus,podium-tests/namespaces,podium-tests/slurm -- -D warnings

format: ## format all code
	cargo fmt --all

docs: setup ## the crates' documentation, in target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

book: ## the book of docs/, in target/book; needs mdbook (cargo install mdbook --locked --version 0.4.52)
	@command -v mdbook >/dev/null || { echo "mdbook is missing: cargo install mdbook --locked --version 0.4.52" >&2; exit 1; }
	mdbook build docs

check-config: build ## every run file in deploy
	$(PODIUM) check-config deploy/configs/*.toml deploy/kubernetes/*/run.toml

benchmark: oracle build ## speed, memory and log-probabilities beside Transformers and TRL: docs/design/benchmarks.md
	.venv-oracle/bin/python deploy/benchmark/benchmark.py $(ARGS)

embedded-start: build ## the policy that the demo starts from, anew in runs/start; 25 minutes
	$(LEARNER_SFT) --model-config launcher/embedded/config.json --init-seed 1 --out runs/start-first-stage
	$(LEARNER_SFT) --model runs/start-first-stage --out runs/start --set run.seed=1 \
		--set sft.steps=2000 --set sft.full_ranking_steps=0 --set sft.learning_rate=1.5e-3
	@sha256sum runs/start/model.safetensors launcher/embedded/start/model.safetensors

dashboards: setup ## deploy/grafana/dashboards anew, from the code
	cargo run --release -p podium-dashboards --example write

configuration: setup ## docs/reference/configuration.md anew, from the code
	cargo run --release -p podium-config --example reference > docs/reference/configuration.md

commands: build ## docs/reference/commands.md anew, from the programs' --help
	cargo run --release -p podium-tests --example commands > docs/reference/commands.md

picture: ## docs/images/report.png anew, from the report of RUN=DIR (runs/demo-0); needs chromium
	@test -f $(RUN)/report.html || { echo "$(RUN)/report.html is missing: run make demo, or set RUN=DIR" >&2; exit 1; }
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1100,1340 \
		--screenshot=$(abspath docs/images/report.png) file://$(abspath $(RUN)/report.html)
	@test $$(stat --format %s docs/images/report.png) -lt 307200 || { echo "docs/images/report.png exceeds 300 KB" >&2; exit 1; }

oracle: ## Transformers, PEFT and TRL in .venv-oracle, 5 GB; quick once done
	@deploy/setup/oracle.sh

fixtures: oracle ## the stored reference numbers anew, from Transformers and PEFT
	.venv-oracle/bin/python tests/parity/make_fixtures.py --oracle $(SHARED)/oracle --out common/model/tests/fixtures

ci: ## everything that is checked before a change lands
	.ci/run

clean: ## what cargo built; keeps .venv and runs
	cargo clean

distclean: clean ## .venv and the like as well; keeps runs
	rm -rf .venv .venv-oracle .venv-kubernetes

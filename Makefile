# `make demo` and `make test` include set-up and build. `make help` lists all targets.
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
.PHONY: help setup build demo movielens smollm2 test parity thinking gpu cuda-libraries prometheus namespaces large-versions slurm fuzz lint format docs book check-config benchmark \
	embedded-start configuration commands dashboards picture oracle fixtures ci clean distclean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install libtorch in .venv and download all crates; fast when up to date
	@deploy/setup/setup.sh

build: setup ## build the service binaries and podium in target/release
	cargo build --release --workspace --bins

demo: build ## train on the embedded data set, about 5 minutes
	$(PODIUM) demo $(ARGS)

movielens: build ## train and evaluate on MovieLens-100K from its raw files in MOVIELENS=DIR, about 20 minutes
	deploy/reproduce/movielens-100k.sh $(MOVIELENS)

smollm2: build ## fine-tune and train SmolLM2-135M-Instruct in SMOLLM2=DIR on MovieLens-100K in MOVIELENS=DIR; ARGS=first-look: few steps
	deploy/reproduce/smollm2.sh $(MOVIELENS) $(SMOLLM2) $(ARGS)

test: build ## run all tests; needs no network after set-up
	cargo test --release --workspace $(ARGS)

parity: oracle build ## compare with Transformers, PEFT and TRL, and with results on MovieLens; needs $PODIUM_SHARED or ../shared
	cargo test --release --workspace --features podium-tests/parity --test parity --test movielens $(ARGS) -- --nocapture --skip smollm2

thinking: oracle build ## test SmolLM2-135M with templates that open and close the think block, minutes on two cores; needs $PODIUM_SHARED or ../shared
	bash $(SHARED)/smollm2/make.sh $(SMOLLM2) .venv-oracle/bin/python
	PODIUM_SMOLLM2=$(abspath $(SMOLLM2)) cargo test --release --workspace --features podium-tests/parity --test parity smollm2 $(ARGS) -- --nocapture

gpu: build ## run the tests that require a GPU
	cargo test --release -p podium-tests --features gpu --test gpu $(ARGS)

cuda-libraries: ## install PyTorch's CUDA libraries and test on a machine without a driver that they load; 2.7 GB to download
	PODIUM_CUDA=1 deploy/setup/setup.sh
	cargo test --release --workspace --features podium-learner/cuda-libraries --test cuda_libraries $(ARGS)

prometheus: build ## test the Prometheus rules and configuration with real runs; needs prometheus and promtool
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || { \
		echo "prometheus and promtool are needed: on Debian apt-get install prometheus, elsewhere https://prometheus.io/download" >&2; \
		exit 1; }
	cargo test --release --workspace --features podium-tests/prometheus --test prometheus $(ARGS) -- --nocapture --test-threads 1

namespaces: build ## test a run over network namespaces as hosts; needs root
	cargo test --release --workspace --features podium-tests/namespaces --test namespaces $(ARGS)

large-versions: build ## publish and download a policy version of 8 GB over a slow link that breaks; 20 GB of disk, 6 to 15 minutes
	PODIUM_LARGE_VERSION_MB=8192 cargo test --release --workspace --test runs large_versions $(ARGS) -- --nocapture

slurm: build ## test runs on a Slurm cluster that the test starts on this machine; needs root, slurm-wlm, munge
	cargo test --release --workspace --features podium-tests/slurm --test slurm $(ARGS)

fuzz: ## fuzz the parsers of model files and completions, two minutes; ARGS: seconds per target, targets
	fuzz/run.sh $(ARGS)

lint: setup ## check formatting and clippy
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --features podium-learner/cuda-libraries,podium-tests/parity,podium-tests/gpu,podium-tests/prometheus,podium-tests/namespaces,podium-tests/slurm -- -D warnings

format: ## format all code
	cargo fmt --all

docs: setup ## build the crates' documentation in target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

book: ## build the book of docs/ in target/book; needs mdbook (cargo install mdbook --locked --version 0.4.52)
	@command -v mdbook >/dev/null || { echo "mdbook is missing: cargo install mdbook --locked --version 0.4.52" >&2; exit 1; }
	mdbook build docs

check-config: build ## check every run file in deploy
	$(PODIUM) check-config deploy/configs/*.toml deploy/kubernetes/*/run.toml

benchmark: oracle build ## compare speed, memory and log-probabilities with Transformers and TRL: docs/design/benchmarks.md
	.venv-oracle/bin/python deploy/benchmark/benchmark.py $(ARGS)

embedded-start: build ## train the demo's initial policy in runs/start; 25 minutes
	$(LEARNER_SFT) --model-config launcher/embedded/config.json --init-seed 1 --out runs/start-first-stage
	$(LEARNER_SFT) --model runs/start-first-stage --out runs/start --set run.seed=1 \
		--set sft.steps=2000 --set sft.full_ranking_steps=0 --set sft.learning_rate=1.5e-3
	@sha256sum runs/start/model.safetensors launcher/embedded/start/model.safetensors

dashboards: setup ## regenerate deploy/grafana/dashboards from the code
	cargo run --release -p podium-dashboards --example write

configuration: setup ## regenerate docs/reference/configuration.md from the code
	cargo run --release -p podium-config --example reference > docs/reference/configuration.md

commands: build ## regenerate docs/reference/commands.md from the programs' --help
	cargo run --release -p podium-tests --example commands > docs/reference/commands.md

picture: ## regenerate docs/images/report.png from the report of RUN=DIR (runs/demo-0); needs chromium
	@test -f $(RUN)/report.html || { echo "$(RUN)/report.html is missing: run make demo, or set RUN=DIR" >&2; exit 1; }
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1100,1340 \
		--screenshot=$(abspath docs/images/report.png) file://$(abspath $(RUN)/report.html)
	@test $$(stat --format %s docs/images/report.png) -lt 307200 || { echo "docs/images/report.png exceeds 300 KB" >&2; exit 1; }

oracle: ## install Transformers, PEFT and TRL in .venv-oracle, 5 GB; fast when up to date
	@deploy/setup/oracle.sh

fixtures: oracle ## regenerate the stored reference values from Transformers and PEFT
	.venv-oracle/bin/python tests/parity/make_fixtures.py --oracle $(SHARED)/oracle --out common/model/tests/fixtures

ci: ## run all checks that precede a merge
	.ci/run

clean: ## remove cargo's build output; retains .venv and runs
	cargo clean

distclean: clean ## also remove .venv and other environments; retains runs
	rm -rf .venv .venv-oracle .venv-kubernetes

//! Parity with Transformers, PEFT and TRL, which run beside the tests: their checkpoints, adapters and tokenizers in
//! Podium, Podium's results in them, and GRPO updates.
//!
//! `make parity` prepares the requirements: the Python environment `.venv-oracle`, and the folder `shared` beside the
//! repository (or that of `PODIUM_SHARED`) with the reference's scripts, the tokenizer of Qwen3 and test texts.

mod adapters;
mod benchmark;
mod checkpoints;
mod comparison;
mod constraint;
mod grpo;
mod metrics;
mod podium;
mod reference;
mod templates;
mod thinking;
mod tokenizer;
mod updates;

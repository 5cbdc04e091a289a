//! Parity with Transformers, PEFT and TRL, which run beside the tests: checkpoints, adapters and tokenizers that they
//! make, what goes back to them, and updates by GRPO.
//!
//! `make parity` prepares what this needs: the Python environment `.venv-oracle`, and the folder `shared` beside the
//! repository (or where `PODIUM_SHARED` says) with the reference's scripts, the tokenizer of Qwen3 and texts to try it
//! on.

mod adapters;
mod benchmark;
mod checkpoints;
mod comparison;
mod constraint;
mod grpo;
mod podium;
mod reference;
mod templates;
mod thinking;
mod tokenizer;
mod updates;

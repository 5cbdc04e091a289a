//! Podium's rollout worker: samples groups of completions with libtorch and submits them to the coordinator.

// Printing macros panic on a closed output: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod engine;
#[cfg(test)]
mod fake_coordinator;
mod generate;
mod lease;
mod link;
mod metrics;
mod partial;
mod policy_cache;
mod rank_catalogue;
mod sampler;
mod scheduler;
mod session;
mod source;
#[cfg(test)]
mod tiny;
mod work;

pub use generate::Options as GenerateOptions;
pub use metrics::describe as describe_metrics;
pub use rank_catalogue::Options as RankCatalogueOptions;
pub use scheduler::Ending;
pub use work::{Options, run};

/// Samples completions for the rows of a file, without a coordinator.
pub fn generate(options: &GenerateOptions) -> anyhow::Result<()> {
    Ok(generate::run(options)?)
}

/// Ranks the whole catalogue for the held-out users of a run file, without a coordinator.
pub fn rank_catalogue(run: &podium_config::RunFile, options: &RankCatalogueOptions) -> anyhow::Result<()> {
    Ok(rank_catalogue::run(run, options)?)
}

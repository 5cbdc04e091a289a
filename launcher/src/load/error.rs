//! The reasons why a load test could not measure.

use std::path::PathBuf;

use podium_recsys::completion::ThinkingIsOver;
use podium_service::startup;
use podium_transfer::{connection, manifest};

use crate::{processes, run_folder};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Process(#[from] processes::Error),
    #[error(transparent)]
    Folder(#[from] run_folder::Error),
    #[error(transparent)]
    Runtime(#[from] startup::Error),
    #[error(
        "{workers} simulated workers require {needed} open files in each process, and the limit is {limit}: raise it \
         (ulimit -Hn), or simulate fewer workers with --workers"
    )]
    OpenFiles { workers: u32, needed: u64, limit: u64 },
    #[error("the coordinator did not serve within {seconds} s; its log is {}", log.display())]
    NotServing { seconds: u64, log: PathBuf },
    #[error("the coordinator exited during the load test; its log is {}", log.display())]
    Exited { log: PathBuf },
    #[error("a simulated {peer} failed")]
    Peer { peer: &'static str, source: Box<PeerError> },
    #[error("not all simulated workers registered within {seconds} s: {registered} of {workers} did")]
    NotRegistered { registered: u32, workers: u32, seconds: u64 },
    #[error("the run ended during the load test ({reason}): raise run.steps")]
    RunOver { reason: String },
    #[error("cannot read {}", path.display())]
    Usage { path: PathBuf, source: std::io::Error },
    #[error("cannot use the policy to start from")]
    Policy(#[from] manifest::Error),
    #[error("cannot read the tokenizer of the policy to start from")]
    Tokenizer(#[from] podium_tokenizer::Error),
}

/// The reasons why a simulated worker or rank failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error(transparent)]
    Connection(#[from] connection::Error),
    #[error("cannot render a prompt")]
    Prompt(#[from] podium_tokenizer::Error),
    #[error(transparent)]
    Thinking(#[from] ThinkingIsOver),
    #[error("the coordinator sent {found} instead of {expected}")]
    Unexpected { found: String, expected: &'static str },
}

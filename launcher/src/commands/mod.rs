//! One module for each command.

mod bench;
mod check_config;
mod demo;
mod drop_version;
mod evaluate;
mod report;
mod run;
mod stages;
mod start;
mod status;
mod train;

pub(crate) use bench::bench;
pub(crate) use check_config::check_config;
pub(crate) use demo::demo;
pub(crate) use drop_version::drop_version;
pub(crate) use evaluate::evaluate;
pub(crate) use report::report;
pub(crate) use status::status;
pub(crate) use train::train;

use std::path::PathBuf;
use std::process::ExitCode;

use podium_service::shutdown;

use crate::{conductor, devices, load, processes, run_folder, services, status_stream};

/// Exit code of a command that a signal or a drain ended before the end of the run: the same command resumes it.
const STOPPED: u8 = shutdown::STOPPED;
/// Exit code if the coordinator does not answer: `EX_UNAVAILABLE` of sysexits.h.
const UNAVAILABLE: u8 = 69;

/// The errors of commands.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Checksums(#[from] podium_evaluation::checksums::Error),
    #[error(transparent)]
    RunFile(#[from] podium_config::Error),
    #[error(transparent)]
    Folder(#[from] run_folder::Error),
    #[error(transparent)]
    Programs(#[from] services::Error),
    #[error(transparent)]
    Devices(#[from] devices::Error),
    #[error(transparent)]
    Conduct(#[from] conductor::Error),
    #[error(transparent)]
    Process(#[from] processes::Error),
    #[error(transparent)]
    Load(#[from] load::Error),
    #[error(transparent)]
    Results(#[from] podium_evaluation::results::Error),
    #[error(transparent)]
    Report(#[from] crate::report::Error),
    #[error(transparent)]
    Status(#[from] status_stream::Error),
    #[error(transparent)]
    Evaluation(#[from] podium_evaluation::Error),
    #[error(transparent)]
    Write(#[from] podium_files::durable::Error),
    #[error("cannot start {}", program.display())]
    Start { program: PathBuf, source: std::io::Error },
    #[error("cannot handle signals")]
    Signals(#[source] std::io::Error),
    #[error("cannot read {what} {}", path.display())]
    Read { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "model.path is not set, and the embedded initial policy only supports the embedded data set: \
         set model.path in the run file or with --set model.path=DIR (relative to the run file's folder)"
    )]
    NoStart,
    #[error("podium-learner {stage} failed with {how}; see its messages above")]
    Stage { stage: String, how: String },
    #[error("podium-rollout-worker rank-catalogue failed with {how}; see its messages above")]
    Ranking { how: String },
    #[error(
        "--protocol and --negatives require --rankings generated or likelihood: the whole catalogue has no sampled lists"
    )]
    NoSampledLists,
    #[error(
        "{} was created from other files than the present ones ({}): choose another folder with --out, or remove this one to \
         recreate it", stage.display(), differing.join(", ")
    )]
    OtherFiles { stage: PathBuf, differing: Vec<String> },
    #[error(
        "{} differs from the template that the run in {} was started with: continue with that one, or choose another \
         folder with --out", template.display(), out.display()
    )]
    OtherTemplate { template: PathBuf, out: PathBuf },
    #[error("{} contains a run: choose another folder with --out", out.display())]
    Used { out: PathBuf },
    #[error("cannot create a temporary folder in {}", parent.display())]
    Temporary { parent: PathBuf, source: std::io::Error },
    #[error(
        "--tokens {tokens}: expected at least {least}, for reasoning, answer.list_length items and a stop token, and at \
         most rollout.max_new_tokens ({most})"
    )]
    Tokens { tokens: u32, least: u32, most: u32 },
    #[error(
        "rollout.constrain_answers is false: expected true, since simulated workers read the candidates from their leases"
    )]
    Unconstrained,
    #[error("{} contains no run: expected run.toml", out.display())]
    NoRun { out: PathBuf },
    #[error("runs/ contains no run: name one with --out DIR or --coordinator ADDRESS")]
    NoRuns,
    #[error(
        "no secret of the run of the coordinator at {address}: name a copy of run.secret from its run folder with --secret-file \
         FILE or {}",
        podium_transfer::secret::VARIABLE
    )]
    NoSecret { address: String },
    #[error("the coordinator at {address} has not answered for {seconds} s")]
    Away { address: String, seconds: u64 },
    #[error(
        "the coordinator of {} (process {pid} on {host:?}, log {}) does not answer", out.display(), log.display()
    )]
    NoAnswer { out: PathBuf, pid: u32, host: String, source: Box<status_stream::Error>, log: PathBuf },
    #[error("the coordinator of {} does not report its status to this process", out.display())]
    NotReported { out: PathBuf, source: Box<status_stream::Error> },
}

impl Error {
    /// Returns the exit code of a process after this error.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Away { .. } | Self::NoAnswer { .. } | Self::NotReported { .. } | Self::Status(_) => {
                ExitCode::from(UNAVAILABLE)
            }
            _ => ExitCode::FAILURE,
        }
    }
}

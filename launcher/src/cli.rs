//! The command line. Flags become overrides of the run file; no decisions are made here.

mod evaluate;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use podium_config::Override;

pub(crate) use evaluate::{EvaluateFlags, Ranking};

use crate::card::Card;

/// Trains LLM recommenders with GRPO: starts, watches, evaluates and reports runs.
#[derive(Debug, Parser)]
#[command(
    name = "podium",
    version,
    propagate_version = true,
    args_override_self = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train on the embedded data set: several processes on this machine, about five minutes on two cores
    Demo(RunFlags),
    /// Train according to a run file; resumes an earlier start of the same run
    Train {
        /// The run file
        #[arg(value_name = "RUN.toml")]
        run_file: PathBuf,
        #[command(flatten)]
        flags: RunFlags,
    },
    /// Evaluate a policy on the test users of a run file, compared with other policies and baselines
    Evaluate {
        /// The run file with data, prompts, answers and sampling
        #[arg(value_name = "RUN.toml")]
        run_file: PathBuf,
        #[command(flatten)]
        asked: EvaluateFlags,
        #[command(flatten)]
        flags: RunFlags,
    },
    /// Show the progress of a run
    Status(StatusFlags),
    /// Check run files without starting anything
    CheckConfig {
        /// Run files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Set a key of each run file; may be repeated
        #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
        assignments: Vec<Override>,
        #[command(flatten)]
        computed: ComputedFlags,
    },
    /// Measure a part of Podium on this machine
    Bench {
        #[command(subcommand)]
        part: Bench,
    },
    /// Drop a policy version of a stopped run, later versions, and everything that was sampled from them; the run
    /// recomputes them at its next start
    DropVersion {
        /// Folder of the run
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The version's number, at least 1
        #[arg(long, value_name = "N")]
        version: u64,
    },
    /// Regenerate report.html from the records of a run
    Report {
        /// Folder of the run
        #[arg(value_name = "DIR")]
        out: PathBuf,
    },
}

/// A part that can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Load a coordinator process with simulated workers and one simulated learner rank, which speak the real protocol with
    /// made-up completions
    Coordinator(LoadFlags),
}

#[derive(Debug, Args)]
pub(crate) struct LoadFlags {
    /// The run file with data, prompts and answers [default: the embedded data set, one group per lease, steps of two groups
    /// per worker, a policy lag of at most 4 steps]
    #[arg(value_name = "RUN.toml")]
    pub(crate) run_file: Option<PathBuf>,
    /// Set a key of the run file; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) assignments: Vec<Override>,
    /// Simulated workers, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) workers: u32,
    /// Groups that all workers submit per second; 0: as many as the coordinator accepts
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) rate: u32,
    /// Duration of the measurement
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    #[arg(
        long,
        value_name = "N",
        help = "Tokens of a completion [default: 64, or rollout.max_new_tokens of RUN.toml if that is less]"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tokens: Option<u32>,
    /// New folder of the run, which is not removed [default: a temporary folder in runs/]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// Flags for memory and time of a run's processes.
#[derive(Debug, Default, Args)]
pub(crate) struct ComputedFlags {
    #[command(flatten)]
    pub(crate) what: Computed,
    #[arg(
        long,
        value_name = "N",
        help = "Longest prompt for --memory and --time, in tokens [prompt.max_tokens]"
    )]
    #[arg(requires = "Computed", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) prompt_tokens: Option<u64>,
    #[arg(
        long,
        value_name = "N",
        help = "Length of completions for --time, in tokens [rollout.max_new_tokens]"
    )]
    #[arg(requires = "time", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) completion_tokens: Option<u64>,
    #[arg(long, value_name = "N", help = "Number of GPUs for --time [those of workers and learner ranks]")]
    #[arg(requires = "time", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) gpus: Option<u64>,
    /// US dollars per GPU and hour for --time [an assumed price of the GPU]
    #[arg(long, value_name = "USD", requires = "time", value_parser = price)]
    pub(crate) price: Option<f64>,
}

fn price(text: &str) -> Result<f64, String> {
    let price = text.parse().ok().filter(|price: &f64| price.is_finite() && *price >= 0.0);
    price.ok_or_else(|| "expected a number of US dollars, at least 0".to_owned())
}

/// Properties of a run that are computed from its shape.
#[derive(Debug, Default, Args)]
pub(crate) struct Computed {
    /// Print the computed memory of each process by phase, and whether it fits a GPU of this size, such as 79.6GiB; 80GB
    /// without a value
    #[arg(long, value_name = "CARD", num_args = 0..=1, default_missing_value = "80GB")]
    pub(crate) memory: Option<Card>,
    /// Print the computed duration and cost of a step by phase on these GPUs: h100, h200, a100, l40s, b200, or a file with
    /// the output of podium-learner selfcheck, whose rates are measured; h100 without a value
    #[arg(long, value_name = "MACHINE", num_args = 0..=1, default_missing_value = "h100")]
    pub(crate) time: Option<String>,
}

/// Flags of every command that starts processes.
#[derive(Debug, Args)]
pub(crate) struct RunFlags {
    /// Set a key of the run file; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    assignments: Vec<Override>,
    #[arg(long, value_name = "N", help = "Rollout workers to start [launch.workers]")]
    workers: Option<u32>,
    #[arg(long, value_name = "N", help = "Learner ranks to start [launch.learner_ranks]")]
    learner_ranks: Option<u32>,
    #[arg(long, value_name = "N", help = "Seed of all random numbers [run.seed]")]
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    seed: Option<i64>,
    #[arg(long, value_name = "N", help = "Optimizer steps [run.steps]")]
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    steps: Option<i64>,
    #[arg(long, value_name = "auto|nccl|tcp", help = "How learner ranks sum gradients [network.collective]")]
    #[arg(value_parser = ["auto", "nccl", "tcp"])]
    collective: Option<String>,
    /// Folder of the run [default: a folder in runs/]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Prepare the folder with run.toml and the initial policy, without starting the run
    #[arg(long)]
    pub(crate) prepare_only: bool,
}

impl RunFlags {
    /// Returns the flags as overrides. A dedicated flag takes precedence over `--set` of the same key.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        let mut overrides = self.assignments.clone();
        let named = [
            ("launch.workers", self.workers.map(i64::from)),
            ("launch.learner_ranks", self.learner_ranks.map(i64::from)),
            ("run.seed", self.seed),
            ("run.steps", self.steps),
        ];
        overrides.extend(named.into_iter().filter_map(|(key, value)| Some(Override::new(key, value?))));
        let collective = self.collective.as_deref();
        overrides.extend(collective.map(|value| Override::new("network.collective", value)));
        overrides
    }
}

#[derive(Debug, Args)]
pub(crate) struct StatusFlags {
    /// Folder of the run [default: the newest in runs/]
    #[arg(long, value_name = "DIR", conflicts_with = "coordinator")]
    pub(crate) out: Option<PathBuf>,
    /// Address of the run's coordinator, host:port
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) coordinator: Option<String>,
    /// File with the run's secret [default: the environment's `PODIUM_SECRET_FILE`, then `network.secret_file` of the run, then that of the run folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Update the status until the run is over
    #[arg(long)]
    pub(crate) watch: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_reach_the_run_file_and_win_over_set() {
        let line = "podium demo --set run.seed=1 --set grpo.beta=0.25 --seed 2 --steps 4 --steps 8 --workers 3 \
                    --learner-ranks 2 --collective tcp";
        let Command::Demo(flags) = Cli::parse_from(line.split(' ')).command else { panic!("not a demo") };
        let file = podium_config::RunFile::parse("", "empty", &flags.overrides()).unwrap();
        assert_eq!((file.run.seed, file.run.steps), (2, 8));
        assert_eq!((file.launch.workers, file.launch.learner_ranks), (Some(3), 2));
        assert_eq!(file.network.collective, podium_config::CollectiveChoice::Tcp);
        assert!((file.grpo.beta - 0.25).abs() < 1e-12);
    }

    #[test]
    fn run_files_are_checked_as_they_would_run() {
        let line = "podium check-config run.toml other.toml --set grpo.beta=0.5 --set run.seed=3";
        let Command::CheckConfig { files, assignments, .. } = Cli::parse_from(line.split(' ')).command else {
            panic!("no check")
        };
        assert_eq!((files.len(), assignments.len()), (2, 2));
        let card = |line: &str| match Cli::parse_from(line.split(' ')).command {
            Command::CheckConfig { computed, .. } => computed.what.memory.map(|card| card.bytes),
            _ => panic!("no check"),
        };
        assert_eq!(card("podium check-config run.toml"), None);
        assert_eq!(card("podium check-config run.toml --memory"), Some(80_000_000_000));
        assert_eq!(
            card("podium check-config run.toml --memory 24GB --prompt-tokens 9"),
            Some(24_000_000_000)
        );
        let time = |line: &str| match Cli::parse_from(line.split(' ')).command {
            Command::CheckConfig { computed, .. } => computed.what.time,
            _ => panic!("no check"),
        };
        assert_eq!(time("podium check-config run.toml --time").as_deref(), Some("h100"));
        assert_eq!(
            time("podium check-config run.toml --prompt-tokens 9 --time a100").as_deref(),
            Some("a100")
        );
        assert!(Cli::try_parse_from("podium check-config run.toml --prompt-tokens 9".split(' ')).is_err());
        assert!(Cli::try_parse_from("podium check-config run.toml --memory --gpus 2".split(' ')).is_err());
    }

    #[test]
    fn flags_of_runs_are_not_flags_of_status() {
        Cli::try_parse_from(["podium", "status", "--watch"]).unwrap();
        assert!(Cli::try_parse_from(["podium", "status", "--collective", "tcp"]).is_err());
    }

    #[test]
    fn a_flag_without_an_assignment_is_refused() {
        assert!(Cli::try_parse_from(["podium", "demo", "--set", "seed"]).is_err());
        assert!(Cli::try_parse_from(["podium", "demo", "--seed", "-1"]).is_err());
    }
}

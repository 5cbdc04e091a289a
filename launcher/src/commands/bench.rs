//! `podium bench coordinator`: measures a coordinator under the load of simulated workers.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use podium_config::{Override, RunFile};
use podium_files::durable;
use podium_service::{notice, output, shutdown};

use super::{Error, STOPPED};
use crate::cli::LoadFlags;
use crate::embedded;
use crate::load::{self, Latencies, Measured, Plan};
use crate::run_folder::RunFolder;
use crate::services::{self, Programs};

/// Default number of tokens of a completion.
const TOKENS: u32 = 64;
/// Steps of the run: more than a load test makes.
const STEPS: i64 = 1_000_000;
/// Steps that workers sample ahead of the simulated learner rank.
const POLICY_LAG: i64 = 4;
/// Positions of the embedded policy, which no process runs here, so that prompts with long completions fit.
const POSITIONS: u32 = 1 << 20;
/// Folder of temporary runs.
const PARENT: &str = "runs";

/// Runs the load test and prints the measurements.
pub(crate) async fn bench(flags: &LoadFlags) -> Result<ExitCode, Error> {
    let stop = shutdown::on_signal().map_err(Error::Signals)?;
    let (mut run, tokens) = run_file(flags)?;
    let plan = Plan {
        workers: flags.workers,
        rate: f64::from(flags.rate),
        tokens,
        duration: Duration::from_secs(flags.seconds),
    };
    let programs = Programs::find()?;
    let (folder, _temporary) = folder(flags.out.as_deref())?;
    let _lock = folder.lock()?;
    let start = start_policy(&mut run, &folder)?;
    folder.create_secret(&run.network)?;
    folder.store(&run)?;
    notice!(
        "{} simulated workers and 1 learner rank load a coordinator in {} for {} s",
        plan.workers,
        folder.path().display(),
        flags.seconds
    );
    let coordinator = services::coordinator(&programs, &folder);
    let Some(measured) = load::measure(coordinator, &run, start, &folder, plan, &stop).await? else {
        return Ok(ExitCode::from(STOPPED));
    };
    let store = folder.store_file();
    let failed = |source| Error::Read { what: "the size of", path: store.clone(), source };
    let store_bytes = fs::metadata(&store).map_err(failed)?.len();
    output!("{}", page(&run, plan, &measured, store_bytes));
    Ok(ExitCode::SUCCESS)
}

/// Returns the run of the load test, and the tokens of its completions.
fn run_file(flags: &LoadFlags) -> Result<(RunFile, u32), Error> {
    // Leases name the candidates only with constrained answers.
    let mut overrides =
        vec![Override::new("run.steps", STEPS), Override::new("rollout.constrain_answers", true)];
    let run = if let Some(path) = &flags.run_file {
        RunFile::load(path, &[overrides, flags.assignments.clone()].concat())?
    } else {
        let tokens = i64::from(flags.tokens.unwrap_or(TOKENS));
        overrides.extend([
            Override::new("run.name", "load"),
            Override::new("rollout.prompts_per_lease", 1_i64),
            Override::new("rollout.prompts_per_step", 2 * i64::from(flags.workers)),
            // Workers seldom wait for the end of a step: the simulated rank takes no time to train.
            Override::new("rollout.max_policy_lag", POLICY_LAG),
            Override::new("rollout.max_new_tokens", tokens),
        ]);
        overrides.extend(flags.assignments.iter().cloned());
        RunFile::parse(embedded::RUN_FILE, embedded::RUN_FILE_NAME, &overrides)?
    };
    if !run.rollout.constrain_answers {
        return Err(Error::Unconstrained);
    }
    let most = run.rollout.max_new_tokens;
    let tokens = flags.tokens.unwrap_or(TOKENS.min(most));
    let least = run.answer.list_length as u32 + 2;
    if !(least..=most).contains(&tokens) {
        return Err(Error::Tokens { tokens, least, most });
    }
    Ok((run, tokens))
}

/// Returns the folder of the run; a temporary one is removed when the second value is dropped.
fn folder(out: Option<&Path>) -> Result<(RunFolder, Option<tempfile::TempDir>), Error> {
    let Some(out) = out else {
        let parent = PathBuf::from(PARENT);
        durable::create_folder(&parent)?;
        // On the disk of runs: a folder in memory would make the store faster than it is.
        let temporary = tempfile::Builder::new().prefix("load-").tempdir_in(&parent);
        let temporary = temporary.map_err(|source| Error::Temporary { parent, source })?;
        return Ok((RunFolder::new(temporary.path()), Some(temporary)));
    };
    let folder = RunFolder::new(out);
    if folder.is_used() { Err(Error::Used { out: out.to_owned() }) } else { Ok((folder, None)) }
}

/// Returns the folder of the policy to start from, and sets it in the run file.
fn start_policy(run: &mut RunFile, folder: &RunFolder) -> Result<PathBuf, Error> {
    let start = match &run.model.path {
        Some(path) => path.clone(),
        None if run.data.dir.is_none() && embedded::start_fits(run) => {
            let start = folder.start_policy();
            embedded::write_start_with_positions(&start, POSITIONS)?;
            start
        }
        None => return Err(Error::NoStart),
    };
    let failed = |source| Error::Read { what: "the policy in", path: start.clone(), source };
    let start = fs::canonicalize(&start).map_err(failed)?;
    run.model.path = Some(start.clone());
    Ok(start)
}

fn page(run: &RunFile, plan: Plan, measured: &Measured, store_bytes: u64) -> String {
    let Measured { seconds, lease, submit, groups, .. } = measured;
    let rollout = &run.rollout;
    let mut page = String::new();
    let target = if plan.rate > 0.0 { format!("{} a second", plan.rate) } else { "no limit".to_owned() };
    let _ = writeln!(
        page,
        "load         {} workers, {} groups per lease, {} completions of {} tokens per group; target: {target}",
        plan.workers, rollout.prompts_per_lease, rollout.group_size, plan.tokens
    );
    let _ = writeln!(
        page,
        "groups       {:.0} a second: {groups} stored in {seconds:.1} s, {} repeated, {} refused",
        *groups as f64 / seconds,
        measured.repeated,
        measured.refused
    );
    let _ = writeln!(page, "submissions  {:.0} a second", submit.count() as f64 / seconds);
    let _ = writeln!(page, "submit       {}", latencies(submit));
    let _ = writeln!(page, "lease        {}", latencies(lease));
    let _ = writeln!(
        page,
        "workers      {} requests for a lease found no work, {} leases or registrations were lost",
        measured.waits, measured.lost
    );
    let _ = writeln!(
        page,
        "steps        {} of {} groups, a checkpoint every {} steps",
        measured.steps, rollout.prompts_per_step, run.learner.checkpoint_every_steps
    );
    let per_group = |cpu: f64| cpu * 1e3 / (*groups).max(1) as f64;
    let _ = writeln!(
        page,
        "processor    coordinator {:.1} s of {seconds:.1} s, {:.2} ms per group; simulated peers {:.1} s",
        measured.cpu_seconds,
        per_group(measured.cpu_seconds),
        measured.peers_cpu_seconds
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let _ = writeln!(page, "memory       coordinator {:.0} MiB resident at most", mib(measured.peak_bytes));
    let _ = writeln!(page, "store        {:.0} MiB", mib(store_bytes));
    page
}

fn latencies(latencies: &Latencies) -> String {
    let ms = |fraction| latencies.quantile(fraction).as_secs_f64() * 1e3;
    format!(
        "p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms, of {} calls",
        ms(0.5),
        ms(0.9),
        ms(0.99),
        ms(1.0),
        latencies.count()
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Bench, Cli, Command};

    fn flags(line: &str) -> LoadFlags {
        match Cli::parse_from(["podium", "bench", "coordinator"].into_iter().chain(line.split_whitespace()))
            .command
        {
            Command::Bench { part: Bench::Coordinator(flags) } => flags,
            _ => panic!("no load test"),
        }
    }

    #[test]
    fn the_default_load_is_a_group_per_lease() {
        let (run, tokens) = run_file(&flags("")).unwrap();
        assert_eq!((run.rollout.prompts_per_lease, run.rollout.prompts_per_step, tokens), (1, 2000, 64));
        let (run, tokens) =
            run_file(&flags("--workers 3 --tokens 9 --set rollout.prompts_per_lease=2")).unwrap();
        assert_eq!((run.rollout.prompts_per_lease, run.rollout.prompts_per_step, tokens), (2, 6, 9));
        assert_eq!(run.rollout.max_new_tokens, 9);
    }

    #[test]
    fn completions_without_room_for_an_answer_are_refused() {
        let error = run_file(&flags("--tokens 4")).unwrap_err().to_string();
        assert!(error.contains("--tokens 4: expected at least 5"), "{error}");
        let error = run_file(&flags("--tokens 70 --set rollout.max_new_tokens=60")).unwrap_err().to_string();
        assert!(error.contains("at most rollout.max_new_tokens (60)"), "{error}");
    }

    #[test]
    fn a_folder_with_a_run_is_refused() {
        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("run.toml"), "").unwrap();
        assert!(matches!(folder(Some(out.path())), Err(Error::Used { .. })));
    }

    #[test]
    fn the_page_has_rates_and_percentiles() {
        let (run, tokens) = run_file(&flags("")).unwrap();
        let milliseconds = |numbers: &[u64]| {
            Latencies::of(numbers.iter().map(|&number| Duration::from_millis(number)).collect())
        };
        let measured = Measured {
            seconds: 2.0,
            lease: milliseconds(&[1, 2, 3]),
            submit: milliseconds(&[4, 5, 6, 7]),
            groups: 4_000,
            repeated: 1,
            refused: 2,
            waits: 3,
            lost: 0,
            steps: 2,
            cpu_seconds: 1.0,
            peers_cpu_seconds: 0.5,
            peak_bytes: 64 << 20,
        };
        let plan = Plan { workers: 1_000, rate: 2_000.0, tokens, duration: Duration::from_secs(2) };
        let page = page(&run, plan, &measured, 3 << 20);
        for line in [
            "load         1000 workers, 1 groups per lease, 8 completions of 64 tokens per group; target: 2000 a second",
            "groups       2000 a second: 4000 stored in 2.0 s, 1 repeated, 2 refused",
            "submit       p50 5.0 ms, p90 7.0 ms, p99 7.0 ms, max 7.0 ms, of 4 calls",
            "processor    coordinator 1.0 s of 2.0 s, 0.25 ms per group; simulated peers 0.5 s",
            "store        3 MiB",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }
}

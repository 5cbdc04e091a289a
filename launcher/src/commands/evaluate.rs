//! `podium evaluate`: evaluates policies on the test users with the services of a run, and computes metrics.
//!
//! Each part is a run without steps, so it uses the prompts, parser, constraint and sampling of
//! training, or a ranking of the whole catalogue by one process. Stored answers of a part are reused, and an interrupted
//! part is resumed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use podium_config::RunFile;
use podium_evaluation::{Asked, Evaluation, Lists, Part, Plan, Policy, Protocol};
use podium_files::durable;
use podium_service::{notice, output, output_line, shutdown};

use super::run::Preparation;
use super::stages::{self, Stages};
use super::{Error, run, start};
use crate::cli::{EvaluateFlags, Ranking, RunFlags};
use crate::conductor::Outcome;
use crate::devices::Table;
use crate::processes;
use crate::run_folder::RunFolder;
use crate::services::Programs;

/// The cutoffs of the metrics.
const CUTS: [usize; 4] = [1, 3, 5, 10];

/// Evaluates, and writes the results into a folder whose name is the key of all inputs.
pub(crate) async fn evaluate(
    run_file: &Path,
    flags: &EvaluateFlags,
    run_flags: &RunFlags,
) -> Result<ExitCode, Error> {
    let determines_lists = !flags.negatives.is_empty() || !flags.protocol.is_empty();
    if determines_lists && !has_sampled_lists(flags) {
        return Err(Error::NoSampledLists);
    }
    let overrides = run_flags.overrides();
    let run = RunFile::load(run_file, &overrides)?;
    let out =
        run_flags.out.clone().unwrap_or_else(|| PathBuf::from(format!("runs/evaluate-{}", run.run.name)));
    let folder = RunFolder::new(&out);
    if folder.is_finished() {
        return Err(Error::Used { out });
    }
    let _lock = folder.lock()?;
    // Parts are subfolders, and their run files contain its path.
    stages::absolute(out.clone())?;
    let programs = Programs::find()?;
    let Some(policies) = policies(flags, &run, &folder, &programs).await? else {
        return Ok(ExitCode::from(super::STOPPED));
    };
    let asked = asked(flags, &run);
    let answering =
        podium_evaluation::Programs { coordinator: &programs.coordinator, worker: &programs.worker };
    let mut plan = Plan::new((run_file, &overrides), run, policies, asked, &out, answering)?;
    if let Some(folder) = &flags.baselines {
        plan = plan.with_baselines(folder)?;
    }
    let base = run_file.parent().unwrap_or(Path::new(""));
    if run_flags.prepare_only {
        return prepare(&plan, base).await;
    }
    if !ask(&plan, base).await? {
        notice!("stopped; to continue, run the same command again");
        return Ok(ExitCode::from(super::STOPPED));
    }
    let results = out.join(plan.key());
    let evaluation = Evaluation::of(plan)?;
    durable::create_folder(&results)?;
    durable::write_with(&results.join("lists.jsonl"), |file| {
        podium_evaluation::lists(&evaluation, std::io::BufWriter::new(file))
    })?;
    durable::write_with(&results.join("metrics.csv"), |file| {
        podium_evaluation::csv(&evaluation.values, evaluation.plan.asked.part, file)
    })?;
    podium_report::write_evaluation(&evaluation, &results.join("report.html"))?;
    let json = format!("{:#}\n", evaluation.to_json());
    durable::write(&results.join("evaluation.json"), json.as_bytes())?;
    output!("{}", podium_evaluation::tables(&evaluation));
    for (what, file) in
        [("evaluation", "evaluation.json"), ("metrics", "metrics.csv"), ("report", "report.html")]
    {
        output_line!("{what:<11} {}", results.join(file).display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether policies rank sampled candidate lists.
fn has_sampled_lists(flags: &EvaluateFlags) -> bool {
    flags.rankings.iter().any(|&ranking| ranking != Ranking::Catalogue)
}

fn asked(flags: &EvaluateFlags, run: &RunFile) -> Asked {
    let has = |ranking: Ranking| flags.rankings.contains(&ranking);
    let protocols: Vec<Protocol> = flags.protocol.iter().map(|&protocol| protocol.into()).collect();
    let mut negatives: Vec<usize> = flags.negatives.iter().map(|&number| number as usize).collect();
    negatives.extend(protocols.iter().map(|protocol| protocol.negatives()));
    if negatives.is_empty() {
        negatives.push(run.candidates.count.saturating_sub(1).max(1));
    }
    if !has_sampled_lists(flags) {
        // Only the whole catalogue is ranked.
        negatives.clear();
    }
    let mut at: Vec<usize> = flags.at.iter().map(|&k| k as usize).collect();
    if at.is_empty() {
        at.extend(CUTS);
        at.extend((!protocols.is_empty() || has(Ranking::Catalogue)).then_some(Protocol::LARGEST_CUT));
    }
    for numbers in [&mut negatives, &mut at] {
        numbers.sort_unstable();
        numbers.dedup();
    }
    Asked {
        part: flags.part.into(),
        protocols,
        negatives,
        draws: flags.draws.into(),
        reversed: flags.reversed.into(),
        generated: has(Ranking::Generated),
        likelihood: has(Ranking::Likelihood),
        catalogue: has(Ranking::Catalogue),
        at,
    }
}

/// Returns the policy and the policies to compare it with; `None` if a signal arrived.
async fn policies(
    flags: &EvaluateFlags,
    run: &RunFile,
    folder: &RunFolder,
    programs: &Programs,
) -> Result<Option<Vec<Policy>>, Error> {
    let mut policies = Vec::new();
    for policy in std::iter::once(&flags.policy).chain(&flags.against) {
        let mut own = run.clone();
        // Services read their run file from another folder.
        let path = stages::absolute(policy.clone())?;
        Policy::set_paths(&path, &mut own)?;
        if own.model.path.is_none() {
            // An adapter of the embedded initial policy.
            let stop = shutdown::on_signal().map_err(Error::Signals)?;
            if !start::provide(&mut own, &Stages { programs, folder, stop: &stop }).await? {
                return Ok(None);
            }
        }
        policies.push(Policy::new(policy, &own)?);
    }
    Ok(Some(policies))
}

/// Prepares the folders of all unfinished parts and prints the paths of their run files.
async fn prepare(plan: &Plan, base: &Path) -> Result<ExitCode, Error> {
    for part in plan.parts.iter().filter(|part| !plan.is_done(part)) {
        let folder = RunFolder::new(plan.work(part));
        if let Preparation::Interrupted = run::prepare(part.run.clone(), base, &folder).await? {
            return Ok(ExitCode::from(super::STOPPED));
        }
        output_line!("{}", folder.run_file().display());
        if part.lists == Lists::Catalogue {
            notice!(
                "no coordinator serves this run file: run podium-rollout-worker rank-catalogue --run-file {} --output {}",
                folder.run_file().display(),
                plan.recorded(part).display()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs all unfinished parts; returns `false` if a signal arrived.
async fn ask(plan: &Plan, base: &Path) -> Result<bool, Error> {
    let all = plan.parts.len();
    let kept = plan.parts.iter().filter(|part| plan.is_done(part)).count();
    if kept > 0 {
        notice!("reusing {kept} of {all} parts of an earlier evaluation");
    }
    // All parts have the same processes.
    let mut devices = None;
    for (number, part) in (1..).zip(&plan.parts) {
        let folder = RunFolder::new(plan.work(part));
        // A policy that is compared with itself has the same parts twice.
        if plan.is_done(part) {
            // The run holds copies of the policy.
            durable::remove_folder(folder.path())?;
            continue;
        }
        let known = devices.take();
        let is_first = known.is_none();
        let table = known.map_or_else(|| Table::of_run(&part.run), Ok)?;
        notice!("part {number} of {all}: {}", part.describe(&plan.policies));
        let is_complete = match part.lists {
            Lists::Sampled(_) => answer(part, base, &folder, &table, is_first).await?,
            Lists::Catalogue => rank_catalogue(plan, part, base, &folder, &table).await?,
        };
        devices = Some(table);
        if !is_complete {
            return Ok(false);
        }
        plan.keep(part)?;
        // The run holds copies of the policy.
        durable::remove_folder(folder.path())?;
    }
    Ok(true)
}

/// Runs the services of a part; returns `false` if a signal arrived.
async fn answer(
    part: &Part,
    base: &Path,
    folder: &RunFolder,
    table: &Table,
    is_first: bool,
) -> Result<bool, Error> {
    let outcome = match run::prepare(part.run.clone(), base, folder).await? {
        Preparation::Ready(ready) => ready.perform(table, is_first).await?,
        Preparation::Finished | Preparation::Made(_) => Outcome::Finished,
        Preparation::Interrupted => Outcome::Interrupted { step: 0 },
    };
    match outcome {
        Outcome::Finished => Ok(true),
        Outcome::Interrupted { .. } => Ok(false),
        Outcome::Drained { reason, .. } => {
            notice!("the coordinator stopped early: {reason}");
            Ok(false)
        }
    }
}

/// Ranks the whole catalogue with one policy; returns `false` if a signal arrived.
async fn rank_catalogue(
    plan: &Plan,
    part: &Part,
    base: &Path,
    folder: &RunFolder,
    table: &Table,
) -> Result<bool, Error> {
    // It exists if the command was run on another host.
    if plan.recorded(part).is_file() {
        return Ok(true);
    }
    // The lock of the folder is held until the ranking is complete.
    let Preparation::Ready(_ready) = run::prepare(part.run.clone(), base, folder).await? else {
        return Ok(false);
    };
    let placement = table.worker(1);
    let arguments: Vec<OsString> = vec![
        "rank-catalogue".into(),
        "--run-file".into(),
        folder.run_file().into(),
        "--output".into(),
        plan.recorded(part).into(),
        "--device".into(),
        placement.device.into(),
    ];
    let stop = shutdown::on_signal().map_err(Error::Signals)?;
    let worker = Programs::find()?.worker;
    let name = "rank-catalogue";
    match processes::foreground(name, &worker, arguments, placement.environment, &stop).await? {
        Some(status) if status.success() => Ok(true),
        Some(status) => Err(Error::Ranking { how: processes::describe(status) }),
        None => Ok(false),
    }
}

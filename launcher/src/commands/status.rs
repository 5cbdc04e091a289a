//! `podium status`: queries a run's coordinator, or reads the run's folder if the coordinator has
//! exited.

use podium_config::Network;
use podium_evaluation::Anatomy;
use podium_evaluation::results::Results;
use podium_service::{output, output_line};
use podium_transfer::{Credentials, secret};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use podium_proto::v1::{
    Bottleneck, LeaseStatus, RankStatus, RewardState, RewardStatus, RunPhase, RunStatus, Scaling,
    WorkerStatus,
};

use super::{Error, run};
use crate::cli::StatusFlags;
use crate::progress::{self, Progress};
use crate::run_folder::RunFolder;
use crate::status_stream::{self, StatusStream, Update};

/// Time after which an unreachable coordinator ends `--watch`.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn status(flags: &StatusFlags) -> Result<ExitCode, Error> {
    if let Some(address) = &flags.coordinator {
        let file = flags.secret_file.clone().or_else(|| secret::configured(&Network::default()));
        let file = file.ok_or_else(|| Error::NoSecret { address: address.clone() })?;
        let credentials = Credentials::from_file(file);
        let status = status_stream::get(address, &credentials).await?;
        show(flags, address, credentials, &status).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = match &flags.out {
        Some(out) => RunFolder::new(out),
        None => newest(Path::new("runs")).ok_or(Error::NoRuns)?,
    };
    if !folder.is_used() {
        return Err(Error::NoRun { out: folder.path().to_owned() });
    }
    if folder.is_finished() {
        recorded(&folder, "finished")?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(announced) = folder.announcement()? else {
        recorded(&folder, "not running")?;
        return Ok(ExitCode::SUCCESS);
    };
    let address = announced.reachable();
    let network = folder.stored()?.map(|run| run.network).unwrap_or_default();
    let of_run = || folder.credentials(&network);
    let credentials = flags.secret_file.as_ref().map_or_else(of_run, Credentials::from_file);
    match status_stream::get(&address, &credentials).await {
        // Another run may use the port by now.
        Ok(status) if announced.run_id.is_empty() || announced.run_id == status.run_id => {
            show(flags, &address, credentials, &status).await?;
        }
        // Another run may use the port.
        Err(source) if source.is_unauthenticated() && !announced.is_over() => {
            recorded(&folder, "its coordinator does not report its status")?;
            return Err(Error::NotReported { out: folder.path().to_owned(), source: Box::new(source) });
        }
        Err(source) if !source.is_nobody() && !announced.is_over() => {
            recorded(&folder, "the coordinator does not answer")?;
            let (out, log) = (folder.path().to_owned(), folder.log("coordinator"));
            return Err(Error::NoAnswer {
                out,
                pid: announced.pid,
                host: announced.host,
                source: Box::new(source),
                log,
            });
        }
        Ok(_) | Err(_) => {
            let ended = announced.ended.map(|why| format!(" ({why})")).unwrap_or_default();
            recorded(&folder, &format!("not running{ended}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(
    flags: &StatusFlags,
    address: &str,
    credentials: Credentials,
    status: &RunStatus,
) -> Result<(), Error> {
    if flags.watch {
        return watch(address, credentials).await;
    }
    output!("{}", page(status));
    Ok(())
}

async fn watch(address: &str, credentials: Credentials) -> Result<(), Error> {
    let mut statuses = StatusStream::open(address, credentials, None)?;
    let mut progress = Progress::start();
    let mut last_phase = RunPhase::Unspecified;
    let result = loop {
        match statuses.next().await {
            Update::Status(status) => {
                last_phase = status.phase();
                progress.show(&status);
                if last_phase == RunPhase::Finished {
                    break Ok(());
                }
            }
            // A coordinator exits soon after the end of the run; its last status may be lost.
            Update::Away(_) if matches!(last_phase, RunPhase::Evaluating | RunPhase::Draining) => {
                break Ok(());
            }
            Update::Away(time) if time > PATIENCE => {
                break Err(Error::Away { address: address.to_owned(), seconds: time.as_secs() });
            }
            Update::Away(_) => {}
        }
    };
    progress.finish();
    result
}

/// Prints the recorded state of a run whose coordinator does not answer.
fn recorded(folder: &RunFolder, state: &str) -> Result<(), Error> {
    let results = Results::read(folder.path())?;
    let steps = folder.stored()?.map_or(0, |run| run.run.steps);
    let done = results.steps.last().and_then(|row| row.get("step")).copied().unwrap_or(0.0);
    output_line!("{}: {state}, {done:.0} of {steps} steps", folder.path().display());
    run::print_table(folder)
}

/// Returns the run in `runs` with the most recent start.
fn newest(runs: &Path) -> Option<RunFolder> {
    let entries = fs::read_dir(runs).ok()?.filter_map(Result::ok);
    let with_time = entries.filter_map(|entry| {
        let time = fs::metadata(entry.path().join("run.toml")).and_then(|file| file.modified()).ok()?;
        Some((time, entry.path()))
    });
    with_time.max().map(|(_, path)| RunFolder::new(path))
}

fn page(status: &RunStatus) -> String {
    let mut page = String::new();
    let _ = writeln!(
        page,
        "{}  {}, step {} of {}, policy version {}, {}",
        status.run_name,
        progress::phase(status),
        status.step,
        status.steps,
        status.policy_version,
        progress::team(status),
    );
    if !status.ending.is_empty() {
        let _ = writeln!(page, "ends early  {}", status.ending);
    }
    if status.groups_wanted > 0 {
        let _ = writeln!(
            page,
            "sampled     {} of {} prompts of this step",
            status.groups_ready, status.groups_wanted
        );
    }
    if status.evaluation_wanted > 0 {
        let (ready, wanted) = (status.evaluation_ready, status.evaluation_wanted);
        let _ = writeln!(page, "evaluation  {ready} of {wanted} {} users", status.evaluated_part);
    }
    if let Some(anatomy) = Anatomy::of(&status.last_step_metrics) {
        let _ = writeln!(page, "last step   {}", anatomy_line(&anatomy));
    }
    if let Some(scaling) = &status.scaling {
        let _ = writeln!(page, "scaling     {}", scaling_line(scaling));
    }
    for worker in &status.workers {
        let _ = writeln!(page, "worker      {}", worker_line(worker));
    }
    for rank in &status.ranks {
        let _ = writeln!(page, "rank        {}", rank_line(rank));
    }
    for reward in &status.rewards {
        let _ = writeln!(page, "reward      {}", reward_line(reward));
    }
    if let Some(lease) = &status.oldest_lease {
        let _ = writeln!(page, "oldest      {}", lease_line(lease));
    }
    if !status.last_step_metrics.is_empty() {
        let _ = writeln!(page, "{}", progress::step_line(status));
    }
    if status.last_evaluation_version.is_some() {
        let _ = writeln!(page, "{}", progress::evaluation_line(status).trim_start());
    }
    if let Some(best) = status.best_version {
        let _ = writeln!(page, "best        version {best}, {} {:.3}", status.best_by, status.best_score);
    }
    for warning in &status.warnings {
        let _ = writeln!(page, "warning: {warning}");
    }
    page
}

fn anatomy_line(anatomy: &Anatomy) -> String {
    let mut line = format!("{:.2} s, {:.0} % computing:", anatomy.step, anatomy.computing * 100.0);
    let other = ("none of these".to_owned(), anatomy.other);
    // Shorter activities do not matter to the step.
    let is_visible = |(_, seconds): &&(String, f64)| *seconds >= 0.01 * anatomy.step;
    for (name, seconds) in anatomy.activities.iter().chain([&other]).filter(is_visible) {
        let _ = write!(line, " {name} {seconds:.2},");
    }
    line.pop();
    line
}

fn scaling_line(scaling: &Scaling) -> String {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let waits = match scaling.bottleneck() {
        Bottleneck::Workers => "workers are the bottleneck",
        Bottleneck::Learner => "the learner is the bottleneck",
        Bottleneck::Unspecified => "neither is the bottleneck",
    };
    let (idle, training) = (percent(scaling.worker_idle), percent(scaling.learner_idle));
    let (now, then) = (scaling.step_seconds, scaling.step_seconds_then);
    let advice = match scaling.more_workers {
        0 => "the number of workers is as recommended".to_owned(),
        more @ 1.. => format!("recommended: {more} more, for a step in {then:.1} s instead of {now:.1} s"),
        fewer => format!("recommended: {} fewer, for a step in {then:.1} s instead of {now:.1} s", -fewer),
    };
    format!("workers idle {idle}, learner idle {training}: {waits}; {advice}")
}

fn rank_line(rank: &RankStatus) -> String {
    let state = match (rank.joined, rank.silent) {
        (_, true) => "silent",
        (true, false) => "joined",
        (false, false) => "has not joined",
    };
    format!("{}: {state}, heard {:.1} s ago", rank.rank, rank.last_heard_ms as f64 / 1e3)
}

fn reward_line(reward: &RewardStatus) -> String {
    let state = match reward.state() {
        RewardState::Unspecified | RewardState::Idle => "idle",
        RewardState::Answering => "answering",
        RewardState::Waiting => "waiting for its program",
    };
    let RewardStatus { name, open_requests, answered_requests, failed_attempts, .. } = reward;
    format!(
        "{name}: {state}, {open_requests} requests open, {answered_requests} answered, {failed_attempts} attempts failed"
    )
}

fn lease_line(lease: &LeaseStatus) -> String {
    let id: String = lease.worker_id.chars().take(8).collect();
    let age = lease.age_ms as f64 / 1e3;
    let stalled = if lease.stalled { ", far longer than others" } else { "" };
    format!("lease of {}, held by worker {id} on {} for {age:.1} s{stalled}", lease.work, lease.host)
}

fn worker_line(worker: &WorkerStatus) -> String {
    let id: String = worker.worker_id.chars().take(8).collect();
    let seen = worker.last_seen_ms as f64 / 1e3;
    format!(
        "{id} on {} {}: {} leases, {} prompts done, seen {seen:.1} s ago",
        worker.host, worker.device, worker.leases, worker.groups_done
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_fits_a_few_lines() {
        let status = RunStatus {
            run_name: "demo".into(),
            phase: RunPhase::Training.into(),
            step: 3,
            steps: 60,
            policy_version: 3,
            groups_ready: 5,
            groups_wanted: 32,
            learner_ranks: 1,
            workers: vec![WorkerStatus {
                worker_id: "0198c0de-0000".into(),
                device: "cpu".into(),
                host: "a".into(),
                leases: 1,
                groups_done: 40,
                last_seen_ms: 250,
                metrics_address: String::new(),
            }],
            scaling: Some(Scaling {
                worker_idle: 0.2,
                learner_idle: 0.8,
                bottleneck: Bottleneck::Workers.into(),
                more_workers: 2,
                step_seconds: 20.0,
                step_seconds_then: 12.04,
            }),
            ranks: vec![
                RankStatus { rank: 0, last_heard_ms: 400, joined: true, silent: false },
                RankStatus { rank: 1, last_heard_ms: 16_000, joined: true, silent: true },
            ],
            rewards: vec![RewardStatus {
                name: "judge".into(),
                state: RewardState::Waiting.into(),
                open_requests: 2,
                answered_requests: 40,
                failed_attempts: 7,
            }],
            oldest_lease: Some(LeaseStatus {
                worker_id: "0198c0de-0000".into(),
                host: "a".into(),
                work: "step 3".into(),
                age_ms: 61_000,
                stalled: true,
            }),
            ending: "drained at the request of 10.0.0.7: maintenance".into(),
            last_step_metrics: [
                ("reward", 0.5),
                ("step_time", 0.8),
                ("time/update", 0.4),
                ("time/sample", 0.2),
                ("time/commit", 0.001),
                ("time/computing", 0.75),
                ("time/other", 0.1),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
            best_version: Some(2),
            best_score: 0.5034,
            best_by: "NDCG@3".into(),
            warnings: vec!["the reward looks inflated".into()],
            ..RunStatus::default()
        };
        assert_eq!(
            page(&status),
            "demo  waiting for a reward, step 3 of 60, policy version 3, 1 worker, 1 learner rank\n\
             ends early  drained at the request of 10.0.0.7: maintenance\n\
             sampled     5 of 32 prompts of this step\n\
             last step   0.80 s, 75 % computing: update 0.40, sample 0.20, none of these 0.10\n\
             scaling     workers idle 20 %, learner idle 80 %: workers are the bottleneck; recommended: 2 more, for a \
             step in 12.0 s instead of 20.0 s\n\
             worker      0198c0de on a cpu: 1 leases, 40 prompts done, seen 0.2 s ago\n\
             rank        0: joined, heard 0.4 s ago\n\
             rank        1: silent, heard 16.0 s ago\n\
             reward      judge: waiting for its program, 2 requests open, 40 answered, 7 attempts failed\n\
             oldest      lease of step 3, held by worker 0198c0de on a for 61.0 s, far longer than others\n\
             step  3/60  reward 0.500  0.8 s\n\
             best        version 2, NDCG@3 0.503\n\
             warning: the reward looks inflated\n"
        );
    }

    #[test]
    fn the_newest_run_is_the_most_recently_started() {
        let runs = tempfile::tempdir().unwrap();
        assert!(newest(runs.path()).is_none());
        fs::create_dir(runs.path().join("empty")).unwrap();
        for (name, seconds) in [("late", 2_000), ("early", 1_000)] {
            fs::create_dir(runs.path().join(name)).unwrap();
            let file = fs::File::create(runs.path().join(name).join("run.toml")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        }
        assert!(newest(runs.path()).unwrap().path().ends_with("late"));
    }
}

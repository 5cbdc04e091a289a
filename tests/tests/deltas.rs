//! Policy versions as deltas: whole runs in bfloat16 whose processes share no folders, as on several hosts.

use std::fs;
use std::time::Instant;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use podium_tests::link::Link;
use podium_tests::scrape::Scrape;
use podium_tests::{PATIENCE, Process, Run};

const STEPS: u64 = 6;
/// At this learning rate most bfloat16 weights stay equal in a step.
const SETTINGS: [&str; 8] = [
    "run.steps=6",
    "run.seed=3",
    "model.dtype='bfloat16'",
    "model.emulate_bfloat16=true",
    "learner.learning_rate=1e-6",
    "rollout.prompts_per_step=16",
    "evaluation.users=16",
    "evaluation.every_steps=100",
];
/// Of a link, in each direction.
const BYTES_PER_SECOND: f64 = 100e6;

/// A run of which each process has a host of its own. Every process receives its folders as paths through
/// `/proc/self/cwd`, which name nothing in other processes, so that no version can be linked.
struct Hosts {
    run: Run,
    /// Between the learner and the coordinator.
    learner: Link,
    /// Between the worker and the coordinator.
    worker: Link,
}

impl Hosts {
    async fn start(changes: &[&str]) -> Result<(Self, Process)> {
        let run = Run::embedded(&[&SETTINGS[..], changes].concat())?;
        let coordinator = begin_coordinator(&run, "coordinator")?;
        let start = Instant::now();
        while run.address().is_err() {
            ensure!(start.elapsed() < PATIENCE, "the coordinator does not serve:\n{}", coordinator.output());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let address = run.address()?;
        let learner = Link::open(&address, BYTES_PER_SECOND).await?;
        let worker = Link::open(&address, BYTES_PER_SECOND).await?;
        Ok((Self { run, learner, worker }, coordinator))
    }

    fn begin_learner(&self, name: &str) -> Result<Process> {
        let ranks = ["--rank", "0", "--world-size", "1"];
        let own = [&["train", "--state", "/proc/self/cwd/state"], &ranks[..]].concat();
        self.begin(name, "podium-learner", &own, &self.learner)
    }

    fn begin_worker(&self, name: &str) -> Result<Process> {
        self.begin(name, "podium-rollout-worker", &["--cache", "/proc/self/cwd/cache"], &self.worker)
    }

    /// Starts a process of a role in the folder of its host, in which it continues after a restart.
    fn begin(&self, name: &str, program: &str, own: &[&str], link: &Link) -> Result<Process> {
        let host = self.run.folder().join(format!("host-of-{program}"));
        fs::create_dir_all(&host)?;
        let common = ["--run-file", self.run.run_file(), "--device", "cpu", "--coordinator", link.address()];
        let mut command = Process::prepare(program, &[own, &common[..]].concat());
        command.current_dir(host);
        Process::start(name, command, self.run.folder())
    }

    async fn step(&self, step: u64) -> Result<()> {
        self.run.wait_until("a step", |status| status.step >= step).await.map(drop)
    }
}

fn begin_coordinator(run: &Run, name: &str) -> Result<Process> {
    let arguments = ["--run-file", run.run_file(), "--out", "/proc/self/cwd/run"];
    let mut command = Process::prepare("podium-coordinator", &arguments);
    command.current_dir(run.folder());
    Process::start(name, command, run.folder())
}

fn kill(mut process: Process) -> Result<()> {
    process.signal(Signal::SIGKILL)?;
    process.wait().map(drop)
}

fn finish(processes: [&mut Process; 3]) -> Result<()> {
    processes.into_iter().try_for_each(Process::wait_for_success)
}

/// Results of an undisturbed run: the hash of its last weights, and the bytes that learner and worker transferred.
#[derive(Debug)]
struct Left {
    weights: String,
    published: u64,
    downloaded: u64,
}

async fn undisturbed(changes: &[&str]) -> Result<Left> {
    let (hosts, mut coordinator) = Hosts::start(changes).await?;
    let (mut learner, mut worker) = (hosts.begin_learner("learner")?, hosts.begin_worker("worker")?);
    finish([&mut learner, &mut worker, &mut coordinator])?;
    let left = Left {
        weights: hosts.run.weights_hash(STEPS)?,
        published: hosts.learner.up(),
        downloaded: hosts.worker.down(),
    };
    eprintln!("{changes:?}: {left:?}");
    Ok(left)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deltas_shorten_transfers_and_change_no_bit_also_through_crashes() -> Result<()> {
    let full = undisturbed(&["network.policy_deltas=false"]).await?;
    let deltas = undisturbed(&[]).await?;
    ensure!(deltas.weights == full.weights, "deltas changed the weights");
    // The first trained version has no base: version 0 is stored in float32.
    ensure!(
        2 * deltas.published < full.published,
        "the learner sent {} of {} bytes",
        deltas.published,
        full.published
    );
    ensure!(
        deltas.downloaded < full.downloaded,
        "the worker received {} of {} bytes",
        deltas.downloaded,
        full.downloaded
    );

    let (hosts, coordinator) = Hosts::start(&["learner.checkpoint_every_steps=1"]).await?;
    let (learner, worker) = (hosts.begin_learner("learner")?, hosts.begin_worker("worker")?);
    hosts.step(3).await?;
    let sent = |kind| -> Result<f64> {
        let name = "podium_coordinator_policy_bytes_total";
        Ok(Scrape::of(&hosts.run.metrics_address()?)?.sum(name, &[("direction", "sent"), ("kind", kind)]))
    };
    ensure!(sent("delta")? > 0.0 && sent("full")? > sent("delta")?, "the metrics count no deltas");
    kill(coordinator)?;
    hosts.learner.cut();
    let mut coordinator = begin_coordinator(&hosts.run, "coordinator again")?;
    hosts.step(4).await?;
    kill(worker)?;
    let mut worker = hosts.begin_worker("worker again")?;
    hosts.step(5).await?;
    kill(learner)?;
    let mut learner = hosts.begin_learner("learner again")?;
    finish([&mut learner, &mut worker, &mut coordinator])?;
    ensure!(hosts.run.weights_hash(STEPS)? == full.weights, "the crashes changed the weights");
    Ok(())
}

//! A run over hosts with their own addresses (`make namespaces`; requires root): network namespaces on one bridge, a
//! coordinator, two learner ranks and three workers. Without root these tests fail, since they are requested
//! explicitly.

mod hosts;

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use hosts::Hosts;
use nix::sys::signal::Signal;
use podium_proto::v1::RunStatus;
use podium_tests::{Process, Run, path_text};

const STEPS: u64 = 12;

const SETTINGS: [&str; 5] = [
    "run.steps=12",
    "run.seed=4",
    "rollout.prompts_per_step=48",
    "evaluation.users=32",
    "network.lease_deadline_ms=4000",
];

/// Duration of the disconnection of a worker's link.
const CUT: Duration = Duration::from_secs(20);

/// The hosts: coordinator, rank 0 and a worker; rank 1 and a worker; the worker with the disconnected link.
const FIRST: u8 = 0;
const SECOND: u8 = 1;
const THIRD: u8 = 2;

/// Returns the hash of the final weights of a run on one host.
fn on_one_host() -> Result<String> {
    let run = Run::embedded(&SETTINGS)?;
    let mut processes = vec![run.coordinator("coordinator")?];
    for rank in 0..2 {
        processes.push(run.learner(&format!("learner-{rank}"), rank, 2)?);
    }
    processes.push(run.worker("worker")?);
    for process in processes.iter_mut().rev() {
        process.wait_for_success()?;
    }
    run.weights_hash(STEPS)
}

/// A run and its hosts.
struct Network {
    run: Run,
    hosts: Hosts,
}

impl Network {
    fn worker(&self, host: u8, name: &str) -> Result<Process> {
        let (out, cache) = (self.run.out(), self.run.folder().join(name));
        let paths = ["--coordinator-from", path_text(&out), "--cache", path_text(&cache), "--device", "cpu"];
        let arguments = [&["--run-file", self.run.run_file()][..], &paths].concat();
        Process::start(name, self.hosts.command(host, "podium-rollout-worker", &arguments), self.run.folder())
    }

    fn rank(&self, host: u8, rank: &str) -> Result<Process> {
        let (out, state) = (self.run.out(), self.run.folder().join("learner"));
        let paths = ["--coordinator-from", path_text(&out), "--state", path_text(&state), "--device", "cpu"];
        let group = ["--rank", rank, "--world-size", "2", "--collective-listen", "0.0.0.0:0"];
        let address = ["--collective-advertise", &Hosts::address(host)];
        let arguments =
            [&["train", "--run-file", self.run.run_file()][..], &paths, &group, &address].concat();
        let command = self.hosts.command(host, "podium-learner", &arguments);
        Process::start(&format!("learner-{rank}"), command, self.run.folder())
    }

    fn coordinator(&self, host: u8) -> Result<Process> {
        let (out, address) = (self.run.out(), Hosts::address(host));
        let listen = ["--listen", "0.0.0.0:0", "--advertise", &address];
        let arguments =
            [&["--run-file", self.run.run_file(), "--out", path_text(&out)][..], &listen].concat();
        let command = self.hosts.command(host, "podium-coordinator", &arguments);
        Process::start("coordinator", command, self.run.folder())
    }

    /// Waits, on the coordinator's host, until the run's status satisfies `holds`.
    fn wait_until(&self, what: &str, holds: impl Fn(&RunStatus) -> bool + Send + Sync) -> Result<RunStatus> {
        self.hosts.on(FIRST, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(self.run.wait_until(what, holds))
        })
    }
}

#[test]
fn hosts_train_like_one_and_a_disconnected_link_recovers() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces require root");
    let expected = on_one_host()?;

    let network = Network { hosts: Hosts::new("run", 3)?, run: Run::embedded(&SETTINGS)? };
    // Early processes wait for the coordinator's announcement.
    let mut learners = [network.rank(FIRST, "0")?, network.rank(SECOND, "1")?];
    let mut others = [network.worker(FIRST, "first")?, network.worker(SECOND, "second")?];
    let mut third = network.worker(THIRD, "third")?;
    let mut coordinator = network.coordinator(FIRST)?;
    let all_at_work =
        |status: &RunStatus| status.workers.iter().filter(|worker| worker.leases > 0).count() == 3;
    let before = network.wait_until("work for all workers", all_at_work)?;

    let cut = std::time::Instant::now();
    network.hosts.link(THIRD, false)?;
    let during =
        network.wait_until("steps without the third host", |status| status.step >= before.step + 2)?;
    ensure!(during.step + 2 < STEPS, "step {} is too late to observe the recovery", during.step);
    // Only the third host remains to finish the run, once its link is connected again.
    for worker in &mut others {
        worker.signal(Signal::SIGTERM)?;
        worker.wait_for_success()?;
    }
    thread::sleep(CUT.saturating_sub(cut.elapsed()));
    network.hosts.link(THIRD, true)?;
    for process in learners.iter_mut().chain([&mut third, &mut coordinator]) {
        process.wait_for_success()?;
    }
    ensure!(network.run.weights_hash(STEPS)? == expected, "three hosts end with other weights than one");
    Ok(())
}

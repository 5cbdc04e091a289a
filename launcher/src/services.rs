//! The services of a run, with their arguments. Independent of how and where they are started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use podium_config::{Colocate, RunFile};
use podium_service::environment::{self, SHORT_SPIN};
use podium_service::shutdown;
use podium_transfer::Announcement;

use crate::devices::{ONE_PROCESS, Placement, Table};
use crate::processes::Service;
use crate::run_folder::RunFolder;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot determine the location of this program")]
    Self_(#[source] std::io::Error),
    #[error("{} is missing: expected it beside podium; `make build` builds both", path.display())]
    Missing { path: PathBuf },
}

/// The programs of the services.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) coordinator: PathBuf,
    pub(crate) worker: PathBuf,
    pub(crate) learner: PathBuf,
    pub(crate) colocated: PathBuf,
}

impl Programs {
    /// Finds the programs beside this one.
    pub(crate) fn find() -> Result<Self, Error> {
        let own = std::env::current_exe().and_then(std::fs::canonicalize).map_err(Error::Self_)?;
        let folder = own.parent().unwrap_or(Path::new("/"));
        let find = |name: &str| {
            let path = folder.join(name);
            if path.is_file() { Ok(path) } else { Err(Error::Missing { path }) }
        };
        Ok(Self {
            coordinator: find("podium-coordinator")?,
            worker: find("podium-rollout-worker")?,
            learner: find("podium-learner")?,
            // Only runs with launch.colocate = "process" start it.
            colocated: folder.join("podium-colocated"),
        })
    }
}

/// The services of one run.
#[derive(Debug)]
pub(crate) struct Services<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) run: &'a RunFile,
    pub(crate) folder: &'a RunFolder,
    pub(crate) devices: &'a Table,
}

impl Services<'_> {
    pub(crate) fn coordinator(&self) -> Service {
        coordinator(self.programs, self.folder)
    }

    /// Returns the workers and, if there are steps, the learner ranks of the announced coordinator.
    pub(crate) fn others(&self, announced: &Announcement) -> Vec<Service> {
        let flags = self.coordinator_flags(announced);
        if self.devices.is_one_process() {
            return vec![self.one_process(&flags)];
        }
        let workers = (1..=self.devices.workers()).map(|number| self.worker(number, &flags));
        workers.chain((0..self.devices.ranks()).map(|rank| self.learner_rank(rank, &flags))).collect()
    }

    /// The coordinator's address for this program.
    pub(crate) fn address(&self, announced: &Announcement) -> String {
        self.run.network.coordinator.clone().unwrap_or_else(|| announced.reachable_here())
    }

    /// Returns the flags by which services find the coordinator: if the announcement is valid for processes of this
    /// host, they follow it, since a restarted coordinator may get another port.
    fn coordinator_flags(&self, announced: &Announcement) -> Vec<OsString> {
        if self.run.network.coordinator.is_none() && announced.address == announced.listen {
            path("--coordinator-from", self.folder.path())
        } else {
            text("--coordinator", &self.address(announced))
        }
    }

    fn worker(&self, number: u32, coordinator: &[OsString]) -> Service {
        let name = format!("worker-{number}");
        let cache = self.folder.worker_cache();
        let Placement { device, mut environment } = self.devices.worker(number);
        // While workers sample a synchronous step, ranks wait.
        let ranks = if self.run.rollout.max_policy_lag == 0 { 0 } else { self.rank_threads() };
        environment.extend(short_spin(self.worker_threads() + ranks));
        let arguments = [
            self.run_file(),
            coordinator.to_vec(),
            path("--cache", &cache),
            // Distinguishes a worker that was shut down, which is restarted, from the end of the run.
            text("--shutdown-exit-code", &shutdown::STOPPED.to_string()),
            self.colocation(),
            text("--device", device),
        ];
        self.service(name, &self.programs.worker, arguments.concat(), environment)
    }

    fn learner_rank(&self, rank: u32, coordinator: &[OsString]) -> Service {
        let Placement { device, mut environment } = self.devices.rank(rank);
        environment.extend(short_spin(self.worker_threads() + self.rank_threads()));
        let arguments = [
            vec!["train".into()],
            self.run_file(),
            coordinator.to_vec(),
            path("--state", &self.folder.learner_state()),
            text("--rank", &rank.to_string()),
            text("--world-size", &self.devices.ranks().to_string()),
            self.colocation(),
            text("--device", device),
        ];
        self.service(format!("learner-{rank}"), &self.programs.learner, arguments.concat(), environment)
    }

    /// Returns the process that is learner rank and worker.
    fn one_process(&self, coordinator: &[OsString]) -> Service {
        let Placement { device, mut environment } = self.devices.rank(0);
        // Worker and rank compute in turns.
        environment.extend(short_spin(self.rank_threads()));
        let arguments = [
            self.run_file(),
            coordinator.to_vec(),
            path("--state", &self.folder.learner_state()),
            path("--cache", &self.folder.worker_cache()),
            text("--device", device),
        ];
        self.service(ONE_PROCESS.into(), &self.programs.colocated, arguments.concat(), environment)
    }

    /// Returns the flags by which a process knows that others use its GPU, which the run file leaves open.
    fn colocation(&self) -> Vec<OsString> {
        if self.run.launch.colocate == Colocate::Auto && self.devices.shares() {
            text("--set", "launch.colocate=share")
        } else {
            Vec::new()
        }
    }

    /// libtorch threads of all workers.
    fn worker_threads(&self) -> usize {
        self.devices.workers() as usize * self.run.rollout.threads as usize
    }

    /// libtorch threads of all ranks.
    fn rank_threads(&self) -> usize {
        self.devices.ranks() as usize * self.run.learner.threads as usize
    }

    fn run_file(&self) -> Vec<OsString> {
        path("--run-file", &self.folder.run_file())
    }

    fn service(
        &self,
        name: String,
        program: &Path,
        arguments: Vec<OsString>,
        environment: Vec<(&'static str, String)>,
    ) -> Service {
        Service { log: self.folder.log(&name), name, program: program.to_owned(), arguments, environment }
    }
}

/// Returns the coordinator of the run in a folder.
pub(crate) fn coordinator(programs: &Programs, folder: &RunFolder) -> Service {
    let arguments = [path("--run-file", &folder.run_file()), path("--out", folder.path())].concat();
    Service {
        name: "coordinator".into(),
        program: programs.coordinator.clone(),
        arguments,
        environment: Vec::new(),
        log: folder.log("coordinator"),
    }
}

/// Returns the variable that lets threads spin before they sleep, if this machine has cores for `threads` that compute at the
/// same time. An environment that sets it has precedence.
fn short_spin(threads: usize) -> Option<(&'static str, String)> {
    let (name, value) = SHORT_SPIN;
    let may_spin = environment::may_spin(threads) && std::env::var_os(name).is_none();
    may_spin.then(|| (name, value.to_owned()))
}

fn text(flag: &str, value: &str) -> Vec<OsString> {
    vec![flag.into(), value.into()]
}

fn path(flag: &str, value: &Path) -> Vec<OsString> {
    vec![flag.into(), value.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(assignments: &[&str], address: &str) -> Vec<String> {
        lines_on(0, assignments, address)
    }

    /// Returns the command lines on a machine with this number of GPUs.
    fn lines_on(gpus: u32, assignments: &[&str], address: &str) -> Vec<String> {
        let overrides: Vec<_> = assignments.iter().map(|text| text.parse().unwrap()).collect();
        let run = RunFile::parse("", "test", &overrides).unwrap();
        let programs = Programs {
            coordinator: "c".into(),
            worker: "w".into(),
            learner: "l".into(),
            colocated: "b".into(),
        };
        let announced = Announcement {
            address: address.into(),
            listen: "127.0.0.1:1".into(),
            metrics_address: None,
            pid: 1,
            host: String::new(),
            run_id: String::new(),
            ended: None,
        };
        let devices = Table::with_gpus(&run, gpus);
        let folder = RunFolder::new("out");
        let services = Services { programs: &programs, run: &run, folder: &folder, devices: &devices };
        std::iter::once(services.coordinator())
            .chain(services.others(&announced))
            .map(|service| {
                let words = service.arguments.iter().map(|word| word.to_string_lossy().into_owned());
                let words: Vec<String> =
                    std::iter::once(service.program.display().to_string()).chain(words).collect();
                format!("{}: {}", service.name, words.join(" "))
            })
            .collect()
    }

    #[test]
    fn a_run_is_a_coordinator_workers_and_ranks() {
        assert_eq!(
            lines(
                &["launch.workers=1", "launch.learner_ranks=2", "launch.learner_device=cpu"],
                "127.0.0.1:1"
            ),
            [
                "coordinator: c --run-file out/run.toml --out out",
                "worker-1: w --run-file out/run.toml --coordinator-from out --cache out/cache \
                 --shutdown-exit-code 75 --device cpu",
                "learner-0: l train --run-file out/run.toml --coordinator-from out --state out/learner --rank 0 \
                 --world-size 2 --device cpu",
                "learner-1: l train --run-file out/run.toml --coordinator-from out --state out/learner --rank 1 \
                 --world-size 2 --device cpu",
            ]
        );
    }

    #[test]
    fn one_process_is_rank_and_worker() {
        let settings = ["launch.colocate=process", "lora.rank=4", "rollout.threads=2"];
        assert_eq!(
            lines(&settings, "127.0.0.1:1")[1..],
            [
                "learner-0+worker-1: b --run-file out/run.toml --coordinator-from out --state out/learner --cache out/cache \
              --device cpu"
            ]
        );
    }

    #[test]
    fn processes_know_that_they_share_a_gpu() {
        let shared = |gpus, assignments: &[&str]| -> Vec<bool> {
            let lines = lines_on(gpus, assignments, "127.0.0.1:1");
            lines[1..].iter().map(|line| line.contains(" --set launch.colocate=share ")).collect()
        };
        assert_eq!(shared(1, &[]), [true, true]);
        assert_eq!(shared(2, &[]), [false, false]);
        assert_eq!(shared(0, &[]), [false, false, false]);
        assert_eq!(shared(1, &["launch.colocate=share"]), [false, false], "the run file says it");
    }

    #[test]
    fn an_address_for_other_hosts_or_of_the_run_file_is_passed() {
        let elsewhere = lines(&["launch.workers=1"], "trainer:1");
        assert!(elsewhere[1].contains("--coordinator 127.0.0.1:1 "), "{}", elsewhere[1]);
        let named = lines(&["launch.workers=1", "network.coordinator=proxy:7"], "127.0.0.1:1");
        assert!(named[1].contains("--coordinator proxy:7 "), "{}", named[1]);
    }

    #[test]
    fn without_steps_there_are_no_learner_ranks() {
        assert_eq!(lines(&["run.steps=0"], "127.0.0.1:1").len(), 3);
    }
}

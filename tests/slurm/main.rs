//! The scripts in deploy/slurm on a real Slurm (`make slurm`; requires root, slurm-wlm and munge). Without these the
//! tests fail, since they are requested explicitly.

mod cluster;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cluster::Cluster;
use podium_tests::{Process, Run, binary, path_text, rows, weights_hash};

const STEPS: u64 = 40;

/// The embedded default with a few steps. No checkpoint is due before the end.
const SETTINGS: [(&str, &str); 4] = [
    ("PODIUM_RUN__STEPS", "40"),
    ("PODIUM_RUN__SEED", "6"),
    ("PODIUM_EVALUATION__USERS", "64"),
    ("PODIUM_LEARNER__CHECKPOINT_EVERY_STEPS", "1000"),
];

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// Returns the hash of the final weights of a run with two ranks and two workers on one host, without Slurm.
fn on_one_host() -> Result<String> {
    let folder = tempfile::tempdir()?;
    let (out, file) = (folder.path().join("run"), deploy("configs/embedded.toml"));
    let size = ["--learner-ranks", "2", "--workers", "2", "--out", path_text(&out)];
    let mut command = Process::prepare("podium", &[&["train", path_text(&file)][..], &size].concat());
    command.envs(SETTINGS);
    Process::start("podium", command, folder.path())?.wait_for_success()?;
    weights_hash(&out, STEPS)
}

/// A run as a job, with additional workers as separate jobs.
struct Jobs {
    // The cluster is dropped before the run's folder.
    cluster: Cluster,
    run: Run,
}

impl Jobs {
    fn script(&self, script: &str, arguments: &[&str]) -> Result<String> {
        let programs = binary("podium");
        let programs = programs.parent().expect("it is in a folder");
        let mut command = self.cluster.command(deploy("slurm").join(script));
        command.args(arguments).args(["--bin-dir", path_text(programs)]).envs(SETTINGS);
        Cluster::run(&mut command)
    }

    fn submit(&self) -> Result<String> {
        let (file, out) = (deploy("configs/embedded.toml"), self.run.out());
        let size = ["--nodes", "3", "--gpus-per-node", "0", "--workers", "1", "--ranks", "2"];
        let paths = ["--run-file", path_text(&file), "--run-dir", path_text(&out)];
        self.script("submit.sh", &[&size[..], &paths].concat())
    }

    fn more_workers(&self) -> Result<String> {
        let out = self.run.out();
        self.script("workers.sh", &["--run-dir", path_text(&out), "--workers", "1"])
    }

    fn say(&self, program: &str, arguments: &[&str]) -> Result<String> {
        Cluster::run(self.cluster.command(program).args(arguments))
    }

    async fn wait_for_workers(&self, count: usize) -> Result<()> {
        let what = format!("{count} workers");
        self.run.wait_until(&what, |status| status.workers.len() == count).await.map(drop)
    }

    /// Waits until the job has restarted and taken steps since `step`.
    async fn wait_for_start(&self, job: &str, starts: &str, step: u64) -> Result<()> {
        self.cluster.wait("another start of the job", || {
            Ok(self.cluster.job(job, "Restarts")? == starts
                && self.cluster.job(job, "JobState")? == "RUNNING")
        })?;
        self.run.wait_until("steps after the requeue", |status| status.step > step).await.map(drop)
    }

    async fn step(&self) -> Result<u64> {
        Ok(self.run.status().await?.step)
    }
}

#[tokio::test]
async fn requeued_and_cancelled_jobs_end_with_the_weights_of_one_host() -> Result<()> {
    let jobs = Jobs { cluster: Cluster::start()?, run: Run::to_come()? };
    let main = jobs.submit()?;
    jobs.cluster.wait("the coordinator", || Ok(jobs.run.address().is_ok()))?;
    jobs.wait_for_workers(1).await?;

    let passing = jobs.more_workers()?;
    jobs.wait_for_workers(2).await?;
    jobs.say("scancel", &[&passing])?;
    jobs.wait_for_workers(1).await?;
    let lasting = [jobs.more_workers()?, jobs.more_workers()?];
    jobs.wait_for_workers(3).await?;

    // Slurm reclaims the nodes: all processes of the job receive SIGTERM at once.
    let step = jobs.step().await?;
    ensure!(step + 4 < STEPS, "step {step} is too late for two requeues");
    jobs.say("scontrol", &["requeue", &main])?;
    jobs.wait_for_start(&main, "1", step).await?;
    // Before the time limit Slurm sends SIGUSR1 to the batch script, which requeues the job.
    let step = jobs.step().await?;
    jobs.say("scancel", &["--batch", "--signal=USR1", &main])?;
    jobs.wait_for_start(&main, "2", step).await?;

    for job in lasting.iter().chain([&main]) {
        jobs.cluster.wait("the job's end", || {
            Ok(!["RUNNING", "PENDING", "COMPLETING"].contains(&jobs.cluster.job(job, "JobState")?.as_str()))
        })?;
        let (state, code) = (jobs.cluster.job(job, "JobState")?, jobs.cluster.job(job, "ExitCode")?);
        ensure!(state == "COMPLETED", "job {job} ended as {state}, exit code {code}");
    }
    let steps = rows(&jobs.run.out().join("metrics.jsonl"))?;
    ensure!(steps.len() as u64 == STEPS, "{} steps are reported, not {STEPS}", steps.len());
    ensure!(jobs.run.weights_hash(STEPS)? == on_one_host()?, "the jobs end with other weights than one host");
    Ok(())
}

/// Runs `submit.sh` with programs that only record their arguments and environment; returns the records, without
/// repetitions by restarts.
fn records_of_gpu_job(cluster: &Cluster, folder: &Path) -> Result<Vec<BTreeMap<String, String>>> {
    let (programs, run) = (folder.join("programs"), folder.join("run"));
    fs::create_dir(&programs)?;
    for name in ["podium", "podium-coordinator", "podium-learner", "podium-rollout-worker"] {
        fs::write(programs.join(name), include_str!("programs.sh"))?;
        fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755))?;
    }
    let mut command = cluster.command(deploy("slurm/submit.sh"));
    command.args(["--nodes", "2", "--gpus-per-node", "2", "--workers", "2", "--ranks", "2"]);
    command.arg("--run-file").arg(deploy("configs/embedded.toml")).arg("--run-dir").arg(&run);
    command.arg("--bin-dir").arg(&programs).env("PODIUM_TEST_PROCESSES", "4");
    for name in ["CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF"] {
        command.env_remove(name);
    }
    let job = Cluster::run(command.env("PYTORCH_CUDA_ALLOC_CONF", "backend:native"))?;
    let over = || Ok(cluster.job(&job, "JobState")? == "COMPLETED");
    cluster.wait("the end of the job", over).with_context(|| {
        let log = run.join(format!("logs/slurm-{job}.log"));
        fs::read_to_string(&log).unwrap_or_else(|error| format!("{}: {error}", log.display()))
    })?;
    let mut records = Vec::new();
    for entry in fs::read_dir(run.join("seen"))? {
        let text = fs::read_to_string(entry?.path())?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        records.push(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
    }
    Ok(records)
}

#[test]
fn processes_of_a_node_see_all_its_gpus_and_use_different_ones() -> Result<()> {
    let (cluster, folder) = (Cluster::start()?, tempfile::tempdir()?);
    let records = records_of_gpu_job(&cluster, folder.path())?;
    ensure!(records.len() == 6, "expected a record of each process: {records:?}");
    let value = |record: &BTreeMap<String, String>, name: &str| record.get(name).cloned().unwrap_or_default();
    let all = (0..cluster::GPUS).map(|gpu| gpu.to_string()).collect::<Vec<_>>().join(",");
    let mut placed = Vec::new();
    for record in &records {
        let (program, arguments) = (value(record, "PROGRAM"), value(record, "ARGUMENTS"));
        let visible = value(record, "CUDA_VISIBLE_DEVICES");
        if program == "podium-coordinator" {
            ensure!(!visible.contains('0'), "the coordinator sees GPUs: {visible}");
            continue;
        }
        ensure!(visible == all, "{program} sees {visible:?}, expected {all}");
        ensure!(value(record, "CUBLAS_WORKSPACE_CONFIG") == ":4096:8", "{record:?}");
        ensure!(value(record, "CUDA_DEVICE_ORDER") == "PCI_BUS_ID", "{record:?}");
        ensure!(value(record, "PYTORCH_CUDA_ALLOC_CONF") == "backend:native", "{record:?}");
        ensure!(!record.contains_key("PYTORCH_ALLOC_CONF"), "{record:?}");
        if let Some((_, rest)) = arguments.split_once("--device ") {
            let device = rest.split(' ').next().unwrap_or_default().to_owned();
            placed.push((value(record, "SLURMD_NODENAME"), device, program));
        }
    }
    placed.sort();
    let expected = [
        ("n1", "cuda:0", "podium-learner"),
        ("n1", "cuda:1", "podium-learner"),
        ("n2", "cuda:0", "podium-rollout-worker"),
        ("n2", "cuda:1", "podium-rollout-worker"),
    ];
    let expected =
        expected.map(|(node, device, program)| (node.to_owned(), device.to_owned(), program.to_owned()));
    ensure!(placed == expected, "{placed:?}");
    Ok(())
}

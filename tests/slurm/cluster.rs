//! A Slurm cluster of three nodes on this machine, in its own folder and on its own ports.
//!
//! All its processes, including those of its jobs, live in one PID namespace: they end with it, even if the test is
//! killed.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use podium_tests::{PATIENCE, Process, path_text};

/// The required programs, and their installation.
const PROGRAMS: [&str; 5] = ["slurmctld", "slurmd", "munged", "sbatch", "srun"];
const REMEDY: &str = "install Slurm and munge (Debian, Ubuntu: apt-get install slurm-wlm munge)";
/// Folders of daemons that a user's PATH may lack.
const SYSTEM_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin";
/// GPUs that each node declares: links to /dev/null stand for them.
pub(crate) const GPUS: u32 = 2;
/// Cores that each node declares: enough for all processes of a test, independent of the real number.
const CORES: u32 = 8;

pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    daemons: Option<Process>,
}

fn search_path() -> String {
    format!("{}:{SYSTEM_FOLDERS}", std::env::var("PATH").unwrap_or_default())
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    // All listeners are held until the last port is found, so that the ports differ.
    let listeners = (0..count).map(|_| Ok(TcpListener::bind("127.0.0.1:0")?)).collect::<Result<Vec<_>>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

impl Cluster {
    /// Starts munge, the controller and three nodes, and waits until the nodes are idle.
    pub(crate) fn start() -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "a Slurm cluster on this machine requires root");
        let path = search_path();
        for program in PROGRAMS {
            let there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
            ensure!(there, "{program} is missing: {REMEDY}");
        }
        let mut cluster = Self { folder: tempfile::tempdir()?, daemons: None };
        cluster.configure()?;
        // The shell is the first process of the namespace: when it ends, all others end.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--pid", "--mount", "--mount-proc", "--fork"]);
        command.args(["--kill-child", "bash", "-euc", include_str!("daemons.sh"), "daemons"]);
        command.arg(cluster.folder.path()).env("PATH", path);
        cluster.daemons = Some(Process::start("daemons", command, cluster.folder.path())?);
        cluster.wait("three idle nodes", || {
            let states = Self::run(cluster.command("sinfo").args(["--noheader", "--Node", "--format=%T"]));
            Ok(states.is_ok_and(|states| states.lines().filter(|state| *state == "idle").count() == 3))
        })?;
        Ok(cluster)
    }

    fn configure(&self) -> Result<()> {
        let folder = self.folder.path();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let key = folder.join("munge.key");
        let mut random = [0; 1024];
        fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
        fs::write(&key, random)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
        let (host, ports, path) = (host.trim(), free_ports(4)?, path_text(folder));
        let mut text = format!(
            "ClusterName=podium\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={}\nAuthType=auth/munge\n\
             AuthInfo=socket={path}/munge.socket,cred_expire=5\nSlurmUser=root\nSlurmdUser=root\n\
             StateSaveLocation={path}/state\nSlurmdSpoolDir={path}/spool-%n\nSlurmctldPidFile={path}/slurmctld.pid\n\
             SlurmdPidFile={path}/slurmd-%n.pid\nSlurmctldLogFile={path}/slurmctld.log\n\
             SlurmdLogFile={path}/slurmd-%n.log\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nSlurmdParameters=config_overrides\n\
             AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none\nMpiDefault=none\n\
             GresTypes=gpu\nReturnToService=2\nKillWait=60\nSchedulerParameters=batch_sched_delay=0,sched_interval=1\n",
            ports[0]
        );
        for (number, port) in (1..).zip(&ports[1..]) {
            writeln!(
                text,
                "NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CORES} RealMemory=1000 \
                 Gres=gpu:{GPUS}"
            )?;
            fs::create_dir(folder.join(format!("spool-n{number}")))?;
        }
        let last = GPUS - 1;
        for gpu in 0..GPUS {
            std::os::unix::fs::symlink("/dev/null", folder.join(format!("gpu{gpu}")))?;
        }
        let devices = format!("AutoDetect=off\nNodeName=n[1-3] Name=gpu File={path}/gpu[0-{last}]\n");
        fs::write(folder.join("gres.conf"), devices)?;
        text += "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n";
        fs::create_dir(folder.join("state"))?;
        Ok(fs::write(self.configuration(), text)?)
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("slurm.conf")
    }

    /// Returns a command that uses this cluster.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("SLURM_CONF", self.configuration()).env("PATH", search_path());
        command
    }

    /// Runs a command and returns its output.
    pub(crate) fn run(command: &mut Command) -> Result<String> {
        let Output { status, stdout, stderr } =
            command.output().with_context(|| format!("cannot start {command:?}"))?;
        let said = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "{command:?} failed with {status}: {}", said.trim());
        Ok(String::from_utf8(stdout)?.trim().to_owned())
    }

    /// Returns a field of Slurm's record of a job.
    pub(crate) fn job(&self, job: &str, field: &str) -> Result<String> {
        let shown = Self::run(self.command("scontrol").args(["--oneliner", "show", "job", job]))?;
        let value = shown.split(' ').find_map(|word| word.strip_prefix(field)?.strip_prefix('='));
        Ok(value.with_context(|| format!("job {job} has no {field}: {shown}"))?.to_owned())
    }

    /// Waits until `holds` returns true.
    pub(crate) fn wait(&self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !holds()? {
            if start.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} for {what}; the daemons said:\n{}", self.output());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn output(&self) -> String {
        self.daemons.as_ref().map(Process::output).unwrap_or_default()
    }
}

//! Unusual environments of the processes: variables and paths that are not UTF-8, closed outputs, closed terminals,
//! full disks, low limits, files of killed processes. Each is reported and does no harm; wherever the run continues,
//! it ends with the weights of an undisturbed run.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use podium_tests::launched::{Launched, status, undisturbed};
use podium_tests::{PATIENCE, Process, Run, binary, path_text};

const STEPS: u64 = 4;
/// No checkpoint is due before the end.
const SETTINGS: [&str; 6] = [
    "run.steps=4",
    "run.seed=3",
    "rollout.prompts_per_step=16",
    "evaluation.users=16",
    "launch.workers=1",
    "learner.checkpoint_every_steps=100",
];
const STOPPED: i32 = podium_service::shutdown::STOPPED as i32;
/// Commands of every program that exit on their own.
const PROGRAMS: [(&str, &[&str]); 5] = [
    ("podium", &["check-config", "nowhere.toml"]),
    ("podium-coordinator", &["--run-file", "nowhere.toml", "--out", "nowhere"]),
    ("podium-rollout-worker", &["--run-file", "nowhere.toml", "--cache", "nowhere"]),
    ("podium-learner", &["merge", "--model", "nowhere", "--adapter", "nowhere", "--out", "nowhere-too"]),
    ("podium-curator", &["prompts", "nowhere.toml"]),
];

/// The hash of the final weights of every run here.
fn expected() -> &'static str {
    static EXPECTED: OnceLock<String> = OnceLock::new();
    EXPECTED.get_or_init(|| undisturbed(&SETTINGS, STEPS).expect("an undisturbed run ends"))
}

fn not_utf8() -> OsString {
    OsString::from_vec(b"caf\xe9".to_vec())
}

/// Returns both outputs of a process.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn wait_for(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !holds() {
        ensure!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn variables_that_are_not_utf8_do_no_harm() -> Result<()> {
    let launched = Launched::new(&SETTINGS)?;
    let mut command = launched.command(None);
    command.env("PLACE", not_utf8()).env(not_utf8(), "x");
    Process::start("podium", command, launched.run.folder())?.wait_for_success()?;
    launched.check_weights(STEPS, expected())?;

    let folder = tempfile::tempdir()?;
    for (program, arguments) in PROGRAMS {
        let mut command = Process::prepare(program, arguments);
        let output = command.env("PLACE", not_utf8()).env(not_utf8(), "x").current_dir(&folder).output()?;
        let said = said(&output);
        ensure!(!output.status.success() && said.contains("nowhere"), "{program}: {said}");
        ensure!(!said.contains("panicked"), "{program}: {said}");
    }
    let file = folder.path().join("run.toml");
    fs::write(&file, "")?;
    let mut command = Process::prepare("podium", &["check-config", path_text(&file)]);
    let output = command.env("PODIUM_RUN__NAME", not_utf8()).output()?;
    let said = said(&output);
    let named = said.contains("PODIUM_RUN__NAME") && said.contains("not UTF-8");
    ensure!(output.status.code() == Some(1) && named, "{said}");
    Ok(())
}

#[test]
fn folders_that_are_not_utf8_are_refused_if_the_run_file_must_name_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join(not_utf8());
    let refused = |arguments: &[&OsStr]| -> Result<()> {
        let output = Command::new(binary("podium")).args(arguments).current_dir(&folder).output()?;
        let said = said(&output);
        ensure!(output.status.code() == Some(1) && said.contains("not UTF-8"), "{arguments:?}: {said}");
        Ok(())
    };
    let text = OsStr::new;
    refused(&[text("demo"), text("--out"), out.as_os_str(), text("--prepare-only")])?;
    let run = folder.path().join("run.toml");
    fs::write(&run, "")?;
    let policy = ["evaluate", "run.toml", "--policy"].map(text);
    refused(&[&policy[..], &[out.as_os_str()]].concat())?;
    refused(&[&policy[..], &[text("."), text("--out"), out.as_os_str()]].concat())?;
    let odd = folder.path().join(not_utf8()).join("run.toml");
    fs::create_dir_all(folder.path().join(not_utf8()))?;
    fs::write(&odd, "[data]\ndir = \"data\"\n")?;
    refused(&[text("train"), odd.as_os_str(), text("--out"), text("fine")])?;

    // The services' own folders are named in no file.
    let run = Run::embedded(&SETTINGS)?;
    let out = run.folder().join(not_utf8());
    let mut command = Process::prepare("podium-coordinator", &["--run-file", run.run_file(), "--out"]);
    let log = command.arg(&out).stderr(Stdio::piped()).stdin(Stdio::null()).spawn()?;
    wait_for("the coordinator to serve", || out.join("coordinator.json").exists())?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(log.id().try_into()?), Signal::SIGTERM)?;
    let output = log.wait_with_output()?;
    ensure!(output.status.code() == Some(STOPPED), "{}", said(&output));
    Ok(())
}

/// Starts a command, reads one line of its outputs, and closes them.
fn with_one_line_read(mut command: Command) -> Result<std::process::Child> {
    let (reader, writer) = std::io::pipe()?;
    let child = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    drop(command);
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line)?;
    ensure!(!line.is_empty(), "there is no line");
    Ok(child)
}

#[test]
fn a_run_continues_without_its_outputs() -> Result<()> {
    let launched = Launched::new(&SETTINGS)?;
    let status = with_one_line_read(launched.command(None))?.wait()?;
    ensure!(status.code() == Some(0), "podium exited with {status}");
    launched.check_weights(STEPS, expected())?;

    // Every service logs to standard error.
    let run = Run::embedded(&SETTINGS)?;
    let (out, cache) = (run.out(), run.folder().join("worker"));
    let out = path_text(&out);
    let coordinator = Process::prepare("podium-coordinator", &["--run-file", run.run_file(), "--out", out]);
    let worker = ["--run-file", run.run_file(), "--coordinator-from", out, "--cache", path_text(&cache)];
    let worker = Process::prepare("podium-rollout-worker", &worker);
    let commands = [coordinator, worker, run.learner_command(0, 1, "cpu")?];
    let children = commands.into_iter().map(with_one_line_read).collect::<Result<Vec<_>>>()?;
    for mut child in children.into_iter().rev() {
        let status = child.wait()?;
        ensure!(status.code() == Some(0), "a service exited with {status}");
    }
    ensure!(run.weights_hash(STEPS)? == expected(), "the weights differ from those of an undisturbed run");

    // Unread output is not a failure; output that cannot be written is one.
    let told = |output: Stdio| -> Result<(Option<i32>, String)> {
        let mut command = Process::prepare("podium", &["status", "--out", path_text(&launched.run.out())]);
        let child = command.stdout(output).stderr(Stdio::piped()).spawn()?;
        drop(command);
        let output = child.wait_with_output()?;
        Ok((output.status.code(), said(&output)))
    };
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let unread = told(writer.into())?;
    ensure!(unread == (Some(0), String::new()), "{unread:?}");
    let (code, text) = told(fs::File::options().write(true).open("/dev/full")?.into())?;
    ensure!(code == Some(1) && text.contains("cannot write to standard output"), "{code:?}: {text}");
    Ok(())
}

#[tokio::test]
async fn a_closed_terminal_causes_a_checkpoint() -> Result<()> {
    let launched = Launched::new(&SETTINGS)?;
    // The process that runs the tests may ignore SIGHUP.
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP").arg(binary("podium")).args(launched.arguments());
    let mut podium = Process::start("podium", command, launched.run.folder())?;
    launched.reach(1).await?;
    podium.signal(Signal::SIGHUP)?;
    podium.wait_for_code(STOPPED)?;
    ensure!(podium.output().contains("stopped by SIGHUP after step"), "{}", podium.output());
    let checkpoints = launched.run.out().join("learner/rank-0/checkpoints");
    ensure!(fs::read_dir(checkpoints)?.count() > 0, "the learner wrote no checkpoint");
    let (code, said) = status(&launched.run)?;
    ensure!(code == Some(0) && said.contains("not running (stopped by SIGTERM)"), "{code:?}: {said}");

    // Like nohup.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(binary("podium")).args(launched.arguments());
    let mut podium = Process::start("nohup", shell, launched.run.folder())?;
    launched.reach(2).await?;
    podium.signal(Signal::SIGHUP)?;
    podium.wait_for_success()?;
    launched.check_weights(STEPS, expected())
}

/// Returns a command with a limit of the file size, which can be raised; the weights exceed it.
fn on_a_small_disk(program: &str) -> Command {
    let mut command = Command::new("prlimit");
    command.arg("--fsize=400000:unlimited").arg(binary(program));
    command
}

/// Sets a process's maximum file size.
fn set_disk_limit(process: &Process, bytes: &str) -> Result<()> {
    let arguments = [format!("--pid={}", process.id()), format!("--fsize={bytes}:unlimited")];
    ensure!(Command::new("prlimit").args(arguments).status()?.success(), "prlimit failed");
    Ok(())
}

/// Whether a partial file of weights in `folder` has reached the maximum size.
fn is_stuck(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let weights = entries.map(|entry| entry.path().join("model.safetensors"));
    let stuck = |path: PathBuf| {
        path.to_string_lossy().contains(".partial")
            && fs::metadata(path).is_ok_and(|file| file.len() == 400_000)
    };
    weights.into_iter().any(stuck)
}

#[tokio::test]
async fn processes_wait_while_a_disk_is_full() -> Result<()> {
    let run = Run::embedded(&[&SETTINGS[..], &["network.reconnect_for_ms=1000"]].concat())?;
    let mut coordinator = run.coordinator("coordinator")?;
    // On another file system, so that versions are not linked.
    let memory = tempfile::tempdir_in("/dev/shm")?;
    let (out, cache, state) = (run.out(), memory.path().join("worker"), memory.path().join("learner"));
    let shared = ["--run-file", run.run_file(), "--coordinator-from", path_text(&out), "--device", "cpu"];
    let mut command = on_a_small_disk("podium-rollout-worker");
    command.args(shared).args(["--cache", path_text(&cache)]);
    let mut worker = Process::start("worker", command, run.folder())?;
    let mut command = on_a_small_disk("podium-learner");
    command.arg("train").args(shared).args(["--state", path_text(&state)]);
    let mut learner = Process::start("learner", command, run.folder())?;
    wait_for("the worker's disk to be full", || is_stuck(&cache))?;
    wait_for("the learner's disk to be full", || is_stuck(&state.join("rank-0/policy")))?;
    for process in [&worker, &learner] {
        set_disk_limit(process, "unlimited")?;
    }
    run.wait_until("a step", |status| status.step >= 1).await?;

    // The coordinator's disk, for longer than the limit for an unreachable coordinator.
    set_disk_limit(&coordinator, "4096")?;
    let full = |status: &podium_proto::v1::RunStatus| {
        status.warnings.iter().any(|warning| warning.contains("no space is left for"))
    };
    let stuck = run.wait_until("the full disk to be named", full).await?;
    let (began, longer) = (Instant::now(), Duration::from_secs(3));
    let still = run.wait_until("a while", |_| began.elapsed() > longer).await?;
    ensure!(still.step <= stuck.step + 1 && still.step < STEPS, "the run continued without disk space");
    set_disk_limit(&coordinator, "unlimited")?;

    // The learner's disk, in the middle of the run.
    set_disk_limit(&learner, "4096")?;
    wait_for("the learner to wait for disk space", || {
        learner.output().contains("waiting for free disk space")
    })?;
    set_disk_limit(&learner, "unlimited")?;
    for process in [&mut worker, &mut learner, &mut coordinator] {
        process.wait_for_success()?;
    }
    ensure!(run.weights_hash(STEPS)? == expected(), "the weights differ from those of an undisturbed run");
    Ok(())
}

#[test]
fn limits_of_the_host_are_reported() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (program, arguments) in PROGRAMS {
        let limited = |limit: &str| -> Result<String> {
            let mut command = Command::new("prlimit");
            command.arg(format!("--nofile={limit}")).arg(binary(program)).args(arguments);
            Ok(said(&command.current_dir(&folder).output()?))
        };
        let low = limited("20:20")?;
        let named = low.contains("the limit of open files is 20 (ulimit -Hn): expected at least 64");
        ensure!(named && !low.contains("panicked"), "{program}: {low}");
        let raised = limited("20:4096")?;
        ensure!(raised.contains("nowhere") && !raised.contains("limit of open files"), "{program}: {raised}");
    }
    // A write beyond the maximum file size fails like one to a full disk, instead of killing the process by SIGXFSZ.
    let mut command = Command::new("prlimit");
    command.arg("--fsize=4096:4096").arg(binary("podium-curator")).args(["embedded", "--out", "data"]);
    let output = command.current_dir(&folder).output()?;
    let text = said(&output);
    ensure!(output.status.code() == Some(1) && text.contains("File too large"), "{}: {text}", output.status);
    Ok(())
}

#[test]
fn files_of_killed_processes_are_removed() -> Result<()> {
    let launched = Launched::new(&SETTINGS)?;
    let out = launched.run.out();
    let mut dead = Command::new("true").spawn()?;
    let id = dead.id();
    dead.wait()?;
    let folders = ["", "policy", "cache", "learner/rank-0/outgoing", "learner/rank-0/policy", "data"];
    let left = |folder: &str, name: &str| out.join(folder).join(name);
    let tmp = format!(".metrics.jsonl.{id}.tmp");
    for folder in folders {
        fs::create_dir_all(out.join(folder))?;
        fs::write(left(folder, &tmp), "half of a ro")?;
    }
    // This process is alive: its file stays.
    let own = left("", &format!(".own.{}.tmp", std::process::id()));
    fs::write(&own, "")?;
    let mut podium = launched.start("podium")?;
    podium.wait_for_success()?;
    let gone = |folder: &&str| !left(folder, &tmp).exists();
    ensure!(folders.iter().all(gone) && own.exists(), "{}", podium.output());
    ensure!(podium.output().contains("removed 6 temporary files"), "{}", podium.output());
    launched.check_weights(STEPS, expected())
}

#[tokio::test]
async fn a_damaged_announcement_is_rewritten() -> Result<()> {
    let launched = Launched::new(&SETTINGS)?;
    let out = launched.run.out();
    let file = out.join("coordinator.json");
    let readable =
        || fs::read(&file).is_ok_and(|text| serde_json::from_slice::<serde_json::Value>(&text).is_ok());
    fs::create_dir_all(&out)?;
    fs::write(&file, "{\"address\": 7")?;
    let mut podium = launched.start("podium")?;
    wait_for("the first announcement", readable)?;
    launched.reach(1).await?;
    fs::write(&file, "\0\0\0")?;
    wait_for("the announcement to be rewritten", readable)?;
    fs::remove_file(&file)?;
    wait_for("the announcement to be written again", readable)?;

    // A coordinator that restarts without its previous port is found at the new one.
    launched.signal_coordinator(Signal::SIGSTOP)?;
    let pid = launched.run.coordinator_pid()?;
    fs::write(&file, "garbage")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.try_into()?), Signal::SIGKILL)?;
    podium.wait_for_success()?;
    launched.check_weights(STEPS, expected())?;

    // Without a running coordinator the damage is reported.
    fs::remove_file(out.join("finished.json"))?;
    fs::write(&file, "garbage")?;
    let (code, said) = status(&launched.run)?;
    ensure!(
        code == Some(1) && said.contains("coordinator.json is not a valid announcement"),
        "{code:?}: {said}"
    );
    Ok(())
}

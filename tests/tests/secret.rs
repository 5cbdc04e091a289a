//! The secret of a run: calls carry it, and nothing else does.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Result, ensure};
use podium_service::logs::FILTER_VARIABLE;
use podium_tests::launched::{Launched, podium, status};
use podium_tests::scrape::get;
use podium_tests::{Process, Run, path_text};
use podium_transfer::secret;

const SETTINGS: [&str; 4] =
    ["run.steps=2", "rollout.prompts_per_step=8", "evaluation.users=16", "launch.workers=1"];

/// A secret that no other value of a run contains.
const MARKED: &str = "5ec2e7ca11ab1e5ec2e7ca11ab1e5ec2e7ca11ab1e5ec2e7ca11ab1e5ec2e700";

/// Exit code of `podium status` without an answer.
const UNAVAILABLE: i32 = 69;

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
}

/// Adds the files below a folder that contain the secret.
fn find(folder: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, found)?;
        } else if contains(&fs::read(&path)?, MARKED) {
            found.push(path_text(&path).to_owned());
        }
    }
    Ok(())
}

/// Returns the number of processes that name the run folder in their arguments, and fails if arguments or environment of
/// a process contain the secret.
fn check_processes(run: &Run) -> Result<usize> {
    let mut of_run = 0;
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        // Other processes may end meanwhile, or belong to other users.
        for name in ["cmdline", "environ"] {
            let content = fs::read(process.join(name)).unwrap_or_default();
            ensure!(!contains(&content, MARKED), "{name} of {} contains the secret", process.display());
            of_run += usize::from(name == "cmdline" && contains(&content, path_text(&run.out())));
        }
    }
    Ok(of_run)
}

#[tokio::test]
async fn the_secret_is_in_no_log_no_other_file_and_no_process_list() -> Result<()> {
    let launched = Launched::new(&SETTINGS)?;
    let run = &launched.run;
    fs::create_dir(run.out())?;
    fs::write(run.secret_file(), MARKED)?;
    fs::set_permissions(run.secret_file(), Permissions::from_mode(0o600))?;
    let mut command = launched.command(None);
    command.env(FILTER_VARIABLE, "trace");
    let mut podium = Process::start("podium", command, run.folder())?;
    launched.reach(1).await?;
    ensure!(check_processes(run)? >= 4, "podium, coordinator, worker and learner name the run folder");
    let metrics = run.metrics_address()?;
    let (_, shown) = status(run)?;
    for text in [get(&metrics, "/metrics")?, get(&metrics, "/targets")?, shown] {
        ensure!(!contains(text.as_bytes(), MARKED), "{text}");
    }
    podium.wait_for_success()?;
    let log = fs::read_to_string(run.out().join("logs/coordinator.log"))?;
    ensure!(log.contains("TRACE"), "the logs are not complete");
    let mut found = Vec::new();
    find(run.folder(), &mut found)?;
    ensure!(found == [path_text(&run.secret_file())], "the secret is in {found:?}");
    Ok(())
}

#[test]
fn a_launched_run_has_a_secret_of_its_own_that_status_requires() -> Result<()> {
    let run = Run::embedded(&SETTINGS)?;
    ensure!(fs::metadata(run.secret_file())?.permissions().mode() & 0o777 == 0o600, "others can read it");
    let _coordinator = run.coordinator("coordinator")?;
    let (address, secret) = (run.address()?, run.secret_file());
    let at_address = ["status", "--coordinator", &address];
    let (code, said) = podium(&at_address)?;
    ensure!(code == Some(1) && said.contains("--secret-file"), "{code:?}: {said}");
    let (code, said) = podium(&[&at_address[..], &["--secret-file", path_text(&secret)]].concat())?;
    ensure!(code == Some(0) && said.contains("starting"), "{code:?}: {said}");

    let other = Run::embedded(&[&SETTINGS[..], &["run.seed=77"]].concat())?;
    ensure!(fs::read(&secret)? != fs::read(other.secret_file())?, "two runs have the same secret");
    let foreign = other.secret_file();
    let with_other = ["--secret-file", path_text(&foreign)];
    let (code, said) = podium(&[&at_address[..], &with_other].concat())?;
    ensure!(code == Some(UNAVAILABLE) && said.contains("carries another secret"), "{code:?}: {said}");
    let out = run.out();
    let (code, said) = podium(&[&["status", "--out", path_text(&out)][..], &with_other].concat())?;
    ensure!(code == Some(UNAVAILABLE) && said.contains("carries another secret"), "{code:?}: {said}");
    ensure!(!said.contains("does not answer"), "{said}");
    let (code, said) = status(&run)?;
    ensure!(code == Some(0) && said.contains("starting"), "{code:?}: {said}");
    ensure!(secret.ends_with(secret::FILE), "{}", secret.display());
    Ok(())
}

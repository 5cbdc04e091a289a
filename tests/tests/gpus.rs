//! Devices of runs on one machine, and metrics of GPUs, with the tests' stand-in for NVML.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use podium_nvml_stand_in::gpus;
use podium_service::gpus::Sampling;
use podium_service::metrics_server::Endpoint;
use podium_tests::launched::Launched;
use podium_tests::scrape::{Scrape, get};
use podium_tests::{PATIENCE, Process, binary, path_text};
use tokio_util::sync::CancellationToken;

/// A driver that is new enough, without the number of GPUs.
const DRIVER: &str = "580.65.06 13.0";
/// Variables of the caller that would change the tests.
const INHERITED: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"];

/// Makes a command see the described GPUs: `"<driver> <CUDA> <number>"`.
fn with_gpus(mut command: Command, folder: &Path, description: &str) -> Result<Command> {
    for name in INHERITED {
        command.env_remove(name);
    }
    command.env("LD_LIBRARY_PATH", podium_nvml_stand_in::install(folder)?).env(gpus::VARIABLE, description);
    Ok(command)
}

/// Runs `podium` to its end; returns whether it succeeded, and its output.
fn podium(arguments: &[&str], description: &str) -> Result<(bool, String)> {
    let folder = tempfile::tempdir()?;
    let mut command = Process::prepare("podium", arguments);
    command.current_dir(folder.path());
    let output = with_gpus(command, folder.path(), description)?.output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn check_config(settings: &[&str], description: &str) -> Result<(bool, String)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/configs/embedded.toml");
    let mut arguments = vec!["check-config", path_text(&file)];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    podium(&arguments, description)
}

#[test]
fn check_config_prints_the_devices_of_one_two_and_eight_gpus() -> Result<()> {
    let table = |settings: &[&str], gpus: u32| -> Result<String> {
        let (valid, text) = check_config(settings, &format!("{DRIVER} {gpus}"))?;
        ensure!(valid, "{text}");
        ensure!(text.contains("    devices: driver 580.65.06, CUDA 13.0\n"), "{text}");
        Ok(text)
    };
    let row =
        |gpu: u32, users: &str| format!("\n      cuda:{gpu}  GPU {gpu}, Stand-in 80GB, 80.0 GiB  {users}\n");
    let one = table(&[], 1)?;
    ensure!(one.contains(&row(0, "learner-0, worker-1, worker-2: 31 % of the memory each")), "{one}");
    let two = table(&["launch.colocate=none", "launch.workers=1"], 2)?;
    ensure!(two.contains(&row(0, "learner-0")) && two.contains("  worker-1\n"), "{two}");
    let eight = table(&["launch.colocate=none", "launch.workers=4", "launch.learner_ranks=2"], 8)?;
    for (gpu, users) in (0..).zip(["learner-0", "learner-1", "worker-1", "worker-2", "worker-3", "worker-4"])
    {
        ensure!(eight.contains(row(gpu, users).trim_start()), "no row for {users}: {eight}");
    }
    ensure!(eight.contains("cuda:7  GPU 7, Stand-in 80GB, 80.0 GiB  not used"), "{eight}");
    Ok(())
}

#[test]
fn a_run_file_without_launch_uses_all_gpus() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("run.toml");
    fs::write(&file, "[run]\nsteps = 3\n")?;
    let expected: [(u32, &[&str]); 3] = [
        (1, &["learner-0, worker-1: 47 % of the memory each\n"]),
        (2, &["learner-0\n", "worker-1\n"]),
        (4, &["learner-0\n", "worker-1\n", "worker-2\n", "worker-3\n"]),
    ];
    for (gpus, users) in expected {
        let (valid, text) = podium(&["check-config", path_text(&file)], &format!("{DRIVER} {gpus}"))?;
        ensure!(valid && !text.contains("warning"), "{text}");
        for (gpu, user) in users.iter().enumerate() {
            let row = format!("cuda:{gpu}  GPU {gpu}, Stand-in 80GB, 80.0 GiB  {user}");
            ensure!(text.contains(&row), "{gpus} GPUs: expected {row}, found {text}");
        }
    }
    Ok(())
}

#[test]
fn check_config_reports_gpus_that_do_not_suffice_as_a_warning() -> Result<()> {
    let (valid, text) = check_config(&["launch.colocate=none"], &format!("{DRIVER} 2"))?;
    ensure!(
        valid && text.contains("warning: podium train cannot start on this machine: 3 processes"),
        "{text}"
    );
    // A run file for a cluster is checked on a host without a GPU.
    let (valid, text) = check_config(&["launch.rollout_device=cuda"], &format!("{DRIVER} 0"))?;
    ensure!(valid && !text.contains("devices: ") && !text.contains("warning"), "{text}");
    Ok(())
}

#[test]
fn too_few_gpus_are_an_error_with_the_table_and_the_remedies() -> Result<()> {
    for (gpus, remedy) in [(1, "set launch.rollout_device = \"cpu\""), (2, "set launch.workers = 1")] {
        let arguments = ["demo", "--set", "launch.colocate=none"];
        let (succeeded, text) = podium(&arguments, &format!("{DRIVER} {gpus}"))?;
        ensure!(!succeeded && text.contains("error: 3 processes require a GPU each, and"), "{text}");
        ensure!(text.contains("GPU 0, Stand-in 80GB, 80.0 GiB  learner-0\n"), "{text}");
        ensure!(text.contains("  no GPU  ") && text.contains("worker-2\n"), "{text}");
        ensure!(text.contains(remedy) && text.contains("launch.colocate = \"share\""), "{text}");
    }
    Ok(())
}

#[test]
fn an_old_driver_is_an_error_and_the_cpu_remains_possible() -> Result<()> {
    let old = "570.86.15 12.8 2";
    for device in ["auto", "cuda"] {
        let setting = format!("launch.learner_device={device}");
        let (succeeded, text) = podium(&["demo", "--set", &setting], old)?;
        ensure!(!succeeded && text.contains("driver 570.86.15 supports CUDA up to 12.8"), "{device}: {text}");
        ensure!(
            text.contains("expected CUDA 13.0") && text.contains("driver 580 or newer"),
            "{device}: {text}"
        );
    }
    let settings = [
        "run.steps=1",
        "rollout.prompts_per_step=12",
        "evaluation.users=12",
        "launch.workers=1",
        "launch.rollout_device=cpu",
        "launch.learner_device=cpu",
    ];
    let launched = Launched::new(&settings)?;
    let command = with_gpus(launched.command(None), launched.run.folder(), old)?;
    let mut run = Process::start("podium", command, launched.run.folder())?;
    run.wait_for_success()?;
    let output = run.output();
    ensure!(output.contains("  cpu ") && output.contains("learner-0, worker-1\n"), "{output}");
    Ok(())
}

#[test]
fn a_driver_without_a_usable_gpu_is_an_error_and_no_run_on_the_cpu() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for device in ["auto", "cuda"] {
        let mut learner =
            Process::prepare("podium-learner", &["selfcheck", "--no-speed", "--device", device]);
        learner.env("LD_LIBRARY_PATH", podium_cuda_stand_in::install(folder.path())?);
        let output = learner.env(podium_cuda_stand_in::machine::VARIABLE, "12.8 1").output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        // It depends on set-up whether libtorch's CUDA part can be loaded.
        let unusable = "an NVIDIA driver for CUDA 12.8 is installed, but libtorch finds no usable GPU";
        let missing = "an NVIDIA driver is installed, but libtorch_cuda.so cannot be loaded";
        ensure!(!output.status.success(), "{device}: {text}");
        ensure!(text.contains(unusable) || text.contains(missing), "{device}: {text}");
    }
    Ok(())
}

/// Stands for a worker or learner: records its arguments and environment, and waits for the end.
const RECORDER: &str = "#!/bin/sh
echo \"ARGUMENTS=$*\" >\"$0.$$.part\"
env >>\"$0.$$.part\"
mv \"$0.$$.part\" \"$0.$$.seen\"
exec sleep 600
";

/// Returns the recorded variables, and the arguments as `ARGUMENTS`, of all recorders in `folder`.
fn recorded(folder: &Path) -> Result<Vec<BTreeMap<String, String>>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seen") {
            let text = fs::read_to_string(path)?;
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            all.push(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        }
    }
    Ok(all)
}

#[test]
fn each_process_receives_a_gpu_of_its_own() -> Result<()> {
    let launched = Launched::new(&["launch.colocate=none", "launch.learner_ranks=2"])?;
    let programs = launched.run.folder().join("programs");
    fs::create_dir(&programs)?;
    for name in ["podium", "podium-coordinator"] {
        fs::copy(binary(name), programs.join(name))?;
    }
    for name in ["podium-rollout-worker", "podium-learner"] {
        fs::write(programs.join(name), RECORDER)?;
        fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755))?;
    }
    let command = launched.command(Some(&programs.join("podium")));
    let mut command = with_gpus(command, launched.run.folder(), &format!("{DRIVER} 8"))?;
    // The user's choice of GPUs, and a variable that is not replaced.
    command.env("CUDA_VISIBLE_DEVICES", "7,6,5,4,3").env("PYTORCH_CUDA_ALLOC_CONF", "backend:native");
    let mut run = Process::start("podium", command, launched.run.folder())?;
    let start = Instant::now();
    let seen = loop {
        let seen = recorded(&programs)?;
        if seen.len() == 4 {
            break seen;
        }
        ensure!(start.elapsed() < PATIENCE, "{} processes started:\n{}", seen.len(), run.output());
        std::thread::sleep(Duration::from_millis(20));
    };
    let expected = [("--rank 0", 7), ("--rank 1", 6), ("--cache", 5), ("--cache", 4)];
    for (argument, gpu) in expected {
        // The workers share a cache and differ only in their GPUs.
        let is_it = |process: &&BTreeMap<String, String>| {
            process["ARGUMENTS"].contains(argument)
                && (argument != "--cache" || process.get("CUDA_VISIBLE_DEVICES") == Some(&gpus::uuid(gpu)))
        };
        let process = seen.iter().find(is_it).context(argument)?;
        ensure!(process["ARGUMENTS"].ends_with("--device cuda"), "{process:?}");
        let found = |name: &str| process.get(name).map(String::as_str);
        ensure!(found("CUDA_VISIBLE_DEVICES") == Some(&gpus::uuid(gpu)), "{argument}: {process:?}");
        ensure!(found("CUBLAS_WORKSPACE_CONFIG") == Some(":4096:8"), "{process:?}");
        ensure!(found("PYTORCH_CUDA_ALLOC_CONF") == Some("backend:native"), "{process:?}");
        ensure!(found("PYTORCH_ALLOC_CONF").is_none(), "{process:?}");
    }
    run.signal(Signal::SIGTERM)?;
    run.wait_for_code(75)?;
    let output = run.output();
    ensure!(output.contains("cuda:4  GPU 3, Stand-in 80GB, 80.0 GiB  not used"), "{output}");
    Ok(())
}

/// In the environment of a process that serves metrics: its device, and the file for its address.
const SERVE: [&str; 2] = ["PODIUM_TEST_DEVICE", "PODIUM_TEST_ADDRESS_FILE"];

/// Serves the metrics of a GPU until the process is killed.
async fn serve(device: &str) -> Result<()> {
    let endpoint = Endpoint::start("127.0.0.1:0", Vec::new(), CancellationToken::new()).await?;
    let _sampling = Sampling::start(device);
    let file = env::var(SERVE[1])?;
    podium_files::durable::write(Path::new(&file), endpoint.address().to_string().as_bytes())?;
    tokio::time::sleep(PATIENCE).await;
    Ok(())
}

/// The test starts itself as the process that serves, since only a new process can have other libraries and variables.
#[tokio::test]
async fn the_gpu_of_a_process_has_metrics() -> Result<()> {
    if let Ok(device) = env::var(SERVE[0]) {
        return serve(&device).await;
    }
    let folder = tempfile::tempdir()?;
    let start = |name: &str, device: &str, description: &str| -> Result<(Process, String)> {
        let file = folder.path().join(format!("{name}.address"));
        let mut command = Command::new(env::current_exe()?);
        command.args(["--exact", "gpus::the_gpu_of_a_process_has_metrics", "--nocapture"]);
        let mut command = with_gpus(command, folder.path(), description)?;
        command.env("CUDA_VISIBLE_DEVICES", "2,1").env(SERVE[0], device).env(SERVE[1], &file);
        let process = Process::start(name, command, folder.path())?;
        let began = Instant::now();
        while !file.exists() {
            ensure!(began.elapsed() < PATIENCE, "{name} does not serve:\n{}", process.output());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok((process, fs::read_to_string(&file)?))
    };
    let (_process, address) = start("gpu", "cuda:1", &format!("{DRIVER} 4"))?;
    let gpu = gpus::uuid(1);
    let labels = [("gpu", gpu.as_str())];
    let began = Instant::now();
    // The last one of a sample.
    while Scrape::of(&address)?.sum("podium_gpu_power_watts", &labels) == 0.0 {
        ensure!(began.elapsed() < PATIENCE, "there are no samples: {:?}", Scrape::of(&address)?);
        std::thread::sleep(Duration::from_millis(20));
    }
    let scrape = Scrape::of(&address)?;
    let expected = [
        ("podium_gpu_memory_used_bytes", gpus::used_bytes(1) as f64),
        ("podium_gpu_memory_total_bytes", gpus::MEMORY_BYTES as f64),
        ("podium_gpu_utilisation_ratio", 0.2),
        ("podium_gpu_power_watts", 200.0),
    ];
    for (name, value) in expected {
        let found = scrape.sum(name, &labels);
        ensure!((found - value).abs() < 1e-9 * value, "{name} is {found}, expected {value}");
        ensure!(
            scrape.samples.iter().filter(|sample| sample.name == name).count() == 1,
            "{:?}",
            scrape.samples
        );
    }
    // A process on the CPU declares them.
    let (_process, address) = start("cpu", "cpu", &format!("{DRIVER} 4"))?;
    ensure!(get(&address, "/metrics/declared")?.contains("podium_gpu_power_watts"), "they are not declared");
    ensure!(!get(&address, "/metrics")?.contains("podium_gpu_"), "a process on the CPU has values");
    Ok(())
}

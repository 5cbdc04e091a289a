//! A process that writes weights may be killed at any time: the previous weights stay intact.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod tiny;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use podium_checkpoint::{Checkpoint, Config, Dtype, Error, TensorInfo, parameters, write};
use podium_files::durable::new_folder;

/// Environment variable that turns `writer_process` into the writer, with its folder.
const FOLDER: &str = "PODIUM_TEST_WEIGHTS_FOLDER";
const ROUNDS: u64 = 10;

fn config() -> Config {
    tiny::config("qwen3", &[("vocab_size", 40_000.into())])
}

fn infos(config: &Config) -> Vec<TensorInfo> {
    let info = |parameter: parameters::Parameter| TensorInfo {
        name: parameter.name,
        dtype: Dtype::BF16,
        shape: parameter.shape,
    };
    parameters::list(config).into_iter().map(info).collect()
}

/// The version of the folder's weights, which must all be the same.
fn version(folder: &Path) -> u8 {
    let config = config();
    let checkpoint = Checkpoint::open(folder, &config).unwrap();
    let mut versions = Vec::new();
    for info in infos(&config) {
        versions.extend_from_slice(checkpoint.tensor(&info.name).unwrap().bytes());
    }
    versions.dedup();
    assert_eq!(versions.len(), 1, "{} holds a mixture", folder.display());
    versions[0]
}

/// Not a test of its own: the process that the test below starts and kills.
#[test]
fn writer_process() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let infos = infos(&config());
    let first = fs::read_dir(folder).unwrap().count();
    for number in first.. {
        let version = (number % 100) as u8;
        let bytes = |info: &TensorInfo| Ok::<_, Error>(vec![version; info.size() as usize]);
        write(&folder.join("replaced"), &infos, u64::MAX, bytes).unwrap();
        new_folder(&folder.join(format!("new-{number}")), |new| write(new, &infos, 500_000, bytes)).unwrap();
        println!("wrote {version}");
    }
}

#[test]
fn a_writer_killed_at_any_time_leaves_complete_weights() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("replaced")).unwrap();
    for round in 0..ROUNDS {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["writer_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut next = || loop {
            let line = lines.next().expect("the writer continues until it is killed").unwrap();
            if line.contains("wrote ") {
                return Instant::now();
            }
        };
        // A different time in each round, within a write that takes about as long as the previous one.
        let (begin, end) = (next(), next());
        let delay = (end - begin).mul_f64((round as f64 + 0.5) / ROUNDS as f64);
        std::thread::sleep(delay.min(Duration::from_secs(1)));
        writer.kill().unwrap();
        writer.wait().unwrap();

        version(&folder.path().join("replaced"));
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if let Some(number) = name.strip_prefix("new-") {
                assert_eq!(u64::from(version(&path)), number.parse::<u64>().unwrap() % 100);
            }
        }
    }
}

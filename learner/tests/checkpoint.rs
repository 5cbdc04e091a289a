//! A process that writes checkpoints may be killed at any time: the previous checkpoint stays intact.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use podium_grpo::Step;
use podium_grpo::rng::Stream;
use podium_learner::checkpoint::Checkpoints;
use podium_learner::update::Metrics;
use tch::{Kind, Tensor};

/// Environment variable that turns `writer_process` into the writer, with its folder.
const FOLDER: &str = "PODIUM_TEST_CHECKPOINT_FOLDER";
const NUMBERS: i64 = 200_000;

fn open(folder: &Path) -> Checkpoints {
    Checkpoints::open(folder, "cafe", 0).unwrap()
}

fn state(step: u64) -> Vec<(String, Tensor)> {
    vec![("weight".to_owned(), Tensor::full([NUMBERS], step as f64, (Kind::Float, tch::Device::Cpu)))]
}

/// Not a test of its own: the process that the test below starts and kills.
#[test]
fn writer_process() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let checkpoints = open(Path::new(&folder));
    let last = checkpoints.latest().unwrap().map_or(0, |checkpoint| checkpoint.next_step.0);
    for step in last + 1.. {
        checkpoints.write(Step(step), &Metrics::new(), &state(step)).unwrap();
        println!("wrote {step}");
    }
}

#[test]
fn a_writer_killed_at_any_time_leaves_the_previous_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut times = Stream::new(1, "times to kill", &[]);
    let mut acknowledged = 0;
    for _ in 0..8 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["writer_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut next = || loop {
            let line = lines.next().expect("the writer continues until it is killed").unwrap();
            if let Some((_, step)) = line.split_once("wrote ") {
                return step.parse::<u64>().unwrap();
            }
        };
        let start = Instant::now();
        acknowledged = next().max(acknowledged);
        let one = Instant::now();
        acknowledged = next().max(acknowledged);
        // A time within the next write, which takes about as long as the last one.
        let pause = one.elapsed().min(start.elapsed()).mul_f64(times.uniform());
        let until = Instant::now() + pause.min(Duration::from_secs(1));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        writer.kill().unwrap();
        writer.wait().unwrap();

        let latest = open(folder.path()).latest().unwrap().unwrap();
        let step = latest.next_step.0;
        assert!(step >= acknowledged, "{step} after {acknowledged}");
        let target = state(0);
        let saved = latest.load(vec![(target[0].0.clone(), target[0].1.size())]).unwrap();
        assert!(saved[&target[0].0].equal(&state(step)[0].1));
    }
}

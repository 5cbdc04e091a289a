//! Trains the embedded policy with several methods for the same number of steps, and prints the ranking metrics of
//! each: the table of docs/design/comparison.md.
//!
//! ```text
//! cargo run --release -p podium-tests --example comparison -- --steps 120 --seeds 0,1,2 [--out DIR] [VARIANT …]
//! ```
//!
//! The runs stay in the output folder, and complete runs are not repeated.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use podium_tests::{DEFAULTS, STATIC_WORLD, path_text, rows};
use serde_json::Value;

/// A training method: its name, and the keys that differ from the demo's.
type Variant = (&'static str, &'static [&'static str]);

/// The reward of the released code, which the reward check refuses.
const PAPER: &str = "reward.terms=[{name=\"paper\"}]";
const UNCHECKED: &str = "reward.check=warn";
const NDCG: &str = "reward.terms=[{name=\"form\",weight=0.1},{name=\"ndcg\",k=3,weight=1.0}]";

const VARIANTS: [Variant; 6] = [
    ("plain GRPO, the paper's reward", &[PAPER, UNCHECKED]),
    ("NDCG reward", &[NDCG]),
    ("credit by rank, NDCG reward", &[NDCG, "grpo.credit=rank", "grpo.importance_sampling_level=rank"]),
    ("constrained answers, the paper's reward", &[PAPER, UNCHECKED, "rollout.constrain_answers=true"]),
    ("constrained answers, NDCG reward", &[NDCG, "rollout.constrain_answers=true"]),
    (
        "constrained answers, credit by rank, NDCG reward",
        &[NDCG, "rollout.constrain_answers=true", "grpo.credit=rank", "grpo.importance_sampling_level=rank"],
    ),
];

/// Settings that all variants share: a quick run, evaluated at its start and end, without constrained answers unless the
/// variant sets them, in a fixed catalogue.
const SHARED: [&str; 2] = ["evaluation.every_steps=0", "learner.checkpoint_every_steps=1000"];

const METRICS: [&str; 3] = ["NDCG@3", "HR@1", "HR@3"];

struct Request {
    steps: u64,
    seeds: Vec<u64>,
    out: PathBuf,
    chosen: Vec<usize>,
}

/// A mean over users and the half-width of its 95 % interval.
#[derive(Clone, Copy)]
struct Estimate {
    mean: f64,
    half: f64,
}

fn main() -> Result<()> {
    let request = request(std::env::args().skip(1))?;
    let mut lines = vec![
        "| method | NDCG@3 | HR@1 | HR@3 | well-formed | NDCG@3 by seed |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for &number in &request.chosen {
        let (name, keys) = VARIANTS[number];
        let mut ends = Vec::new();
        for &seed in &request.seeds {
            let folder = request.out.join(format!("{number}-seed-{seed}-steps-{}", request.steps));
            ends.push(
                train(&folder, keys, seed, request.steps).with_context(|| format!("{name}, seed {seed}"))?,
            );
        }
        lines.push(line(name, &ends)?);
        println!("{}", lines.join("\n"));
    }
    Ok(())
}

fn request(mut arguments: impl Iterator<Item = String>) -> Result<Request> {
    let mut request = Request {
        steps: 120,
        seeds: vec![0, 1, 2],
        out: PathBuf::from("runs/comparison"),
        chosen: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--steps" => request.steps = value()?.parse()?,
            "--seeds" => request.seeds = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--out" => request.out = value()?.into(),
            number => {
                let number: usize =
                    number.parse().with_context(|| format!("invalid variant number {number}"))?;
                ensure!(
                    number < VARIANTS.len(),
                    "unknown variant {number}: expected 0 to {}",
                    VARIANTS.len() - 1
                );
                request.chosen.push(number);
            }
        }
    }
    if request.chosen.is_empty() {
        request.chosen = (0..VARIANTS.len()).collect();
    }
    Ok(request)
}

/// Returns the evaluation of the last version of a run, which is trained unless it exists.
fn train(folder: &Path, keys: &[&str], seed: u64, steps: u64) -> Result<Value> {
    if let Some(end) = last_evaluation(folder, steps) {
        return Ok(end);
    }
    fs::create_dir_all(folder.parent().context("an output folder has a parent")?)?;
    let mut command = Command::new(program()?);
    command.args([
        "demo",
        "--out",
        path_text(folder),
        "--seed",
        &seed.to_string(),
        "--steps",
        &steps.to_string(),
    ]);
    for key in DEFAULTS.iter().chain(&STATIC_WORLD).chain(&SHARED).chain(keys) {
        command.args(["--set", key]);
    }
    let output = command.output()?;
    ensure!(output.status.success(), "podium demo failed: {}", String::from_utf8_lossy(&output.stderr));
    match last_evaluation(folder, steps) {
        Some(end) => Ok(end),
        None => bail!("{} has no evaluation of version {steps}", folder.display()),
    }
}

fn last_evaluation(folder: &Path, version: u64) -> Option<Value> {
    let evaluations = rows(&folder.join("evaluations.jsonl")).ok()?;
    evaluations.into_iter().find(|row| row["policy_version"] == version)
}

/// The release binary beside the folder of examples.
fn program() -> Result<PathBuf> {
    let example = std::env::current_exe()?;
    let folder =
        example.parent().and_then(Path::parent).context("examples lie in target/release/examples")?;
    let program = folder.join("podium");
    ensure!(program.is_file(), "{} is missing: run `make build` first", program.display());
    Ok(program)
}

fn line(name: &str, ends: &[Value]) -> Result<String> {
    let mut cells = vec![name.to_owned()];
    for metric in METRICS {
        let estimates = ends.iter().map(|end| estimate(end, metric)).collect::<Result<Vec<_>>>()?;
        let Estimate { mean, half } = average(&estimates);
        cells.push(format!("{mean:.3} ± {half:.3}"));
    }
    let well_formed = ends
        .iter()
        .map(|end| end["completions/well_formed"].as_f64().context("no share of well-formed answers"));
    let well_formed = well_formed.collect::<Result<Vec<_>>>()?;
    cells.push(format!("{:.3}", well_formed.iter().sum::<f64>() / ends.len() as f64));
    let seeds = ends.iter().map(|end| Ok(format!("{:.3}", estimate(end, METRICS[0])?.mean)));
    cells.push(seeds.collect::<Result<Vec<_>>>()?.join(" "));
    Ok(format!("| {} |", cells.join(" | ")))
}

fn estimate(end: &Value, metric: &str) -> Result<Estimate> {
    let number = |key: &str| end[metric][key].as_f64().with_context(|| format!("no {metric}/{key}"));
    Ok(Estimate { mean: number("mean")?, half: (number("high")? - number("low")?) / 2.0 })
}

/// Returns the mean over seeds. All seeds are evaluated on the same users, so that the interval is not narrower than
/// theirs; the variance between seeds is added (1.96 standard errors of their mean).
fn average(estimates: &[Estimate]) -> Estimate {
    let count = estimates.len() as f64;
    let mean = estimates.iter().map(|estimate| estimate.mean).sum::<f64>() / count;
    let half = estimates.iter().map(|estimate| estimate.half).sum::<f64>() / count;
    let squares = estimates.iter().map(|estimate| (estimate.mean - mean).powi(2)).sum::<f64>();
    let between = 1.96 * (squares / (count - 1.0).max(1.0) / count).sqrt();
    Estimate { mean, half: half.hypot(between) }
}

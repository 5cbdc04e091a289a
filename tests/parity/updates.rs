//! Updates on recorded groups by Podium and by TRL: the same files and settings, compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use podium_tests::{path_text, rows};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::comparison::{Comparison, Location};
use crate::podium;
use crate::reference::{self, Checkpoint, repository};

/// Number of groups per step.
const GROUPS_PER_STEP: usize = 2;
/// Maximum relative error of loss, metrics, gradient norm and weights.
const LIMIT: f64 = 1e-4;

/// A configuration to compare.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    /// Its row of the table.
    pub(crate) row: String,
    /// Distinguishes it from the others of its row.
    pub(crate) name: String,
    pub(crate) checkpoint: &'a Checkpoint,
    /// Whether the checkpoint's adapter is trained, or all of the model.
    pub(crate) adapter: bool,
    /// Rows for both sides.
    pub(crate) groups: &'a [Value],
    /// By TRL's names.
    pub(crate) settings: Vec<(&'static str, Value)>,
    /// `importance_sampling_correction`, under TRL's own name for it.
    pub(crate) correction: Option<&'static str>,
}

/// Output folders of both sides.
struct Folders {
    podium: PathBuf,
    trl: PathBuf,
}

/// Trains every case on both sides and compares metrics and weights.
pub(crate) fn compare(title: &'static str, cases: &[Case<'_>]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folders: Vec<Folders> = (0..cases.len())
        .map(|number| Folders {
            podium: folder.path().join(format!("podium-{number}")),
            trl: folder.path().join(format!("trl-{number}")),
        })
        .collect();
    let groups = |number: usize| folder.path().join(format!("groups-{number}.jsonl"));
    for (number, case) in cases.iter().enumerate() {
        reference::write_rows(&groups(number), case.groups)?;
    }
    let jobs: Vec<Value> = cases
        .iter()
        .enumerate()
        .map(|(number, case)| job(case, &groups(number), &folders[number].trl))
        .collect();
    let jobs_file = folder.path().join("jobs.json");
    fs::write(&jobs_file, serde_json::to_vec(&jobs)?)?;
    std::thread::scope(|scope| {
        let trl = scope.spawn(|| {
            reference::run(
                &repository().join("tests/parity/train_with_trl.py"),
                &["--jobs", path_text(&jobs_file)],
            )
        });
        for (number, case) in cases.iter().enumerate() {
            replay(case, &groups(number), &folders[number].podium)?;
        }
        trl.join().expect("a thread that does not panic")
    })?;
    let mut comparison = Comparison::new(title);
    for (case, folders) in cases.iter().zip(&folders) {
        compare_metrics(case, folders, &mut comparison)?;
        compare_weights(case, folders, &mut comparison)?;
    }
    comparison.finish()
}

fn job(case: &Case<'_>, groups: &Path, out: &Path) -> Value {
    let mut settings: serde_json::Map<String, Value> =
        case.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    if let Some(correction) = case.correction {
        settings.insert("vllm_importance_sampling_mode".to_owned(), json!(correction));
        settings.insert("vllm_importance_sampling_clip_max".to_owned(), json!(3.0));
    }
    json!({
        "model": case.checkpoint.model(),
        "adapter": case.adapter.then(|| case.checkpoint.adapter()),
        "groups": groups,
        "groups_per_step": GROUPS_PER_STEP,
        "out": out,
        "settings": settings,
        "weigh_behaviour": case.correction.is_some(),
    })
}

/// Runs `podium-learner replay` like a user would.
fn replay(case: &Case<'_>, groups: &Path, out: &Path) -> Result<()> {
    let (model, adapter) = (case.checkpoint.model(), case.checkpoint.adapter());
    let per_step = GROUPS_PER_STEP.to_string();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut settings: Vec<String> =
        case.settings.iter().map(|(name, value)| format!("grpo.{name}={}", text(value))).collect();
    settings.extend(
        case.correction.map(|correction| format!("grpo.importance_sampling_correction={correction}")),
    );
    let mut arguments = vec!["replay", "--model", path_text(&model), "--groups", path_text(groups)];
    arguments.extend(["--groups-per-step", &per_step, "--out", path_text(out)]);
    arguments.extend(["--device", "cpu", "--threads", "1"]);
    if case.adapter {
        arguments.extend(["--adapter", path_text(&adapter)]);
    }
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    podium::run("podium-learner", &arguments)
}

/// Metrics with their column, and the magnitude that a difference is relative to if they are nearly 0: the loss of
/// cancelling advantages and the divergence of nearly equal policies consist of float32 rounding.
const METRICS: [(&str, &str, f64); 22] = [
    ("loss", "loss", 1e-2),
    ("policy_loss", "loss", 1e-2),
    ("kl", "kl", 1e-3),
    ("entropy", "entropy", 1e-3),
    ("clip_ratio/low_mean", "clip", 1e-3),
    ("clip_ratio/low_min", "clip", 1e-3),
    ("clip_ratio/high_mean", "clip", 1e-3),
    ("clip_ratio/high_max", "clip", 1e-3),
    ("clip_ratio/region_mean", "clip", 1e-3),
    ("cispo_clip_ratio", "clip", 1e-3),
    ("grad_norm", "grad norm", 1e-6),
    ("learning_rate", "others", 1e-9),
    ("sampling/sampling_logp_difference/mean", "others", 1e-3),
    ("sampling/sampling_logp_difference/max", "others", 1e-3),
    ("sampling/importance_sampling_ratio/min", "others", 1e-3),
    ("sampling/importance_sampling_ratio/mean", "others", 1e-3),
    ("sampling/importance_sampling_ratio/max", "others", 1e-3),
    ("reward", "others", 1e-3),
    ("reward_std", "others", 1e-3),
    ("completions/mean_length", "others", 1e-3),
    ("completions/clipped_ratio", "others", 1e-3),
    ("completions/mean_terminated_length", "others", 1e-3),
];

fn compare_metrics(case: &Case<'_>, folders: &Folders, comparison: &mut Comparison) -> Result<()> {
    let [found, expected] = [&folders.podium, &folders.trl].map(|folder| rows(&folder.join("metrics.jsonl")));
    let (found, expected) = (found?, expected?);
    ensure!(
        found.len() == expected.len(),
        "{}: {} rows instead of {}",
        case.name,
        found.len(),
        expected.len()
    );
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        for (name, what, floor) in METRICS {
            let Some(expected) = expected[name].as_f64() else { continue };
            let name_in_full = format!("{}, step {}, {name}", case.name, step + 1);
            // TRL repeats the values of the step's start with every pass.
            let later_pass = name.starts_with("sampling/") && found[name].is_null();
            let number = found[name].as_f64();
            ensure!(later_pass || number.is_some(), "{name_in_full} is missing");
            let location = Location { row: &case.row, case: &name_in_full, what };
            if let Some(number) = number {
                comparison.relative(location, number, expected, floor, LIMIT);
            }
        }
    }
    Ok(())
}

fn compare_weights(case: &Case<'_>, folders: &Folders, comparison: &mut Comparison) -> Result<()> {
    let name = if case.adapter { "adapter/adapter_model.safetensors" } else { "model/model.safetensors" };
    let [found, expected] = [&folders.podium, &folders.trl].map(|folder| tensors(&folder.join(name)));
    let (found, expected) = (found?, expected?);
    ensure!(found.keys().eq(expected.keys()), "{}: the names of the tensors differ", case.name);
    for (name, expected) in &expected {
        let distance = norm(found[name].iter().zip(expected).map(|(found, expected)| found - expected));
        let case_in_full = format!("{}, {name}", case.name);
        let location = Location { row: &case.row, case: &case_in_full, what: "weights" };
        comparison.distance(location, distance / norm(expected.iter().copied()), LIMIT);
    }
    Ok(())
}

fn norm(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.map(|number| number * number).sum::<f64>().sqrt()
}

/// Returns the tensors of a float32 file, by name.
fn tensors(path: &Path) -> Result<BTreeMap<String, Vec<f64>>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let mut result = BTreeMap::new();
    for (name, tensor) in tensors.tensors() {
        ensure!(tensor.dtype() == safetensors::Dtype::F32, "{name} in {} is not float32", path.display());
        let number = |bytes: &[u8]| Ok::<_, anyhow::Error>(f64::from(f32::from_le_bytes(bytes.try_into()?)));
        result.insert(name, tensor.data().chunks_exact(4).map(number).collect::<Result<_>>()?);
    }
    Ok(result)
}

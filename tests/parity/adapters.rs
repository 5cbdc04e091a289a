//! Transfer of adapters between Podium and PEFT, and merged models.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use podium_tests::path_text;
use podium_tokenizer::Tokenizer;

use crate::comparison::{Comparison, mean_difference};
use crate::podium;
use crate::reference::{self, Checkpoint, Sequence, Subject, sequences};

/// Files of a folder's tokenizer.
const TOKENIZER_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "generation_config.json"];
/// Minimum mean difference of log-probabilities that indicates different weights.
const NOTICEABLE: f64 = 1e-2;

/// The tokenizer of the embedded data set, which fine-tuning uses.
fn embedded_tokenizer() -> Result<(tempfile::TempDir, u32)> {
    let folder = tempfile::tempdir()?;
    podium::run("podium-curator", &["embedded", "--out", path_text(folder.path())])?;
    let vocabulary = Tokenizer::load(folder.path())?.vocab_size();
    Ok((folder, vocabulary.try_into()?))
}

/// Creates a checkpoint with the embedded data set's vocabulary and tokenizer.
fn make(family: &str, seed: usize, tokenizer: &Path, vocabulary: u32) -> Result<Checkpoint> {
    let (seed, vocabulary) = (seed.to_string(), vocabulary.to_string());
    let flags = ["--family", family, "--seed", &seed, "--vocab", &vocabulary, "--hidden", "96"];
    let checkpoint = Checkpoint::make(&flags)?;
    for name in TOKENIZER_FILES {
        fs::copy(tokenizer.join(name), checkpoint.model().join(name))?;
    }
    Ok(checkpoint)
}

/// Compares the scores of Podium and of the reference with an adapter, and returns Podium's.
fn compare(
    case: &str,
    adapted: Subject,
    sequences: &[Sequence],
    comparison: &mut Comparison,
) -> Result<Vec<Vec<f64>>> {
    let expected = reference::score(adapted, sequences, 1.0, 0)?;
    let found = podium::score(adapted, sequences, 1.0, "float32")?;
    comparison.logprobs(case, "in PEFT", &found, &expected.logprobs);
    Ok(found)
}

#[test]
fn adapters_trained_here_score_alike_in_peft() -> Result<()> {
    let mut comparison = Comparison::new("Trained here");
    let (tokenizer, vocabulary) = embedded_tokenizer()?;
    let sequences = sequences(vocabulary);
    let all = ["lora.rank=4", "lora.alpha=16"];
    let some =
        ["lora.rank=3", "lora.alpha=12", "lora.rslora=true", "lora.targets=[\"q_proj\", \"down_proj\"]"];
    let cases: [(&str, &[&str]); 4] = [("qwen3", &all), ("qwen2", &all), ("llama", &all), ("qwen3", &some)];
    for (seed, (family, changes)) in cases.into_iter().enumerate() {
        let checkpoint = make(family, seed, tokenizer.path(), vocabulary)?;
        let (model, out) = (checkpoint.model(), tempfile::tempdir()?);
        podium::fine_tune(&model, out.path(), changes)?;
        let base = Subject { model: &model, adapter: None };
        let adapted = Subject { adapter: Some(out.path()), ..base };
        let case = format!("{family} {}", changes.join(" "));
        let found = compare(&case, adapted, &sequences, &mut comparison)?;
        let change = mean_difference(&found, &podium::score(base, &sequences, 1.0, "float32")?);
        ensure!(change > NOTICEABLE, "{case}: log-probabilities changed by only {change:.1e}");
    }
    comparison.finish()
}

#[test]
fn adapters_of_peft_train_on_here() -> Result<()> {
    let mut comparison = Comparison::new("Trained on here");
    let (tokenizer, vocabulary) = embedded_tokenizer()?;
    let sequences = sequences(vocabulary);
    for (seed, family) in ["qwen3", "qwen2", "llama"].into_iter().enumerate() {
        let checkpoint = make(family, 10 + seed, tokenizer.path(), vocabulary)?;
        let (model, start) = (checkpoint.model(), checkpoint.adapter());
        let from_start = format!("lora.adapter=\"{}\"", path_text(&start));
        let started = Subject { model: &model, adapter: Some(&start) };
        let before = podium::score(started, &sequences, 1.0, "float32")?;

        // Negligible steps: the resulting adapter is the initial one.
        let still = tempfile::tempdir()?;
        podium::fine_tune(&model, still.path(), &[&from_start, "sft.learning_rate=1e-12"])?;
        let kept = Subject { adapter: Some(still.path()), ..started };
        let after = compare(&format!("{family}, at rest"), kept, &sequences, &mut comparison)?;
        comparison.logprobs(&format!("{family}, at rest"), "start", &after, &before);

        let out = tempfile::tempdir()?;
        podium::fine_tune(&model, out.path(), &[&from_start])?;
        let trained = Subject { adapter: Some(out.path()), ..started };
        let after = compare(family, trained, &sequences, &mut comparison)?;
        let change = mean_difference(&after, &before);
        ensure!(change > NOTICEABLE, "{family}: log-probabilities changed by only {change:.1e}");
    }
    comparison.finish()
}

/// A test case of merging: flags of the checkpoint, and maximum size of a file.
struct Merge {
    family: &'static str,
    flags: &'static [&'static str],
    shard_bytes: u64,
}

const ONE_FILE: u64 = 1 << 30;
const SHARD: u64 = 150_000;

#[test]
fn merged_models_score_like_base_and_adapter() -> Result<()> {
    let mut comparison = Comparison::new("Merged");
    let sequences = sequences(512);
    for (seed, merge) in [
        Merge { family: "qwen3", flags: &[], shard_bytes: ONE_FILE },
        Merge { family: "qwen3", flags: &["--untied", "--shards"], shard_bytes: SHARD },
        Merge { family: "qwen2", flags: &["--untied"], shard_bytes: ONE_FILE },
        Merge { family: "qwen2", flags: &["--head-dim", "24"], shard_bytes: SHARD },
        Merge { family: "llama", flags: &["--shards"], shard_bytes: ONE_FILE },
        Merge { family: "llama", flags: &["--untied", "--dtype", "bfloat16"], shard_bytes: SHARD },
    ]
    .into_iter()
    .enumerate()
    {
        let seed = (20 + seed).to_string();
        let start = ["--family", merge.family, "--seed", &seed, "--hidden", "96"];
        let flags = [&start[..], merge.flags].concat();
        let checkpoint = Checkpoint::make(&flags)?;
        let (model, adapter, folder) = (checkpoint.model(), checkpoint.adapter(), tempfile::tempdir()?);
        let out = folder.path().join("merged");
        podium::merge(&model, &adapter, &out, merge.shard_bytes)?;
        check_files(&model, &out, merge.shard_bytes)?;

        let adapted = Subject { model: &model, adapter: Some(&adapter) };
        let expected = reference::score(adapted, &sequences, 1.0, 0)?.logprobs;
        let merged = Subject { model: &out, adapter: None };
        let loaded = reference::score(merged, &sequences, 1.0, 0)?.logprobs;
        let case = format!("{} {} to {} bytes", merge.family, merge.flags.join(" "), merge.shard_bytes);
        if merge.flags.contains(&"bfloat16") {
            comparison.rounded_logprobs(&case, "bf16", &loaded, &expected);
        } else {
            comparison.logprobs(&case, "loaded", &loaded, &expected);
        }
        comparison.logprobs(&case, "here", &podium::score(merged, &sequences, 1.0, "float32")?, &loaded);
    }
    comparison.finish()
}

/// Checks that the tokenizer is unchanged, and the weights are in one file or in several with an index.
fn check_files(model: &Path, merged: &Path, shard_bytes: u64) -> Result<()> {
    for name in TOKENIZER_FILES {
        ensure!(
            fs::read(model.join(name))? == fs::read(merged.join(name))?,
            "{name} differs from the base's"
        );
    }
    let mut sizes = Vec::new();
    for entry in fs::read_dir(merged)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "safetensors") {
            sizes.push(entry.metadata()?.len());
        }
    }
    let sharded = shard_bytes < ONE_FILE;
    ensure!((sizes.len() > 1) == sharded, "{} files, limit {shard_bytes} bytes", sizes.len());
    let index = merged.join("model.safetensors.index.json");
    ensure!(index.exists() == sharded, "{} exists: {}", index.display(), index.exists());
    Ok(())
}

//! Checkpoints and adapters of Transformers and PEFT: Podium scores, continues and samples the same.

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::comparison::Comparison;
use crate::podium;
use crate::reference::{self, Checkpoint, Sequence, Subject, sequences};

/// Vocabulary size of the checkpoints.
const VOCABULARY: u32 = 512;
/// Number of tokens of a greedy continuation.
const GREEDY_TOKENS: usize = 32;
/// Key heads: shared by two queries, by all, and by none; two of the head sizes are not powers of two.
const HEADS: [(&str, &[&str]); 3] = [
    ("4/2x32", &["--heads", "4", "--kv-heads", "2", "--head-dim", "32"]),
    ("4/1x24", &["--heads", "4", "--kv-heads", "1", "--head-dim", "24"]),
    ("3/3x40", &["--heads", "3", "--kv-heads", "3", "--head-dim", "40"]),
];

/// Compares all results of a checkpoint with and without its adapter.
fn compare(case: &str, checkpoint: &Checkpoint, comparison: &mut Comparison) -> Result<()> {
    let (model, adapter) = (checkpoint.model(), checkpoint.adapter());
    let base = Subject { model: &model, adapter: None };
    let adapted = Subject { adapter: Some(&adapter), ..base };
    let sequences = sequences(VOCABULARY);
    for (subject, [score, rounded, greedy]) in [
        (base, ["base", "base bf16", "base greedy"]),
        (adapted, ["adapter", "adapter bf16", "adapter greedy"]),
    ] {
        let expected = reference::score(subject, &sequences, 1.0, GREEDY_TOKENS)?;
        let found = podium::score(subject, &sequences, 1.0, "float32")?;
        comparison.logprobs(case, score, &found, &expected.logprobs);
        let found = podium::score(subject, &sequences, 1.0, "bfloat16")?;
        comparison.rounded_logprobs(case, rounded, &found, &expected.logprobs);
        let options = ["--greedy", "--max-new-tokens", &GREEDY_TOKENS.to_string()];
        let found = podium::generate(subject, &sequences, &options)?;
        comparison.tokens(case, greedy, &found.ids, &expected.greedy);
    }
    compare_sampled(case, adapted, &sequences, comparison)
}

/// Completions that Podium samples at a temperature, scored by Podium and by the reference.
fn compare_sampled(
    case: &str,
    subject: Subject,
    sequences: &[Sequence],
    comparison: &mut Comparison,
) -> Result<()> {
    let options = ["--temperature", "0.7", "--max-new-tokens", "20", "--seed", "5"];
    let sampled = podium::generate(subject, sequences, &options)?;
    let mut sequences = sequences.to_vec();
    for (sequence, ids) in sequences.iter_mut().zip(&sampled.ids) {
        sequence.completion_ids.clone_from(ids);
    }
    let expected = reference::score(subject, &sequences, 0.7, 0)?;
    comparison.logprobs(case, "sampled", &sampled.logprobs, &expected.logprobs);
    let scored = podium::score(subject, &sequences, 0.7, "float32")?;
    comparison.logprobs(case, "T=0.7", &scored, &expected.logprobs);
    Ok(())
}

fn make(family: &str, seed: usize, heads: &[&str], flags: &[&str]) -> Result<Checkpoint> {
    let seed = seed.to_string();
    let start = ["--family", family, "--seed", &seed, "--hidden", "96"];
    Checkpoint::make(&[&start[..], heads, flags].concat())
}

/// Tied and untied, one file and several, float32 and bfloat16, over the kinds of heads.
fn compare_family(family: &str, number: usize, title: &'static str) -> Result<()> {
    let mut comparison = Comparison::new(title);
    for index in 0..8 {
        let (heads, head_flags) = HEADS[(index + number) % HEADS.len()];
        let chosen = |bit: usize| index >> bit & 1 == 1;
        let (untied, shards, bfloat16) = (chosen(0), chosen(1), chosen(2));
        let mut flags = Vec::new();
        flags.extend(untied.then_some("--untied"));
        flags.extend(shards.then_some("--shards"));
        flags.extend(bfloat16.then_some(["--dtype", "bfloat16"]).into_iter().flatten());
        let case = format!("{family} {heads} {}", flags.join(" "));
        let checkpoint = make(family, 8 * number + index, head_flags, &flags)?;
        compare(&case, &checkpoint, &mut comparison)?;
    }
    comparison.finish()
}

#[test]
fn qwen3_checkpoints_score_alike() -> Result<()> {
    compare_family("qwen3", 0, "Qwen3")
}

#[test]
fn qwen2_checkpoints_score_alike() -> Result<()> {
    compare_family("qwen2", 1, "Qwen2")
}

#[test]
fn llama_checkpoints_score_alike() -> Result<()> {
    compare_family("llama", 2, "Llama")
}

/// `config.json` in the style of releases before Transformers 5.
fn in_old_style(config: &mut Map<String, Value>) {
    for key in ["rope_parameters", "layer_types", "transformers_version"] {
        config.shift_remove(key);
    }
    if let Some(dtype) = config.shift_remove("dtype") {
        config.insert("torch_dtype".to_owned(), dtype);
    }
}

const LLAMA3: &str = r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32}"#;
const YARN: &str = r#"{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
    "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.1}"#;

#[test]
fn scaled_rotations_score_alike_in_both_styles() -> Result<()> {
    let mut comparison = Comparison::new("Rotary scaling");
    // Prompts are longer than most of the contexts before scaling.
    let scalings = [
        ("llama", LLAMA3),
        ("qwen3", r#"{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}"#),
        ("qwen2", YARN),
        ("llama", r#"{"rope_type": "linear", "factor": 2.5}"#),
    ];
    for (seed, (family, scaling)) in scalings.into_iter().enumerate() {
        let checkpoint = make(family, 30 + seed, HEADS[0].1, &[])?;
        let scaling: Map<String, Value> = serde_json::from_str(scaling)?;
        let kind = scaling["rope_type"].as_str().unwrap_or_default().to_owned();
        checkpoint.edit_config(|config| {
            let mut parameters = scaling.clone();
            parameters.insert("rope_theta".to_owned(), json!(5000.0));
            config.insert("rope_parameters".to_owned(), parameters.into());
        })?;
        compare(&format!("{family} {kind}"), &checkpoint, &mut comparison)?;
        checkpoint.edit_config(|config| {
            in_old_style(config);
            config.insert("rope_theta".to_owned(), json!(5000.0));
            config.insert("rope_scaling".to_owned(), scaling.into());
        })?;
        compare(&format!("{family} {kind}, old style"), &checkpoint, &mut comparison)?;
    }
    comparison.finish()
}

#[test]
fn every_key_of_the_rotary_embedding_counts_alike() -> Result<()> {
    let mut comparison = Comparison::new("Keys of the rotary embedding");
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
    let with = |key: &str, value: Value| {
        let mut yarn = yarn.clone();
        yarn[key] = value;
        yarn
    };
    let both = with("rope_theta", json!(5000.0));
    let mut mscale = with("mscale", json!(0.7));
    mscale["mscale_all_dim"] = json!(0.5);
    for (seed, (case, family, keys)) in [
        ("not truncated", "qwen3", json!({"rope_scaling": with("truncate", json!(false))})),
        ("bounds swapped", "llama", json!({"rope_scaling": with("beta_slow", json!(64.0))})),
        (
            "original as a float",
            "qwen2",
            json!({"rope_scaling": with("original_max_position_embeddings", json!(64.0))}),
        ),
        (
            "original at the top",
            "llama",
            json!({"rope_scaling": yarn, "original_max_position_embeddings": 96}),
        ),
        ("mscale", "qwen3", json!({"rope_scaling": mscale})),
        ("both styles", "qwen3", json!({"rope_scaling": yarn, "rope_parameters": both})),
    ]
    .into_iter()
    .enumerate()
    {
        let checkpoint = make(family, 50 + seed, HEADS[0].1, &[])?;
        checkpoint.edit_config(|config| {
            in_old_style(config);
            config.insert("rope_theta".to_owned(), json!(5000.0));
            config.extend(keys.as_object().cloned().unwrap_or_default());
        })?;
        compare(&format!("{family} {case}"), &checkpoint, &mut comparison)?;
    }
    comparison.finish()
}

#[test]
fn released_configurations_score_alike() -> Result<()> {
    let mut comparison = Comparison::new("As released");
    for (seed, family) in ["qwen3", "qwen2", "llama"].into_iter().enumerate() {
        // Releases of Qwen2 and Llama default the head size to hidden / heads, which is 32 here.
        let heads = ["--heads", "3", "--kv-heads", "1", "--head-dim", "32"];
        let checkpoint = make(family, 40 + seed, &heads, &["--dtype", "bfloat16"])?;
        checkpoint.edit_config(|config| {
            in_old_style(config);
            config.insert("rope_theta".to_owned(), json!(1e6));
            config.insert("rope_scaling".to_owned(), Value::Null);
            if family != "qwen3" {
                config.shift_remove("head_dim");
            }
            if family != "llama" {
                config.insert("use_sliding_window".to_owned(), json!(false));
                config.insert("sliding_window".to_owned(), json!(64));
                config.insert("max_window_layers".to_owned(), json!(3));
            }
        })?;
        compare(family, &checkpoint, &mut comparison)?;
    }
    comparison.finish()
}

//! The worked table of docs/guides/memory.md against the formula.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::path::Path;

use podium_checkpoint::Config;
use podium_checkpoint::adapter::{AdapterConfig, Targets};
use podium_memory::{CONTEXT, Learner, Lease, MicroBatch, Model, Number, Selection, Worker, gibibytes, peak};

/// Memory of the cards in the table, in bytes.
const CARD: u64 = 80_000_000_000;

/// Name, width, feed-forward width, layers, query heads, whether the head is the embedding.
const MODELS: [(&str, i64, i64, i64, i64, bool); 4] = [
    ("Qwen3-0.6B", 1024, 3072, 28, 16, true),
    ("Qwen3-1.7B", 2048, 6144, 28, 16, true),
    ("Qwen3-4B", 2560, 9728, 36, 32, true),
    ("Qwen3-8B", 4096, 12_288, 36, 32, false),
];

fn model(index: usize, adapted: bool) -> Model {
    let (_, hidden, feed_forward, layers, heads, tied) = MODELS[index];
    let text = format!(
        r#"{{"model_type": "qwen3", "vocab_size": 151936, "hidden_size": {hidden}, "intermediate_size": {feed_forward},
            "num_hidden_layers": {layers}, "num_attention_heads": {heads}, "num_key_value_heads": 8, "head_dim": 128,
            "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "tie_word_embeddings": {tied}}}"#
    );
    let config = Config::parse(&text, Path::new("config.json")).unwrap();
    let adapter = AdapterConfig {
        rank: 16,
        alpha: 32.0,
        dropout: 0.0,
        rslora: false,
        targets: Targets::all_linear(),
        base_model: None,
    };
    Model::new(&config, Number::Bfloat16, adapted.then_some(&adapter)).unwrap()
}

fn learner(index: usize, adapted: bool, ranks: u64, sharded: bool) -> Learner {
    let micro_batch = MicroBatch { groups: 4, group_size: 8, prompt_tokens: 600, completion_tokens: 128 };
    Learner { recompute_layers: true, ranks, sharded, ..Learner::new(model(index, adapted), micro_batch) }
}

fn worker(index: usize) -> Worker {
    Worker {
        model: model(index, false),
        lease: Lease { prompts: 8, group_size: 8, prompt_tokens: 600, completion_tokens: 128 },
        prefill_tokens: 16_384,
        selection: Selection::Sampled,
        constrains: false,
        merges: false,
    }
}

/// Memory of a process in GiB, in bold if it does not fit the card.
fn cell(bytes: u64) -> String {
    let gib = gibibytes(CONTEXT + bytes);
    if CONTEXT + bytes <= CARD { gib } else { format!("**{gib}**") }
}

fn totals() -> String {
    let mut text =
        "| model | P | worker | adapter | all weights, 1 rank | 2 ranks | 2 ranks, sharded | 4 ranks | \
                    4 ranks, sharded |\n|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for (index, (name, ..)) in MODELS.iter().enumerate() {
        let of_learner =
            |adapted, ranks, sharded| cell(peak(&learner(index, adapted, ranks, sharded).phases()).total());
        let cells = [
            format!("{:.2} · 10⁹", model(index, false).parameters as f64 / 1e9),
            cell(peak(&worker(index).phases()).total()),
            of_learner(true, 1, false),
            of_learner(false, 1, false),
            of_learner(false, 2, false),
            of_learner(false, 2, true),
            of_learner(false, 4, false),
            of_learner(false, 4, true),
        ];
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    text
}

fn phases() -> String {
    let mut text =
        "| process | phase | weights | gradients | optimizer | activations | cache | logits | total |\n\
                    |---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    let processes = [
        ("worker", worker(2).phases().to_vec()),
        ("learner, adapter", learner(2, true, 1, false).phases().to_vec()),
        ("learner, all weights, 2 ranks, sharded", learner(2, false, 2, true).phases().to_vec()),
    ];
    for (process, phases) in processes {
        for phase in phases {
            let parts = [
                phase.weights,
                phase.gradients,
                phase.optimizer,
                phase.activations,
                phase.cache,
                phase.logits,
            ];
            let parts = parts.map(gibibytes).join(" | ");
            let _ = writeln!(text, "| {process} | {} | {parts} | {} |", phase.name, gibibytes(phase.total()));
        }
    }
    text
}

#[test]
fn the_tables_of_the_guide_are_those_of_the_formula() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/memory.md");
    let guide = std::fs::read_to_string(path).unwrap();
    for table in [phases(), totals()] {
        assert!(guide.contains(&table), "docs/guides/memory.md is out of date: expected this table\n{table}");
    }
}

#[test]
fn sharded_full_fine_tuning_fits_as_the_guide_states() {
    let fits = |index, ranks, sharded| {
        CONTEXT + peak(&learner(index, false, ranks, sharded).phases()).total() <= CARD
    };
    assert!(fits(2, 2, true) && fits(2, 2, false) && fits(2, 1, false), "4B on two cards and on one");
    assert!(fits(3, 4, true) && !fits(3, 4, false), "8B on four cards, but only sharded");
    assert!(!fits(3, 2, true), "8B not on two cards");
}

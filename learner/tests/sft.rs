//! Supervised fine-tuning by its command: the loss falls, and repetitions are byte-identical.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use podium_recsys::demonstration::demonstrate;
use podium_recsys::mixed::{self, Kind, Row};
use podium_recsys::task::{Case, Task};

const RUN: &str = r#"
[run]
name = "sft-test"
seed = 3

[world]
looks = 2
themes = 3
items_per_pair = 3
history = 3
train_users = 40
validation_users = 2
test_users = 2

[prompt]
template = "compact"

[answer]
layout = "ids"
list_length = 3

[candidates]
count = 4

[learner]
threads = 2

[sft]
steps = 60
batch_size = 8
micro_batch_size = 3
full_ranking_steps = 10
learning_rate = 0.01
warmup_steps = 5
"#;

const CONFIG: &str = r#"{
  "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 128, "hidden_size": 32,
  "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
  "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
  "initializer_range": 0.05, "hidden_act": "silu"
}"#;

fn sft(folder: &Path, out: &str, flags: &[&str]) -> Output {
    fs::write(folder.join("run.toml"), RUN).unwrap();
    fs::write(folder.join("config.json"), CONFIG).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_podium-learner"));
    command.arg("sft").arg("--run-file").arg(folder.join("run.toml")).arg("--out").arg(folder.join(out));
    command.args(["--device", "cpu"]).args(flags).current_dir(folder).output().unwrap()
}

fn succeed(folder: &Path, out: &str, flags: &[&str]) {
    let output = sft(folder, out, flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn fail(folder: &Path, flags: &[&str]) -> String {
    let output = sft(folder, "failed", flags);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn losses(out: &Path) -> Vec<f64> {
    let rows = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    rows.lines()
        .map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap()["loss"].as_f64().unwrap())
        .collect()
}

#[test]
fn it_learns_and_repeats_itself_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let random = ["--init-seed", "7", "--model-config", "config.json"];
    succeed(folder.path(), "one", &random);
    succeed(folder.path(), "two", &random);
    let files =
        ["config.json", "generation_config.json", "metrics.jsonl", "model.safetensors", "tokenizer.json"];
    for name in files {
        let bytes = |out: &str| fs::read(folder.path().join(out).join(name)).unwrap();
        assert!(bytes("one") == bytes("two"), "{name}");
    }
    let losses = losses(&folder.path().join("one"));
    assert_eq!(losses.len(), 60);
    let last = losses[50..].iter().sum::<f64>() / 10.0;
    assert!(losses[0] > 4.0, "a random policy knows nothing: {}", losses[0]);
    assert!(last < 1.6, "the common part of all demonstrations is learned: {last}");
}

#[test]
fn it_continues_from_a_policy_folder() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), "first", &["--init-seed", "7", "--model-config", "config.json"]);
    let more = ["--model", "first", "--set", "sft.steps=3", "--set", "sft.full_ranking_steps=0"];
    succeed(folder.path(), "second", &more);
    let (first, second) = (losses(&folder.path().join("first")), losses(&folder.path().join("second")));
    assert!(second[0] < first[0] / 2.0);
    assert!(folder.path().join("second/tokenizer_config.json").is_file());
}

#[test]
fn errors_name_the_missing_input() {
    let folder = tempfile::tempdir().unwrap();
    assert!(fail(folder.path(), &[]).contains("there is no policy to start from: expected --model DIR"));
    assert!(fail(folder.path(), &["--init-seed", "1", "--model-config", "none.json"]).contains("none.json"));
    let random = ["--init-seed", "7", "--model-config", "config.json"];
    let with = |set: &str| fail(folder.path(), &[&random[..], &["--set", set]].concat());
    let small = fs::read_to_string(folder.path().join("config.json")).unwrap().replace("128", "9");
    fs::write(folder.path().join("small.json"), small).unwrap();
    let small = ["--init-seed", "7", "--model-config", "small.json"];
    assert!(
        fail(folder.path(), &small)
            .contains("the policy's vocabulary is 9: expected at least the tokenizer's")
    );
    assert!(with("demonstration.reasoning_share=0.0").contains("has a demonstration"));
    assert!(with("sft.bach_size=1").contains("did you mean `sft.batch_size`"));
}

#[test]
fn rows_continue_the_think_block_of_the_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let random = ["--init-seed", "7", "--model-config", "config.json", "--set", "sft.steps=1"];
    succeed(folder.path(), "policy", &random);
    let file = podium_config::RunFile::parse(RUN, "the test's run file", &[]).unwrap();
    let dataset = podium_recsys::synthetic::generate(&file.world).unwrap();
    let task = Task::new(dataset, &file.task(), file.run.seed, Path::new("")).unwrap();
    let mut rows = Vec::new();
    for index in 0..8 {
        let case = task.training_case(index, 0).unwrap();
        let shown = demonstrate(&task, &file.demonstration, index, 0).unwrap().unwrap();
        let (prompt, completion) = (shown.prompt, shown.completion);
        let Case { user, history, candidates, target, .. } = case;
        let (epoch, kind) = (0, Kind::Reasoned);
        mixed::write(&mut rows, &Row { user, epoch, kind, history, candidates, target, prompt, completion })
            .unwrap();
    }
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let flags = [
        "--model",
        "policy",
        "--rows",
        "rows.jsonl",
        "--set",
        "sft.steps=1",
        "--set",
        "sft.full_ranking_steps=0",
    ];
    let tokens = |out: &str| {
        let rows = fs::read_to_string(folder.path().join(out).join("metrics.jsonl")).unwrap();
        serde_json::from_str::<serde_json::Value>(rows.lines().next().unwrap()).unwrap()["num_tokens"]
            .as_u64()
    };
    succeed(folder.path(), "plain", &flags);
    let template = |end: &str| {
        let text = format!(
            "{{{{ messages[0].content }}}}{{% if add_generation_prompt %}}assistant {end}{{% endif %}}"
        );
        fs::write(folder.path().join("policy/chat_template.jinja"), text).unwrap();
    };
    // A row opens the block with one token, which the prompt now contains.
    template("<think>");
    succeed(folder.path(), "opened", &flags);
    assert_eq!(tokens("opened").unwrap() + 8, tokens("plain").unwrap());
    template("<think> </think>");
    assert!(fail(folder.path(), &flags).contains("answer.require_thinking is true"));
    let lenient = [&flags[..], &["--set", "answer.require_thinking=false"]].concat();
    let refused = fail(folder.path(), &lenient);
    assert!(
        refused.contains("rows.jsonl:1: the completion reasons, and the chat template closes"),
        "{refused}"
    );
}

#[test]
fn it_imitates_a_training_file_and_reports_rows_that_are_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let file = podium_config::RunFile::parse(RUN, "the test's run file", &[]).unwrap();
    let dataset = podium_recsys::synthetic::generate(&file.world).unwrap();
    let task = Task::new(dataset, &file.task(), file.run.seed, Path::new("")).unwrap();
    let mut rows = Vec::new();
    for index in 0..20 {
        let case = task.training_case(index, 0).unwrap();
        let shown = demonstrate(&task, &file.demonstration, index, 0).unwrap().unwrap();
        let mut row = Row {
            user: case.user,
            epoch: 0,
            kind: Kind::Reasoned,
            history: case.history,
            candidates: case.candidates,
            target: case.target,
            prompt: shown.prompt,
            completion: shown.completion,
        };
        if index == 4 {
            row.prompt.user = row.prompt.user.repeat(20);
        }
        mixed::write(&mut rows, &row).unwrap();
    }
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let flags = ["--init-seed", "7", "--model-config", "config.json", "--rows", "rows.jsonl"];
    let with = |most| [&flags[..], &["--set", most]].concat();
    let output = sft(folder.path(), "out", &with("sft.longest_tokens=200"));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    assert!(log.contains("1 of 20 rows have more than 200 tokens and are skipped: line 5 ("), "{log}");
    let losses = losses(&folder.path().join("out"));
    assert!(losses[59] < losses[0] / 3.0, "{losses:?}");
    assert!(
        fail(folder.path(), &with("sft.longest_tokens=3"))
            .contains("expected a row of at most 3 tokens, found only 20 longer ones")
    );
}

use std::fs;

use podium_model::Config;

use podium_model::LoadOptions;

use super::*;
use crate::testing::config;

const GROUPS: &str = r#"{"prompt_ids": [1, 2], "completions": [{"ids": [3, 4], "reward": 1.0}, {"ids": [5], "reward": 0.0}]}
{"prompt_ids": [4], "completions": [{"ids": [6, 7, 8], "reward": 0.0}, {"ids": [9, 3], "reward": 0.5}]}

{"prompt_ids": [2, 2], "completions": [{"ids": [1], "reward": 0.25}, {"ids": [], "reward": null}]}
{"prompt_ids": [3], "completions": [{"ids": [2, 5], "reward": 0.0}, {"ids": [3, 4, 3], "reward": 1.0}]}
"#;

struct Replay {
    folder: tempfile::TempDir,
}

impl Replay {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model: Config = config();
        Policy::random(&model, 5, LoadOptions::default())
            .unwrap()
            .save(&folder.path().join("model"))
            .unwrap();
        Self { folder }
    }

    /// Replays, and returns metrics.jsonl.
    fn text(&self, groups: &str, settings: &[&str]) -> Result<String, Error> {
        let path = |name: &str| self.folder.path().join(name);
        fs::write(path("groups.jsonl"), groups).unwrap();
        let overrides: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let options = Options {
            model: path("model"),
            adapter: None,
            groups: path("groups.jsonl"),
            groups_per_step: 2,
            out: path("out"),
            settings: Settings::load(None, &overrides).unwrap(),
            device: Device::Cpu,
            threads: None,
        };
        run(&options)?;
        Ok(fs::read_to_string(path("out").join("metrics.jsonl")).unwrap())
    }

    fn run(&self, groups: &str, settings: &[&str]) -> Result<Vec<Metrics>, Error> {
        let text = self.text(groups, settings)?;
        Ok(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    fn refused(&self, groups: &str, settings: &[&str]) -> String {
        podium_service::logs::describe(&self.run(groups, settings).unwrap_err())
    }
}

#[test]
fn every_pass_has_a_row_and_the_policy_is_written() {
    let replay = Replay::new();
    let rows = replay.run(GROUPS, &["grpo.num_iterations=2", "grpo.beta=0.1", "lora.rank=2"]).unwrap();
    let steps: Vec<f64> = rows.iter().map(|row| row["step"]).collect();
    assert_eq!(steps, [1.0, 2.0, 3.0, 4.0]);
    assert!(rows[0]["kl"].abs() < 1e-9 && rows[1]["kl"] > 0.0);
    assert!((rows[0]["reward"] - 0.375).abs() < 1e-12 && (rows[2]["reward"] - 1.25 / 3.0).abs() < 1e-12);
    assert!((rows[3]["num_tokens"] - (8.0 + 6.0 + 6.0 + 6.0)).abs() < 1e-12);
    assert!(!rows[0].contains_key("sampling/sampling_logp_difference/mean"));
    assert!(replay.folder.path().join("out/adapter/adapter_model.safetensors").is_file());
    let longer = replay.run(GROUPS, &["grpo.loss_type=dr_grpo", "grpo.max_completion_length=6"]).unwrap();
    let shorter = replay.run(GROUPS, &["grpo.loss_type=dr_grpo"]).unwrap();
    assert!((shorter[0]["loss"] - 2.0 * longer[0]["loss"]).abs() < 1e-9);
    assert!(replay.folder.path().join("out/model/model.safetensors").is_file());
}

#[test]
fn a_row_at_fault_is_named() {
    let replay = Replay::new();
    let refused = |from: &str, to: &str, settings: &[&str], expected: &str| {
        assert!(GROUPS.contains(from));
        let error = replay.refused(&GROUPS.replace(from, to), settings);
        assert!(error.contains(expected), "{error}");
    };
    refused("[2, 2]", "[]", &[], "groups.jsonl:4: prompt_ids is empty");
    refused("[2, 2]", "[2, 99]", &[], "groups.jsonl:4 does not fit the model: token id 99");
    refused("[4]", "[-4]", &[], "groups.jsonl:2: expected an object with prompt_ids");
    refused(r#", {"ids": [], "reward": null}"#, "", &[], "groups.jsonl:4: completions has 1 entries");
    refused(
        r#""reward": 0.5"#,
        r#""reward": 0.5, "logprobs": [-1.0]"#,
        &[],
        "groups.jsonl:2: logprobs is there",
    );
    refused(r#""reward": 0.5"#, r#""reward": 0.5, "terms": [1.0]"#, &[], "groups.jsonl:2: terms are [1.0]");
    let ranks = r#""reward": 0.5, "ranks": [{"tokens": {"start": 1, "end": 3}, "reward": 1.0}]"#;
    refused(r#""reward": 0.5"#, ranks, &[], "groups.jsonl:2: listed item 0 has the tokens from 1 to 3");
    let allowed = r#""reward": 0.5, "allowed": [{"position": 1, "token_ids": [4, 5]}]"#;
    refused(r#""reward": 0.5"#, allowed, &[], "groups.jsonl:2: allowed does not fit ids");
    let separate = ["grpo.multi_objective_aggregation=normalize_then_sum"];
    refused("[4]", "[4]", &separate, "groups.jsonl:1: reward_weights has 0 entries");
    let corrected = ["grpo.importance_sampling_correction=token_mask"];
    refused("[4]", "[4]", &corrected, "groups.jsonl:1: logprobs is missing");
    let masked = ["grpo.mask_truncated_completions=true"];
    refused("[4]", "[4]", &masked, "groups.jsonl:1: a completion has no finish_reason");
    refused(r#", "reward": null"#, "", &[], "missing field `reward`");
    let sized = "groups.jsonl:1: a group of 2 completions: expected 8, as rollout.group_size";
    refused("[4]", "[4]", &["grpo.num_generations=8"], sized);
    assert!(replay.refused("", &[]).contains("holds 0 groups: expected at least 2"));
}

#[test]
fn a_step_without_any_reward_has_none() {
    let replay = Replay::new();
    let unscored = GROUPS.replace("1.0}, {", "null}, {").replace("0.0}", "null}").replace("0.5}", "null}");
    let text = replay.text(&unscored, &["grpo.num_generations=2"]).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows[0]["reward"].is_null() && rows[0]["reward_std"].is_null(), "{}", rows[0]);
    assert_eq!((rows[0]["loss"].as_f64(), rows[0]["grad_norm"].as_f64()), (Some(0.0), Some(0.0)));
    assert!((rows[1]["reward"].as_f64().unwrap() - 1.25 / 2.0).abs() < 1e-12);
}

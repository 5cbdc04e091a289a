//! GRPO updates compared with TRL's: every loss with scalings, ratio levels, KL terms and numbers of passes; other options one
//! by one.
//!
//! Of the combinations of a loss, half are compared, in which every two options meet with all their values. `make parity`
//! with `PODIUM_PARITY=all` compares all.
//!
//! TRL does not support these, so they are not compared: completions without a token (its trainer reads the last
//! one), credit and ratios by rank, a moving reference with an adapter. The same applies to truncation that is not
//! derived from the last token.

use anyhow::Result;
use serde_json::{Value, json};

use crate::reference::Checkpoint;
use crate::updates::{Case, compare};

const VOCABULARY: u32 = 128;
const FAMILIES: [&str; 3] = ["qwen3", "qwen2", "llama"];
const LOSSES: [&str; 7] = ["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo"];
/// End-of-text token of the checkpoints' tokenizer.
const END: u32 = 1;

/// Number of tokens of the completions of each group; a third is truncated.
const LENGTHS: [[u32; 4]; 6] =
    [[3, 7, 1, 5], [6, 2, 9, 4], [4, 4, 2, 8], [1, 5, 6, 3], [8, 3, 5, 2], [2, 6, 4, 7]];
/// The third group has no variance, and one completion of the fifth has no reward.
const REWARDS: [[f64; 4]; 6] = [
    [1.0, 0.0, 0.25, 0.5],
    [0.0, 0.0, 1.0, 0.0],
    [0.5, 0.5, 0.5, 0.5],
    [0.125, 2.0, -1.0, 0.75],
    [0.0, 1.0, 0.5, f64::NAN],
    [1.5, 0.25, 0.0, 0.5],
];

fn token(number: u32) -> u32 {
    3 + (number * number * 7 + number * 13) % (VOCABULARY - 3)
}

/// Six groups of four, three steps of two groups.
fn groups() -> Vec<Value> {
    let group = |index: u32| {
        let completion = |sample: u32| {
            let (length, reward) =
                (LENGTHS[index as usize][sample as usize], REWARDS[index as usize][sample as usize]);
            let cut = (index + sample) % 3 == 1;
            let first = 40 * index + 9 * sample;
            let mut ids: Vec<u32> = (first..first + length).map(token).collect();
            if !cut {
                ids[length as usize - 1] = END;
            }
            let finish_reason = if cut { "length" } else { "stop" };
            json!({"ids": ids, "reward": reward, "finish_reason": finish_reason})
        };
        let prompt: Vec<u32> = (index..2 * index + 4).map(token).collect();
        json!({"prompt_ids": prompt, "completions": (0..4).map(completion).collect::<Vec<_>>()})
    };
    (0..6).map(group).collect()
}

/// Changes every completion of some groups.
fn with(mut groups: Vec<Value>, change: impl Fn(usize, &mut Value)) -> Vec<Value> {
    for group in &mut groups {
        let completions = group["completions"].as_array_mut().into_iter().flatten();
        completions.enumerate().for_each(|(sample, completion)| change(sample, completion));
    }
    groups
}

/// The same with two reward terms.
fn groups_with_terms() -> Vec<Value> {
    let mut groups = with(groups(), |sample, completion| {
        let first = completion["reward"].as_f64().unwrap_or(0.25);
        let second = [10.0, 30.0, 10.0, 0.0][sample];
        completion["terms"] = json!([first, second]);
        completion["reward"] = json!(first + 0.5 * second);
    });
    for group in &mut groups {
        group["reward_terms"] = json!(["term_0", "term_1"]);
        group["reward_weights"] = json!([1.0, 0.5]);
    }
    groups
}

/// The same with log-probabilities of a policy other than the one in training.
fn groups_with_logprobs() -> Vec<Value> {
    with(groups(), |sample, completion| {
        let length = completion["ids"].as_array().map_or(0, Vec::len);
        let logprob = |position: usize| -4.0 - 0.25 * ((3 * position + 5 * sample) % 9) as f64;
        completion["logprobs"] = (0..length).map(logprob).collect();
    })
}

fn checkpoint(family: &str, seed: usize) -> Result<Checkpoint> {
    let (seed, vocabulary) = (seed.to_string(), VOCABULARY.to_string());
    let sizes = ["--hidden", "48", "--ffn", "64", "--layers", "2", "--heads", "4", "--kv-heads", "2"];
    let flags = ["--family", family, "--seed", &seed, "--vocab", &vocabulary, "--head-dim", "16"];
    Checkpoint::make(&[&flags[..], &sizes].concat())
}

fn checkpoints() -> Result<Vec<Checkpoint>> {
    FAMILIES.iter().enumerate().map(|(number, family)| checkpoint(family, 50 + number)).collect()
}

#[test]
fn every_loss_updates_as_in_trl() -> Result<()> {
    let (checkpoints, groups) = (checkpoints()?, groups());
    let all = std::env::var("PODIUM_PARITY").is_ok_and(|value| value == "all");
    let mut cases = Vec::new();
    for loss in LOSSES {
        for scale in ["group", "batch", "none"] {
            for level in ["token", "sequence"] {
                for beta in [0.0, 0.1] {
                    for passes in [1, 2] {
                        let doubled = [level == "sequence", beta > 0.0, passes == 2];
                        if !all && doubled.into_iter().filter(|is| *is).count() % 2 == 1 {
                            continue;
                        }
                        // Families alternate; each loss is tested with all of them many times.
                        let family = cases.len() % FAMILIES.len();
                        cases.push(Case {
                            row: loss.to_owned(),
                            name: format!(
                                "{loss}, {scale}, {level}, beta {beta}, {passes} passes, {}",
                                FAMILIES[family]
                            ),
                            checkpoint: &checkpoints[family],
                            adapter: true,
                            groups: &groups,
                            settings: vec![
                                ("loss_type", json!(loss)),
                                ("scale_rewards", json!(scale)),
                                ("importance_sampling_level", json!(level)),
                                ("beta", json!(beta)),
                                ("num_iterations", json!(passes)),
                                // Narrow, so that a second pass clips some ratios.
                                ("epsilon", json!(0.05)),
                            ],
                            correction: None,
                        });
                    }
                }
            }
        }
    }
    compare("Updates", &cases)
}

#[test]
fn further_options_update_as_in_trl() -> Result<()> {
    let checkpoints = checkpoints()?;
    let (plain, terms, logprobs) = (groups(), groups_with_terms(), groups_with_logprobs());
    let twice = ("num_iterations", json!(2));
    let kl = ("beta", json!(0.1));
    let narrow = ("epsilon", json!(0.05));
    let separate = ("multi_objective_aggregation", json!("normalize_then_sum"));
    let falling =
        |name: &str| vec![("lr_scheduler_type", json!(name)), ("warmup_steps", json!(1)), twice.clone()];
    let mut cases = Vec::new();
    let mut add = |row: &str, groups, settings: Vec<(&'static str, Value)>, correction| {
        let family = cases.len() % FAMILIES.len();
        cases.push(Case {
            row: row.to_owned(),
            name: format!("{row}, {}", FAMILIES[family]),
            checkpoint: &checkpoints[family],
            adapter: true,
            groups,
            settings,
            correction,
        });
    };
    add("delta", &plain, vec![("delta", json!(1.02)), ("epsilon", json!(0.01)), twice.clone()], None);
    add("epsilon_high", &plain, vec![("epsilon_high", json!(0.02)), narrow.clone(), twice.clone()], None);
    let cispo = vec![("loss_type", json!("cispo")), ("epsilon_high", json!(1.01)), twice.clone()];
    add("cispo, epsilon_high", &plain, cispo, None);
    let gates = [("sapo_temperature_pos", json!(2.0)), ("sapo_temperature_neg", json!(0.5)), twice.clone()];
    add("sapo temperatures", &plain, [&[("loss_type", json!("sapo"))][..], &gates].concat(), None);
    for loss in LOSSES {
        let masked =
            vec![("mask_truncated_completions", json!(true)), ("loss_type", json!(loss)), kl.clone()];
        add("mask_truncated_completions", &plain, masked, None);
    }
    let masked = ("mask_truncated_completions", json!(true));
    let sequences = ("importance_sampling_level", json!("sequence"));
    let all = vec![masked.clone(), sequences.clone(), twice.clone(), narrow.clone(), kl.clone()];
    add("mask_truncated_completions", &plain, all, None);
    let uncorrected = ("use_bias_correction_kl", json!(false));
    add("use_bias_correction_kl=false", &plain, vec![uncorrected, kl.clone(), twice.clone()], None);
    add("sum_then_normalize, two terms", &terms, vec![twice.clone()], None);
    add("normalize_then_sum", &terms, vec![separate.clone(), twice.clone()], None);
    add("entropy_coef", &plain, vec![("entropy_coef", json!(0.05)), masked, twice.clone()], None);
    add("temperature", &plain, vec![("temperature", json!(0.7)), kl.clone(), twice.clone()], None);
    add(
        "max_completion_length",
        &plain,
        vec![("max_completion_length", json!(20)), ("loss_type", json!("dr_grpo"))],
        None,
    );
    for scheduler in ["linear", "cosine", "constant_with_warmup"] {
        add("schedules", &plain, falling(scheduler), None);
    }
    let adam = [("adam_beta1", json!(0.8)), ("adam_beta2", json!(0.95)), ("adam_epsilon", json!(1e-5))];
    add(
        "AdamW",
        &plain,
        [&adam[..], &[("weight_decay", json!(0.1)), ("max_grad_norm", json!(0.1))]].concat(),
        None,
    );
    for correction in ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] {
        let settings = vec![twice.clone(), kl.clone(), narrow.clone()];
        add("importance_sampling_correction", &logprobs, settings, Some(correction));
    }
    let following = [("sync_ref_model", json!(true)), ("ref_model_sync_steps", json!(2)), kl];
    cases.push(Case {
        row: "sync_ref_model".to_owned(),
        name: "sync_ref_model, all weights".to_owned(),
        checkpoint: &checkpoints[0],
        adapter: false,
        groups: &plain,
        settings: following.into(),
        correction: None,
    });
    compare("Further options", &cases)
}

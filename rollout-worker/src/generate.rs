//! `podium-rollout-worker generate`: completions for the rows of a file, without a coordinator.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use podium_config::{DataType, Model, Rollout};
use podium_files::{durable, json_lines};
use podium_grpo::rng::Stream;
use podium_grpo::{Completion, GroupId, PolicyVersion, Sampling, Step};
use podium_proto::convert::Slot;
use podium_service::progress::Progress;
use podium_tokenizer::{Message, Variables};
use serde_json::{Map, Value, json};

use crate::lease::{Cost, stream};
use crate::policy_cache::PolicyFolders;
use crate::sampler::{self, Batch, Completed, Sampler};
use crate::source::Source;

/// Samples completions for the rows of a JSON Lines file.
#[derive(Debug, Args)]
pub struct Options {
    /// Folder of the policy, in Hugging Face layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of a PEFT adapter of that policy.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Input rows with `prompt_ids` (token ids) or `messages` (role and content, for the chat template).
    #[arg(long, value_name = "FILE.jsonl")]
    input: PathBuf,
    /// File to write the same rows to, with `completions`: `ids`, `text`, `logprobs` and `finish_reason` of each.
    /// Rows with `messages` also get `prompt_ids` and `thinking_start`, the state of the think block at the end of
    /// the prompt: `absent`, `opened` or `closed`.
    #[arg(long, value_name = "FILE.jsonl")]
    output: PathBuf,
    /// File to write the cost of each batch to: tokens of its prompts and completions, seconds until all completions
    /// had their first token (prefill), and seconds from then to the last token (decode).
    #[arg(long, value_name = "FILE.jsonl")]
    timings: Option<PathBuf>,
    /// Completions per row.
    #[arg(long, value_name = "N", default_value_t = 1)]
    group_size: usize,
    /// Maximum number of tokens of a completion.
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// Sampling temperature.
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Sample from the smallest set of tokens with at least this probability.
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Number of most probable tokens to sample from; 0 for all.
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Seed of the random numbers, which are keyed by row, sample and position.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Always take the most probable token. Log-probabilities are those of the distribution at --temperature.
    #[arg(long)]
    greedy: bool,
    /// Continue after end-of-turn tokens, up to --max-new-tokens.
    #[arg(long)]
    ignore_stop: bool,
    /// The chat template's `enable_thinking`, for templates that support it.
    #[arg(long, value_name = "true|false")]
    enable_thinking: Option<bool>,
    /// Additional variables of the chat template, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = template_variables, default_value = "{}")]
    template_variables: TemplateVariables,
    /// Number of rows per batch.
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch_size: usize,
    /// cpu, cuda, cuda:1, or auto (a GPU if there is one).
    #[arg(long, default_value = "auto")]
    device: String,
    /// Compute in bfloat16 instead of float32.
    #[arg(long)]
    bfloat16: bool,
    /// Number of libtorch threads.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: u32,
}

/// Template variables by name.
type TemplateVariables = BTreeMap<String, Value>;

fn template_variables(text: &str) -> Result<TemplateVariables, serde_json::Error> {
    serde_json::from_str(text)
}

/// The reasons why generation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The input cannot be read.
    #[error(transparent)]
    Read(#[from] json_lines::Error),
    /// A row has no prompt.
    #[error("{}:{line} has {found}: expected \"prompt_ids\", a list of token ids that is not empty, or \"messages\", a list of role and content that is not empty", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The error.
        found: &'static str,
    },
    /// A flag is 0.
    #[error("--{flag} is 0: expected at least 1")]
    Zero {
        /// The flag.
        flag: &'static str,
    },
    /// Loading or sampling failed.
    #[error(transparent)]
    Sampler(#[from] sampler::Error),
    /// The output cannot be written.
    #[error(transparent)]
    Write(#[from] durable::Error),
}

/// Reads the rows, samples, and writes the output, which appears complete at the end.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    for (flag, value) in [("group-size", options.group_size), ("batch-size", options.batch_size)] {
        if value == 0 {
            return Err(Error::Zero { flag });
        }
    }
    let mut rows = rows(&options.input)?;
    let dtype = if options.bfloat16 { DataType::Bfloat16 } else { DataType::Float32 };
    let model = Model { dtype, emulate_bfloat16: true, ..Model::default() };
    let variables = Variables::prompt(options.enable_thinking, &options.template_variables);
    let rollout = Rollout { threads: options.threads, ..Rollout::default() };
    let mut sampler = Sampler::new(&options.device, &model, &rollout, variables)?;
    let version = options.adapter.as_ref().unwrap_or(&options.model).clone();
    let source = Source { version: PolicyVersion::START, content: None };
    sampler.load(source, &PolicyFolders { version, model: options.model.clone() })?;
    if !options.ignore_stop {
        sampler.check_stop_tokens()?;
    }

    let mut progress = Progress::new("generate", rows.len() as u64);
    let (mut done, mut tokens, mut output, mut timings) = (0, 0, String::new(), String::new());
    for (number, rows) in rows.chunks_mut(options.batch_size).enumerate() {
        let completed = complete(&sampler, options, rows, number * options.batch_size)?;
        // Always present, because no caller stops the sampling.
        let Some(Completed { groups, cost }) = completed else { break };
        timings.extend([timing(&cost).to_string(), "\n".to_owned()]);
        for (row, group) in rows.iter_mut().zip(groups) {
            tokens += group.iter().map(Completion::len).sum::<usize>();
            row.value.insert("completions".into(), group.iter().map(to_json).collect());
            output.extend([Value::Object(std::mem::take(&mut row.value)).to_string(), "\n".to_owned()]);
        }
        done += rows.len() as u64;
        progress.show(done, || format!("{tokens} tokens"));
    }
    progress.finish();
    durable::write(&options.output, output.as_bytes())?;
    if let Some(path) = &options.timings {
        durable::write(path, timings.as_bytes())?;
    }
    tracing::info!("wrote {tokens} tokens for {done} rows to {}", options.output.display());
    Ok(())
}

/// A row of the input, with its prompt.
#[derive(Debug)]
struct Row {
    value: Map<String, Value>,
    prompt: Prompt,
    line: usize,
}

#[derive(Debug, PartialEq)]
enum Prompt {
    Ids(Vec<u32>),
    Messages(Vec<Message>),
}

fn rows(path: &Path) -> Result<Vec<Row>, Error> {
    let row = |json_lines::Row { line, value }| {
        let prompt = prompt(&value).map_err(|found| Error::Row { path: path.to_owned(), line, found })?;
        Ok(Row { value, prompt, line })
    };
    json_lines::read(path, "a JSON object")?.into_iter().map(row).collect()
}

fn prompt(row: &Map<String, Value>) -> Result<Prompt, &'static str> {
    match (row.get("prompt_ids"), row.get("messages")) {
        (Some(ids), _) => {
            let ids = serde_json::from_value::<Vec<u32>>(ids.clone()).ok();
            ids.filter(|ids| !ids.is_empty()).map(Prompt::Ids).ok_or("unusable \"prompt_ids\"")
        }
        (None, Some(messages)) => {
            let text = |message: &Value, key| message.get(key)?.as_str().map(str::to_owned);
            let message = |message: &Value| {
                Some(Message { role: text(message, "role")?, content: text(message, "content")? })
            };
            let messages = messages.as_array().filter(|messages| !messages.is_empty());
            let messages = messages.and_then(|messages| messages.iter().map(message).collect());
            messages.map(Prompt::Messages).ok_or("unusable \"messages\"")
        }
        (None, None) => Err("no prompt"),
    }
}

/// Samples completions of one batch of rows, which starts at row `first` of the input.
fn complete(
    sampler: &Sampler,
    options: &Options,
    rows: &mut [Row],
    first: usize,
) -> Result<Option<Completed>, Error> {
    let mut prompts = Vec::with_capacity(rows.len());
    for row in rows.iter_mut() {
        let ids = match &row.prompt {
            Prompt::Ids(ids) => ids.clone(),
            Prompt::Messages(messages) => {
                let what = || format!("line {}", row.line);
                let prompt = sampler.prompt(messages, what)?;
                let start = sampler.thinking_start(&prompt, messages, what)?;
                row.value.insert("prompt_ids".into(), json!(prompt.ids));
                row.value.insert("thinking_start".into(), json!(start.name()));
                prompt.ids
            }
        };
        prompts.push(ids);
    }
    let sampling = Sampling {
        temperature: options.temperature,
        top_p: options.top_p,
        top_k: options.top_k,
        greedy: options.greedy,
        max_new_tokens: options.max_new_tokens,
        stop_token_ids: Vec::new(),
    };
    let streams: Vec<Vec<Stream>> = (first..first + prompts.len())
        .map(|row| {
            let slot = Slot::Training(GroupId::first(Step(0), row as u32));
            (0..options.group_size).map(|sample| stream(options.seed, slot, sample)).collect()
        })
        .collect();
    let batch = Batch {
        prompts: &prompts,
        streams: &streams,
        samples: 0..options.group_size,
        sampling: &sampling,
        answers: &[],
        ignore_stop: options.ignore_stop,
    };
    Ok(sampler.complete(&batch, &|| false)?)
}

fn timing(cost: &Cost) -> Value {
    json!({
        "prompt_tokens": cost.prompt_tokens,
        "completion_tokens": cost.completion_tokens,
        "prefill_s": cost.prefill.as_secs_f64(),
        "decode_s": cost.decode.as_secs_f64(),
    })
}

fn to_json(completion: &Completion) -> Value {
    let mut value = json!({
        "ids": completion.token_ids,
        "text": completion.text,
        "logprobs": completion.logprobs,
        "finish_reason": completion.finish_reason,
    });
    if let (Some(sampled), Some(object)) = (&completion.sampled_logprobs, value.as_object_mut()) {
        object.insert("sampled_logprobs".into(), json!(sampled));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny;

    fn options(model: &Path, folder: &Path) -> Options {
        Options {
            model: model.to_owned(),
            adapter: None,
            input: folder.join("in.jsonl"),
            output: folder.join("out.jsonl"),
            timings: Some(folder.join("timings.jsonl")),
            group_size: 3,
            max_new_tokens: 6,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            seed: 4,
            greedy: false,
            ignore_stop: false,
            enable_thinking: None,
            template_variables: TemplateVariables::new(),
            batch_size: 2,
            device: "cpu".into(),
            bfloat16: false,
            threads: 1,
        }
    }

    fn generated(change: impl FnOnce(&mut Options), input: &str) -> Result<Vec<Value>, Error> {
        let (model, folder) = (tiny::folder(1), tempfile::tempdir().unwrap());
        let mut options = options(model.path(), folder.path());
        change(&mut options);
        std::fs::write(&options.input, input).unwrap();
        run(&options)?;
        let lines = |path: &Path| -> Vec<Value> {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let rows = lines(&options.output);
        let timings = lines(&options.timings.unwrap());
        assert_eq!(timings.len(), rows.len().div_ceil(options.batch_size));
        let counted = |key: &str| timings.iter().map(|batch| batch[key].as_u64().unwrap()).sum::<u64>();
        let ids = |value: &Value| value.as_array().unwrap().len() as u64;
        assert_eq!(counted("prompt_tokens"), rows.iter().map(|row| ids(&row["prompt_ids"])).sum::<u64>());
        let completions = rows.iter().flat_map(|row| row["completions"].as_array().unwrap());
        assert_eq!(counted("completion_tokens"), completions.map(|one| ids(&one["ids"])).sum::<u64>());
        assert!(timings.iter().all(|batch| batch["prefill_s"].as_f64().unwrap() > 0.0));
        Ok(rows)
    }

    const INPUT: &str = r#"{"name": "x", "prompt_ids": [5, 6, 7]}
{"messages": [{"role": "user", "content": "a b"}]}

{"prompt_ids": [2, 4, 5, 6, 3, 4]}
"#;

    #[test]
    fn every_row_is_written_with_its_completions() {
        let rows = generated(|_| {}, INPUT).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0]["name"], "x");
        assert_eq!(rows[1]["prompt_ids"], json!([2, 4, 5, 6, 3, 4]));
        assert_eq!((&rows[1]["thinking_start"], rows[0].get("thinking_start")), (&json!("absent"), None));
        for row in &rows {
            let completions = row["completions"].as_array().unwrap();
            assert_eq!(completions.len(), 3);
            for completion in completions {
                let ids = completion["ids"].as_array().unwrap();
                assert_eq!(completion["logprobs"].as_array().unwrap().len(), ids.len());
                let reason = if ids.last() == Some(&json!(tiny::END)) { "stop" } else { "length" };
                assert_eq!(completion["finish_reason"], reason);
                assert!(completion["text"].is_string() && completion.get("sampled_logprobs").is_none());
            }
        }
        assert_ne!(rows[1]["completions"], rows[2]["completions"], "each row has its own random numbers");
        assert_eq!(rows, generated(|_| {}, INPUT).unwrap());
    }

    #[test]
    fn variables_reach_the_chat_template() {
        let template = "{{ date | default('b') }} {{ messages[0].content }}";
        let row = r#"{"messages": [{"role": "user", "content": "c"}]}"#;
        let prompt = |variables: &str| {
            let with_template = |options: &mut Options| {
                let settings = json!({"eos_token": "<end>", "chat_template": template});
                std::fs::write(options.model.join("tokenizer_config.json"), settings.to_string()).unwrap();
                options.template_variables = template_variables(variables).unwrap();
            };
            generated(with_template, row).unwrap()[0]["prompt_ids"].clone()
        };
        assert_eq!((prompt("{}"), prompt(r#"{"date": "a"}"#)), (json!([6, 7]), json!([5, 7])));
        assert!(template_variables("[1]").is_err());
    }

    #[test]
    fn rows_contain_the_state_of_the_think_block() {
        let thinking = tiny::with_generation_prompt(1, "assistant : <think>");
        let rows = generated(|options| options.model = thinking.path().to_owned(), INPUT).unwrap();
        assert_eq!(rows[1]["prompt_ids"], json!([2, 4, 5, 6, 3, 4, 12]));
        assert_eq!(rows[1]["thinking_start"], "opened");
    }

    #[test]
    fn greedy_completions_do_not_depend_on_the_seed() {
        let rows = generated(|options| options.greedy = true, INPUT).unwrap();
        // The log-probabilities of equal prompts differ by rounding, because their batches have different shapes.
        assert_eq!(rows[1]["completions"][0]["ids"], rows[2]["completions"][0]["ids"]);
        assert_eq!(rows[0]["completions"][0]["ids"], rows[0]["completions"][2]["ids"]);
        let reseeded = |options: &mut Options| (options.greedy, options.seed) = (true, 9);
        assert_eq!(rows, generated(reseeded, INPUT).unwrap());
    }

    #[test]
    fn rows_without_a_prompt_are_named() {
        let error = |input: &str| generated(|_| {}, input).unwrap_err().to_string();
        assert!(error("{\"prompt_ids\": [1]}\n[]").contains("in.jsonl:2: expected a JSON object"));
        assert!(error("{}").contains("in.jsonl:1 has no prompt"));
        assert!(error(r#"{"prompt_ids": []}"#).contains("unusable \"prompt_ids\""));
        assert!(error(r#"{"messages": [{"role": "user"}]}"#).contains("unusable \"messages\""));
        let nothing = generated(|options| options.group_size = 0, INPUT).unwrap_err();
        assert!(nothing.to_string().contains("--group-size"));
    }
}

//! Log-probabilities of given completions (`podium-learner score`), row by row of a file.

use std::path::PathBuf;

use podium_files::{durable, json_lines};
use podium_model::{Entropy, GroupTokens, LoadOptions, Packed, Policy, checkpoint, packed};
use podium_service::progress::Progress;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Device, Tensor};

/// The reasons why rows cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows cannot be read.
    #[error(transparent)]
    Rows(#[from] json_lines::Error),
    /// The temperature is invalid.
    #[error("--temperature is {0}: expected a number above 0")]
    Temperature(f64),
    /// The policy or its adapter cannot be read.
    #[error(transparent)]
    Policy(#[from] checkpoint::Error),
    /// A row does not fit the policy.
    #[error("cannot score {}:{line}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The cause.
        source: packed::Error,
    },
    /// The output cannot be written.
    #[error(transparent)]
    Write(#[from] durable::Error),
}

/// Options of scoring.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the model.
    pub model: PathBuf,
    /// Folder of a PEFT adapter.
    pub adapter: Option<PathBuf>,
    /// Rows with `prompt_ids` and `completion_ids`; other fields are copied.
    pub input: PathBuf,
    /// The same rows with `logprobs`, in nats, one per completion token. The file appears complete at the end.
    pub output: PathBuf,
    /// Divisor of the logits.
    pub temperature: f64,
    /// Maximum number of prompt and completion tokens per batch, unless a single row has more.
    pub batch_tokens: usize,
    /// Device and number type.
    pub load: LoadOptions,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    prompt_ids: Vec<u32>,
    completion_ids: Vec<u32>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Row {
    fn tokens(&self) -> GroupTokens<'_> {
        GroupTokens { prompt: &self.prompt_ids, completions: vec![&self.completion_ids] }
    }

    fn len(&self) -> usize {
        self.prompt_ids.len() + self.completion_ids.len()
    }
}

/// Reads, scores and writes rows; returns the number of completion tokens.
pub fn run(options: &Options) -> Result<usize, Error> {
    let temperature = options.temperature;
    if !(temperature.is_finite() && temperature > 0.0) {
        return Err(Error::Temperature(temperature));
    }
    let expected = "an object with prompt_ids and completion_ids, lists of token ids";
    let mut rows: Vec<json_lines::Row<Row>> = json_lines::read(&options.input, expected)?;
    let mut policy = Policy::load(&options.model, options.load)?;
    if let Some(adapter) = &options.adapter {
        policy = policy.with_adapter(adapter)?;
    }
    let mut progress = Progress::new("score", rows.len() as u64);
    let (mut done, mut tokens) = (0, 0);
    let mut output = String::new();
    while done < rows.len() {
        let batch = &mut rows[done..];
        let length = batch_length(batch, options.batch_tokens);
        for (row, logprobs) in score(&policy, &batch[..length], options)?.into_iter().enumerate() {
            let Row { rest, .. } = &mut batch[row].value;
            tokens += logprobs.len();
            rest.insert("logprobs".into(), serde_json::json!(logprobs));
            output.push_str(&serde_json::json!(batch[row].value).to_string());
            output.push('\n');
        }
        done += length;
        progress.show(done as u64, || format!("{tokens} tokens"));
    }
    progress.finish();
    durable::write(&options.output, output.as_bytes())?;
    Ok(tokens)
}

/// Returns the number of leading rows with at most `limit` tokens together; at least one.
fn batch_length(rows: &[json_lines::Row<Row>], limit: usize) -> usize {
    let sums = rows.iter().scan(0, |sum, row| {
        *sum += row.value.len();
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= limit).count().max(1)
}

fn score(policy: &Policy, rows: &[json_lines::Row<Row>], options: &Options) -> Result<Vec<Vec<f32>>, Error> {
    // Row by row first, so that an error names its row.
    let packed = |rows: &[&json_lines::Row<Row>]| {
        let packed = Packed::new(&rows.iter().map(|row| row.value.tokens()).collect::<Vec<_>>())?;
        packed.check(policy.config())?;
        Ok(packed)
    };
    for row in rows {
        let fault = |source| Error::Row { path: options.input.clone(), line: row.line, source };
        packed(&[row]).map_err(fault)?;
    }
    let fault = |source| Error::Row { path: options.input.clone(), line: rows[0].line, source };
    let packed = packed(&rows.iter().collect::<Vec<_>>()).map_err(fault)?;
    let scores = policy.score(&packed, options.temperature, Entropy::Skipped).map_err(fault)?;
    let mut flat = numbers(&scores.logprobs).into_iter();
    Ok(packed.completion_lengths().iter().map(|length| flat.by_ref().take(*length).collect()).collect())
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.to_device(Device::Cpu)).expect("log-probabilities are a vector of floats")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;

    fn scored(input: &str, batch_tokens: usize) -> Result<Vec<Value>, Error> {
        let folder = tempfile::tempdir().unwrap();
        Policy::random(&config(), 5, LoadOptions::default()).unwrap().save(folder.path()).unwrap();
        let options = Options {
            model: folder.path().to_owned(),
            adapter: None,
            input: folder.path().join("in.jsonl"),
            output: folder.path().join("out.jsonl"),
            temperature: 0.7,
            batch_tokens,
            load: LoadOptions::default(),
        };
        std::fs::write(&options.input, input).unwrap();
        let tokens = run(&options)?;
        let text = std::fs::read_to_string(&options.output).unwrap();
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let logprobs = rows.iter().map(|row| row["logprobs"].as_array().unwrap().len());
        assert_eq!(logprobs.sum::<usize>(), tokens);
        Ok(rows)
    }

    const INPUT: &str = r#"{"prompt_ids": [1, 2], "completion_ids": [3, 4, 5], "name": "a"}
{"prompt_ids": [1], "completion_ids": []}

{"prompt_ids": [4, 5, 6], "completion_ids": [7]}
"#;

    #[test]
    fn rows_retain_their_fields_and_batches_change_nothing() {
        let rows = scored(INPUT, 1000).unwrap();
        assert_eq!((rows.len(), &rows[0]["name"]), (3, &Value::from("a")));
        let numbers = |rows: &[Value]| -> Vec<f64> {
            let logprobs = rows.iter().flat_map(|row| row["logprobs"].as_array().unwrap());
            logprobs.map(|number| number.as_f64().unwrap()).collect()
        };
        let alone = numbers(&scored(INPUT, 1).unwrap());
        assert_eq!(alone.len(), 4);
        for (one, other) in numbers(&rows).iter().zip(alone) {
            assert!(*one < 0.0 && (one - other).abs() < 1e-5);
        }
    }

    #[test]
    fn an_error_names_the_row_that_cannot_be_scored() {
        let error = |input: &str| {
            let error = scored(input, 1000).unwrap_err();
            podium_service::logs::describe(&error)
        };
        let row = r#"{"prompt_ids": [1], "completion_ids": [2]}"#;
        let unknown = error(&format!("{row}\n\n{}", row.replace("[2]", "[99]")));
        assert!(unknown.contains("in.jsonl:3: token id 99"), "{unknown}");
        let empty = error(&row.replace("[1]", "[]"));
        assert!(empty.contains("in.jsonl:1: prompt 0 of the batch has no tokens"), "{empty}");
        let malformed = error(r#"{"prompt_ids": [-1], "completion_ids": []}"#);
        assert!(malformed.contains("in.jsonl:1: expected an object with prompt_ids"), "{malformed}");
    }
}

//! The results of Transformers and PEFT, by the scripts of the shared folder in one Python process.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use podium_tests::{path_text, rows};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A prompt and a completion to be scored.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sequence {
    pub(crate) prompt_ids: Vec<u32>,
    pub(crate) completion_ids: Vec<u32>,
}

/// Prompts of 1 to 100 tokens below `vocabulary`, two of them with several completions. Tokens start at 3, since
/// Transformers' generation ignores padding (token 2) in a prompt.
pub(crate) fn sequences(vocabulary: u32) -> Vec<Sequence> {
    let token = |number: u32| 3 + (number * number * 7 + number * 3) % (vocabulary - 3);
    let tokens = |start: u32, count: u32| (start..start + count).map(token).collect();
    [(1, 5), (7, 1), (7, 40), (60, 24), (100, 17), (100, 30)]
        .into_iter()
        .map(|(prompt, completion)| Sequence {
            prompt_ids: tokens(prompt, prompt),
            completion_ids: tokens(prompt + completion, completion),
        })
        .collect()
}

/// A model, with or without an adapter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) model: &'a Path,
    pub(crate) adapter: Option<&'a Path>,
}

impl<'a> Subject<'a> {
    /// Its flags, the same for the reference and for Podium.
    pub(crate) fn flags(&self) -> Vec<&'a str> {
        let adapter = self.adapter.into_iter().flat_map(|folder| ["--adapter", path_text(folder)]);
        ["--model", path_text(self.model)].into_iter().chain(adapter).collect()
    }
}

/// A random-weight model and a random adapter for it, in a temporary folder.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    folder: tempfile::TempDir,
}

impl Checkpoint {
    /// Created by the reference's `make_checkpoint.py` with these flags, but without the end token, which the
    /// reference would not choose within the requested greedy tokens.
    pub(crate) fn make(flags: &[&str]) -> Result<Self> {
        let checkpoint = Self { folder: tempfile::tempdir()? };
        let (model, adapter) = (checkpoint.model(), checkpoint.adapter());
        let paths = ["--out", path_text(&model), "--adapter", path_text(&adapter)];
        run(&script("make_checkpoint.py")?, &[&paths[..], flags].concat())?;
        for name in ["config.json", "generation_config.json"] {
            edit_json(&model.join(name), |config| _ = config.insert("eos_token_id".to_owned(), Value::Null))?;
        }
        Ok(checkpoint)
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    pub(crate) fn adapter(&self) -> PathBuf {
        self.folder.path().join("adapter")
    }

    /// Changes the model's `config.json`.
    pub(crate) fn edit_config(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<()> {
        edit_json(&self.model().join("config.json"), change)
    }
}

fn edit_json(path: &Path, change: impl FnOnce(&mut Map<String, Value>)) -> Result<()> {
    let mut content = serde_json::from_slice(&fs::read(path)?)?;
    change(&mut content);
    Ok(fs::write(path, serde_json::to_vec(&content)?)?)
}

/// The reference's results for each sequence.
#[derive(Debug)]
pub(crate) struct Scores {
    /// Log-probability of each token of the completion.
    pub(crate) logprobs: Vec<Vec<f64>>,
    /// The most probable continuation of the prompt; empty unless requested.
    pub(crate) greedy: Vec<Vec<u32>>,
}

/// Scores sequences in float32 and appends `greedy` tokens to their prompts.
pub(crate) fn score(
    subject: Subject,
    sequences: &[Sequence],
    temperature: f64,
    greedy: usize,
) -> Result<Scores> {
    #[derive(Deserialize)]
    struct Row {
        logprobs: Vec<f64>,
        #[serde(default)]
        greedy: Vec<u32>,
    }
    let folder = tempfile::tempdir()?;
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    write_rows(&input, sequences)?;
    let (temperature, greedy) = (temperature.to_string(), greedy.to_string());
    let files = ["--input", path_text(&input), "--output", path_text(&output)];
    let numbers = ["--temperature", &temperature, "--greedy", &greedy];
    run(&script("score.py")?, &[&subject.flags()[..], &files, &numbers].concat())?;
    let rows = rows(&output)?.into_iter().map(|row| Ok(serde_json::from_value::<Row>(row)?));
    let (logprobs, greedy) =
        rows.map(|row| row.map(|row| (row.logprobs, row.greedy))).collect::<Result<_>>()?;
    Ok(Scores { logprobs, greedy })
}

/// Writes JSON Lines.
pub(crate) fn write_rows(path: &Path, rows: &[impl Serialize]) -> Result<()> {
    let lines = rows.iter().map(|row| Ok(serde_json::to_string(row)? + "\n")).collect::<Result<String>>()?;
    Ok(fs::write(path, lines)?)
}

/// The repository's root.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the repository")
}

/// The Python with the reference programs.
pub(crate) fn interpreter() -> Result<PathBuf> {
    let interpreter = repository().join(".venv-oracle/bin/python");
    ensure!(
        interpreter.exists(),
        "{} is missing: run deploy/setup/oracle.sh, or `make parity`",
        interpreter.display()
    );
    Ok(interpreter)
}

/// A file or folder of the shared folder.
pub(crate) fn shared(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("PODIUM_SHARED").unwrap_or_else(|| "../shared".into());
    let path = repository().join(folder).join(name);
    ensure!(
        path.exists(),
        "{} is missing: set PODIUM_SHARED to the folder with oracle/, qwen3-tokenizer/ and data/",
        path.display()
    );
    Ok(path)
}

fn script(name: &str) -> Result<PathBuf> {
    shared(&format!("oracle/{name}"))
}

/// Runs a Python script, one at a time.
pub(crate) fn run(script: &Path, arguments: &[&str]) -> Result<()> {
    static PYTHON: Mutex<Option<Python>> = Mutex::new(None);
    // A panicking test leaves no unfinished job.
    let mut python = PYTHON.lock().unwrap_or_else(PoisonError::into_inner);
    if python.is_none() {
        *python = Some(Python::start()?);
    }
    let python = python.as_mut().context("it was started above")?;
    let job: Vec<_> = [path_text(script)].into_iter().chain(arguments.iter().copied()).collect();
    match python.answer(&serde_json::to_string(&job)?)? {
        None => Ok(()),
        Some(failure) => bail!("{} failed:\n{failure}", job.join(" ")),
    }
}

/// `reference.py`, which exits at the end of its standard input.
struct Python {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    process: Child,
}

impl Python {
    fn start() -> Result<Self> {
        let mut process = Command::new(interpreter()?)
            .arg(repository().join("tests/parity/reference.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().context("standard input is a pipe")?;
        let output = process.stdout.take().context("standard output is a pipe")?;
        Ok(Self { input, output: BufReader::new(output), process })
    }

    /// Returns the job's error, if any.
    fn answer(&mut self, job: &str) -> Result<Option<String>> {
        writeln!(self.input, "{job}")?;
        let mut answer = String::new();
        if self.output.read_line(&mut answer)? == 0 {
            bail!("reference.py exited with {} at {job}", self.process.wait()?);
        }
        Ok(serde_json::from_str(&answer)?)
    }
}

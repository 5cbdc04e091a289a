//! The rows of a training file (`podium-curator mix`), as token ids.
//!
//! A row that is too long is skipped and reported with its line. Truncation would remove its answer, which comes
//! last.

use std::path::{Path, PathBuf};

use podium_recsys::completion::{self, ThinkingIsOver};
use podium_recsys::mixed::{self, Malformed};
use podium_recsys::task;

use super::encoder::{Encoder, Sample};

/// Maximum number of reported rows that are too long.
const NAMED: usize = 5;

/// The reasons why a training file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read, or is not UTF-8 text.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A line is not a valid row.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A row cannot be tokenized.
    #[error("{}:{line}: the row cannot be tokenized", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The cause.
        source: podium_tokenizer::Error,
    },
    /// A row has reasoning, but the prompt closes the think block.
    #[error("{}:{line}: {source}", .path.display())]
    ThinkingIsOver {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The error.
        source: ThinkingIsOver,
    },
    /// The run file and the chat template contradict each other.
    #[error(transparent)]
    Task(#[from] task::Error),
    /// The file has no usable row.
    #[error("{}: expected a row of at most {longest_tokens} tokens, found only {too_long} longer ones", .path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
        /// Maximum length of a prompt with its completion, in tokens.
        longest_tokens: usize,
        /// Number of longer rows.
        too_long: usize,
    },
}

/// Rows in the order of the file, repeated without end.
#[derive(Debug)]
pub(super) struct FileSamples {
    rows: Vec<Sample>,
    next: usize,
}

impl FileSamples {
    /// Reads a complete file. Its completions are those after a prompt without a think block; the parts of the block
    /// that the chat template opens or closes are removed from them. `answer`: format of completions.
    pub(super) fn read(
        path: &Path,
        longest_tokens: usize,
        answer: &completion::Options,
        encoder: &Encoder,
    ) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let (mut rows, mut too_long) = (Vec::new(), Vec::new());
        for (line, row) in mixed::read(&text, path) {
            let row = row?;
            let unwritable = |source| Error::Encode { path: path.to_owned(), line, source };
            let start = encoder.thinking_start(&row.prompt).map_err(unwritable)?;
            if start.is_closed() && answer.require_thinking {
                return Err(task::Error::ThinkingIsOver.into());
            }
            let completion = completion::after(start, &row.completion, answer.layout);
            let completion =
                completion.map_err(|source| Error::ThinkingIsOver { path: path.to_owned(), line, source })?;
            let sample = encoder.encode(&row.prompt, &completion).map_err(unwritable)?;
            let tokens = sample.prompt.len() + sample.completion.len();
            if tokens > longest_tokens {
                too_long.push(format!("line {line} ({}, {tokens} tokens)", row.user));
            } else {
                rows.push(sample);
            }
        }
        if !too_long.is_empty() {
            tracing::warn!(
                "{}: {} of {} rows have more than {longest_tokens} tokens and are skipped: {}",
                path.display(),
                too_long.len(),
                rows.len() + too_long.len(),
                too_long[..too_long.len().min(NAMED)].join(", ")
            );
        }
        if rows.is_empty() {
            return Err(Error::NoRows { path: path.to_owned(), longest_tokens, too_long: too_long.len() });
        }
        Ok(Self { rows, next: 0 })
    }

    /// Returns the next row; after the last one the first again.
    pub(super) fn draw(&mut self) -> Sample {
        let sample = self.rows[self.next].clone();
        self.next = (self.next + 1) % self.rows.len();
        sample
    }
}

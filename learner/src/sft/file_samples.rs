//! The rows of a training file of mixed grain (`podium-curator mix`), as token ids.
//!
//! A row that is too long is left out and reported with its line. Cutting it would take its answer away, which comes last.

use std::path::{Path, PathBuf};

use podium_recsys::completion::{self, ThinkingIsOver};
use podium_recsys::mixed::{self, Malformed};
use podium_recsys::task;

use super::samples::{Encoder, Sample};

/// As many rows that are too long are named.
const NAMED: usize = 5;

/// Why a training file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused, or it is no UTF-8 text.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is no row.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A row cannot be written in tokens.
    #[error("{}:{line}: the row cannot be written in tokens", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        source: podium_tokenizer::Error,
    },
    /// A row reasons where nothing can be thought.
    #[error("{}:{line}: {source}", .path.display())]
    ThinkingIsOver {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        source: ThinkingIsOver,
    },
    /// The run file and the chat template contradict each other.
    #[error(transparent)]
    Task(#[from] task::Error),
    /// There is nothing to learn from.
    #[error("{}: no row of at most {longest_tokens} tokens, and {too_long} that are longer", .path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
        /// Longest prompt with its completion.
        longest_tokens: usize,
        /// How many rows are longer.
        too_long: usize,
    },
}

/// Rows in the order of the file, without end.
#[derive(Debug)]
pub(super) struct FileSamples {
    rows: Vec<Sample>,
    next: usize,
}

impl FileSamples {
    /// Reads a file whole. Its completions are whole ones, as after a prompt without a think block; what the chat template
    /// opens or closes of the block is left out of them. `answer`: what completions look like.
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
                "{}: {} of {} rows have more than {longest_tokens} tokens and are left out: {}",
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

    /// The next row; after the last one the first again.
    pub(super) fn draw(&mut self) -> Sample {
        let sample = self.rows[self.next].clone();
        self.next = (self.next + 1) % self.rows.len();
        sample
    }
}

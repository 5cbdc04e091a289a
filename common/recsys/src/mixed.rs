//! Mixed-grained training files (`<name>_mixed.jsonl`): most rows contain only an answer, a few also reasoning.
//!
//! One JSON object per line: prompt and completion as written by [`crate::task::Task`], and their case. Fine-tuning
//! reads only the texts; checks also read the case.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ids::{ItemId, UserId};
use crate::prompt::Prompt;

/// Content of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The answer only.
    Plain,
    /// Reasoning and answer, both in the completion.
    Reasoned,
    /// Reasoning in the prompt, as in the released code of MLLMRec-R1. It leaks: the reasoning may have been generated
    /// with knowledge of the target, and is not available at inference.
    LeakingPrompt,
}

/// A prompt with the completion to imitate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The user.
    pub user: UserId,
    /// The epoch, from 0, of the candidates.
    pub epoch: u64,
    /// The kind of row.
    pub kind: Kind,
    /// The history in the prompt, oldest first.
    pub history: Vec<ItemId>,
    /// The candidates, in the order of the prompt.
    pub candidates: Vec<ItemId>,
    /// The target.
    pub target: ItemId,
    /// The prompt.
    pub prompt: Prompt,
    /// The completion, including its whole think block; the part that the chat template writes in the prompt is removed
    /// when the row is used. The loss covers this text and the following end token only.
    pub completion: String,
}

/// An invalid line of a mixed-grained file.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: expected a row of prompt and completion as written by `podium-curator mix`", file.display())]
pub struct Malformed {
    /// The file.
    pub file: PathBuf,
    /// Line number, from 1.
    pub line: usize,
    /// Error of the parser.
    pub source: serde_json::Error,
}

/// Returns the rows of a file's text with their line numbers, from 1; blank lines are skipped.
pub fn read<'a>(text: &'a str, file: &'a Path) -> impl Iterator<Item = (usize, Result<Row, Malformed>)> + 'a {
    (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()).map(|(line, text)| {
        let row =
            serde_json::from_str(text).map_err(|source| Malformed { file: file.to_owned(), line, source });
        (line, row)
    })
}

/// Writes a row and a line end.
pub fn write(to: &mut impl io::Write, row: &Row) -> io::Result<()> {
    serde_json::to_writer(&mut *to, row)?;
    to.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_invalid_lines_are_reported() {
        let row = Row {
            user: UserId(3),
            epoch: 1,
            kind: Kind::Reasoned,
            history: vec![ItemId(1)],
            candidates: vec![ItemId(2), ItemId(4)],
            target: ItemId(4),
            prompt: Prompt { system: None, user: "Rank \u{2028} these".to_owned() },
            completion: "<think>\nso\n</think>\n\n[ITEM_4]".to_owned(),
        };
        let mut bytes = Vec::new();
        write(&mut bytes, &row).unwrap();
        bytes.extend(b"\n{\"user\": 3}\n");
        let text = String::from_utf8(bytes).unwrap();
        let rows: Vec<_> = read(&text, Path::new("x.jsonl")).collect();
        assert_eq!((rows[0].0, rows[0].1.as_ref().unwrap()), (1, &row));
        let error = rows[1].1.as_ref().unwrap_err();
        assert_eq!(error.line, 3);
        assert!(error.to_string().starts_with("x.jsonl:3: expected"));
        assert_eq!(rows.len(), 2);
    }
}

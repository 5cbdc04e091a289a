//! Training files of mixed grain (`<name>_mixed.jsonl`): most rows answer plainly, a few reason first.
//!
//! One JSON object a line: prompt and completion as [`crate::task::Task`] writes them, and the case they are of. Whoever
//! fine-tunes on the file needs the texts alone; whoever checks it needs the case.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ids::{ItemId, UserId};
use crate::prompt::Prompt;

/// What a row shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The answer alone.
    Plain,
    /// Reasoning and then the answer, both in the completion.
    Reasoned,
    /// Reasoning in the prompt, as the released code of MLLMRec-R1 has it. It leaks: whoever ranks in earnest has no such
    /// text, and what wrote it may have known the target.
    LeakingPrompt,
}

/// One prompt with the completion to imitate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Whom it is about.
    pub user: UserId,
    /// The epoch, from 0, whose candidates it shows.
    pub epoch: u64,
    /// What it shows.
    pub kind: Kind,
    /// What the prompt shows of the user's history, oldest first.
    pub history: Vec<ItemId>,
    /// What is to be ranked, in the order shown.
    pub candidates: Vec<ItemId>,
    /// The right answer.
    pub target: ItemId,
    /// What the policy reads.
    pub prompt: Prompt,
    /// What it should write, with the whole of its think block: where the chat template opens the block in the prompt, that
    /// much is left out. Loss belongs on this and the end token after it, and on nothing else.
    pub completion: String,
}

/// A line that is no row.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: expected a row of prompt and completion as `podium-curator mix` writes it", file.display())]
pub struct Malformed {
    /// The file.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// What the parser says.
    pub source: serde_json::Error,
}

/// The rows of a file's text and their lines, counted from 1; blank lines are passed over.
pub fn read<'a>(text: &'a str, file: &'a Path) -> impl Iterator<Item = (usize, Result<Row, Malformed>)> + 'a {
    (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()).map(|(line, text)| {
        let row =
            serde_json::from_str(text).map_err(|source| Malformed { file: file.to_owned(), line, source });
        (line, row)
    })
}

/// Writes a row and the end of its line.
pub fn write(to: &mut impl io::Write, row: &Row) -> io::Result<()> {
    serde_json::to_writer(&mut *to, row)?;
    to.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_other_lines_are_named() {
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

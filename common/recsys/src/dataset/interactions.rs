//! `train.tsv` and `test.tsv`: one user a line, `user id TAB item ids separated by spaces`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::catalogue::Catalogue;
use super::rows::{Error, Place, Problem, Report, RowPolicy, Rows};
use super::{User, texts};
use crate::ids::{ItemId, UserId};

/// A longer line is no user's history; reading on would only fill the memory.
const LONGEST_LINE_BYTES: u64 = 16 << 20;

/// How interaction files are read.
pub(super) struct Files<'a> {
    pub(super) catalogue: &'a Catalogue,
    pub(super) min_interactions: usize,
    pub(super) policy: RowPolicy,
}

impl Files<'_> {
    /// The users of `file` with enough interactions, and how many had too few.
    pub(super) fn users(&self, file: &Path, report: &mut Report) -> Result<(Vec<User>, usize), Error> {
        let io = |source| Error::Io { action: "read", path: file.to_path_buf(), source };
        let mut reader = BufReader::new(File::open(file).map_err(io)?);
        let mut rows = Rows { file, policy: self.policy, report };
        let (mut users, mut too_short, mut seen) = (Vec::new(), 0, BTreeSet::new());
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = reader.by_ref().take(LONGEST_LINE_BYTES).read_until(b'\n', &mut line).map_err(io)?;
            if read == 0 {
                break;
            }
            let place = Place::Line(number);
            if read as u64 == LONGEST_LINE_BYTES && line.last() != Some(&b'\n') {
                rows.bad(place, Problem::TooLong(LONGEST_LINE_BYTES))?;
                reader.skip_until(b'\n').map_err(io)?;
                continue;
            }
            let text = if number == 1 { texts::without_mark(&line) } else { &line };
            if text.trim_ascii().is_empty() || (number == 1 && text.starts_with(b"user_id")) {
                continue;
            }
            let Some(user) = rows.keep(place, self.user(text))? else { continue };
            if !seen.insert(user.id) {
                rows.bad(place, Problem::RepeatedUser(user.id))?;
            } else if user.items.len() < self.min_interactions {
                too_short += 1;
            } else {
                users.push(user);
            }
        }
        if users.is_empty() {
            let expected =
                "`user id TAB item ids separated by spaces`, with `data.min_interactions` items or more";
            return Err(Error::NoRows { file: file.to_path_buf(), expected });
        }
        Ok((users, too_short))
    }

    fn user(&self, line: &[u8]) -> Result<User, Problem> {
        let line = std::str::from_utf8(line).map_err(|_| Problem::NotUtf8)?;
        let columns: Vec<&str> = line.trim_end_matches(['\r', '\n']).split('\t').collect();
        let [user, items] = columns[..] else {
            return Err(Problem::Columns { found: columns.len(), expected: 2 });
        };
        let id: UserId = user.trim().parse().map_err(|_| Problem::UserId(excerpt(user)))?;
        let items: Vec<ItemId> =
            items.split_ascii_whitespace().map(|item| self.item(item)).collect::<Result<_, _>>()?;
        if items.len() < 2 {
            return Err(Problem::TooFewItems(items.len()));
        }
        Ok(User { id, items })
    }

    fn item(&self, text: &str) -> Result<ItemId, Problem> {
        let id: ItemId = text.parse().map_err(|_| Problem::ItemId(excerpt(text)))?;
        if self.catalogue.contains(id) { Ok(id) } else { Err(Problem::UnknownItem(id)) }
    }
}

/// The beginning of a text that may be very long, for an error message.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 40;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

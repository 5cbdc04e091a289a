//! `train.tsv`, `validation.tsv`, `test.tsv` and `<name>_negatives.tsv`: one user per line, `user id TAB item ids separated by spaces`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::catalogue::Catalogue;
use super::rows::{Error, Location, Problem, Report, RowPolicy, Rows, excerpt};
use super::texts;
use super::user::User;
use crate::ids::{ItemId, UserId};

/// Maximum length of a line; longer lines are rejected to bound memory.
const LONGEST_LINE_BYTES: u64 = 16 << 20;

/// Context for reading interaction files.
pub(super) struct Files<'a> {
    pub(super) catalogue: &'a Catalogue,
    pub(super) min_interactions: usize,
    pub(super) policy: RowPolicy,
}

impl Files<'_> {
    /// Returns the users of `file` with enough interactions, and the number of users with too few.
    pub(super) fn users(&self, file: &Path, report: &mut Report) -> Result<(Vec<User>, usize), Error> {
        let mut too_short = 0;
        let mut users = self.rows(file, report, |user| {
            if user.items.len() < 2 { Err(Problem::TooFewItems(user.items.len())) } else { Ok(()) }
        })?;
        users.retain(|user| {
            let enough = user.items.len() >= self.min_interactions;
            too_short += usize::from(!enough);
            enough
        });
        if users.is_empty() {
            let expected =
                "`user id TAB item ids separated by spaces`, with `data.min_interactions` items or more";
            return Err(Error::NoRows { file: file.to_path_buf(), expected });
        }
        Ok((users, too_short))
    }

    /// Returns the negatives of each user in `file`, none of which may be in the user's history in `users`.
    pub(super) fn negatives<'a>(
        &self,
        file: &Path,
        users: impl Iterator<Item = &'a User>,
        report: &mut Report,
    ) -> Result<BTreeMap<UserId, Vec<ItemId>>, Error> {
        let mut known: BTreeMap<UserId, BTreeSet<ItemId>> = BTreeMap::new();
        for user in users {
            known.entry(user.id).or_default().extend(&user.items);
        }
        let rows = self.rows(file, report, |row| {
            let mut seen = BTreeSet::new();
            match row.items.iter().find(|&&item| !seen.insert(item)) {
                Some(&item) => Err(Problem::RepeatedItem(item)),
                None => match known
                    .get(&row.id)
                    .and_then(|items| row.items.iter().find(|item| items.contains(item)))
                {
                    Some(&item) => Err(Problem::KnownNegative(item)),
                    None => Ok(()),
                },
            }
        })?;
        Ok(rows.into_iter().map(|row| (row.id, row.items)).collect())
    }

    /// Returns the rows of `file` that pass `check`.
    fn rows(
        &self,
        file: &Path,
        report: &mut Report,
        check: impl Fn(&User) -> Result<(), Problem>,
    ) -> Result<Vec<User>, Error> {
        let io = |source| Error::Io { action: "read", path: file.to_path_buf(), source };
        let mut reader = BufReader::new(File::open(file).map_err(io)?);
        let mut rows = Rows { file, policy: self.policy, report };
        let (mut users, mut seen) = (Vec::new(), BTreeSet::new());
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = reader.by_ref().take(LONGEST_LINE_BYTES).read_until(b'\n', &mut line).map_err(io)?;
            if read == 0 {
                break;
            }
            let location = Location::Line(number);
            if read as u64 == LONGEST_LINE_BYTES && line.last() != Some(&b'\n') {
                rows.bad(location, Problem::TooLong(LONGEST_LINE_BYTES))?;
                reader.skip_until(b'\n').map_err(io)?;
                continue;
            }
            let text = if number == 1 { texts::without_mark(&line) } else { &line };
            if text.trim_ascii().is_empty() || (number == 1 && text.starts_with(b"user_id")) {
                continue;
            }
            let row = self.user(text).and_then(|user| check(&user).map(|()| user));
            let Some(user) = rows.keep(location, row)? else { continue };
            if seen.insert(user.id) {
                users.push(user);
            } else {
                rows.bad(location, Problem::RepeatedUser(user.id))?;
            }
        }
        Ok(users)
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
        Ok(User { id, items })
    }

    fn item(&self, text: &str) -> Result<ItemId, Problem> {
        let id: ItemId = text.parse().map_err(|_| Problem::ItemId(excerpt(text)))?;
        if self.catalogue.contains(id) { Ok(id) } else { Err(Problem::UnknownItem(id)) }
    }
}

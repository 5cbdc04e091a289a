//! The output of a ranking of the catalogue, written user by user.
//!
//! Finished users are stored in `<output>.partial`, so that an interrupted ranking continues. Its first line identifies
//! all inputs. `<output>.lock` excludes other processes; it stays, empty.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use podium_files::durable;
use podium_files::locks::{Kind, Lock, Locks};
use podium_recsys::User;
use podium_recsys::ranking::CatalogueAnswer;
use serde_json::{Value, json};

/// The reasons why an output cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file of finished users cannot be read or extended.
    #[error("cannot read or extend {}", path.display())]
    Partial {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process writes the same output.
    #[error("another process is writing {}: wait for its end, or choose another --output", output.display())]
    Locked {
        /// The output.
        output: PathBuf,
    },
    /// The output or the lock file cannot be written.
    #[error(transparent)]
    Write(#[from] durable::Error),
}

/// The finished users of an output that is not complete.
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    /// The answers to the first users.
    pub(crate) done: Vec<CatalogueAnswer>,
    _lock: Lock,
}

impl Partial {
    /// Opens the finished users of `output`; users of another identity are dropped.
    pub(crate) fn open(output: &Path, identity: &Value, users: &[User]) -> Result<Self, Error> {
        if let Some(parent) = output.parent() {
            durable::create_folder(parent)?;
        }
        let beside = |ending: &str| {
            let mut name = output.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let lock = Locks::open(&beside(".lock"))?.try_lock(0, Kind::Exclusive)?;
        let lock = lock.ok_or_else(|| Error::Locked { output: output.to_owned() })?;
        let path = beside(".partial");
        let failed = |source| Error::Partial { path: path.clone(), source };
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.map_err(failed)?,
        };
        let done = finished(&text, identity, users);
        // An incomplete last line is removed.
        durable::write(&path, [format!("{identity}\n"), lines(&done)].concat().as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path).map_err(failed)?;
        Ok(Self { path, file, done, _lock: lock })
    }

    /// Stores the answers to the next users.
    pub(crate) fn extend(&mut self, answers: Vec<CatalogueAnswer>) -> Result<(), Error> {
        let written = self.file.write_all(lines(&answers).as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|source| Error::Partial { path: self.path.clone(), source })?;
        self.done.extend(answers);
        Ok(())
    }

    /// Writes the output, and removes this file.
    pub(crate) fn publish(self, output: &Path) -> Result<(), Error> {
        durable::write(output, lines(&self.done).as_bytes())?;
        std::fs::remove_file(&self.path).map_err(|source| Error::Partial { path: self.path, source })
    }
}

/// Returns the answers to the first users in `text`, which begins with the line of its identity.
fn finished(text: &str, identity: &Value, users: &[User]) -> Vec<CatalogueAnswer> {
    let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    if lines.next() != Some(identity.to_string().as_str()) {
        return Vec::new();
    }
    let answers = lines.map_while(|line| serde_json::from_str::<CatalogueAnswer>(line).ok());
    let same =
        |(answer, user): &(CatalogueAnswer, &User)| answer.user == user.id && answer.target == user.target();
    answers.zip(users).take_while(same).map(|(answer, _)| answer).collect()
}

fn lines(answers: &[CatalogueAnswer]) -> String {
    answers.iter().map(|answer| json!(answer).to_string() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use podium_recsys::{ItemId, UserId};

    use super::*;

    fn user(id: u64) -> User {
        User { id: UserId(id), items: [1, id + 2].map(ItemId).into() }
    }

    fn answer(user: &User) -> CatalogueAnswer {
        CatalogueAnswer::of(user.id, user.target(), &[user.target(), ItemId(0)], &[-1.0, -0.5])
    }

    #[test]
    fn finished_users_are_reused_up_to_an_incomplete_line() {
        let users = [0, 1, 2].map(user);
        let identity = json!({"run": "a"});
        let complete = format!("{identity}\n{}", lines(&users[..2].iter().map(answer).collect::<Vec<_>>()));
        let cut = format!("{complete}{{\"user\": 2");
        assert_eq!(finished(&cut, &identity, &users), [answer(&users[0]), answer(&users[1])]);
        assert_eq!(finished(&cut, &json!({"run": "b"}), &users), [], "another run");
        assert_eq!(finished(&complete, &identity, &[users[0].clone(), user(7)]).len(), 1, "other users");
        assert_eq!(finished("", &identity, &users), []);
    }

    #[test]
    fn an_output_appears_complete() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("answers/0.jsonl");
        let (users, identity) = ([0, 1].map(user), json!({}));
        for user in &users {
            let mut partial = Partial::open(&output, &identity, &users).unwrap();
            partial.extend(vec![answer(user)]).unwrap();
            assert!(!output.exists());
            let second = Partial::open(&output, &identity, &users);
            assert!(matches!(second, Err(Error::Locked { .. })), "two processes write the same output");
        }
        let partial = Partial::open(&output, &identity, &users).unwrap();
        assert_eq!(partial.done.len(), 2);
        partial.publish(&output).unwrap();
        assert_eq!(std::fs::read_to_string(&output).unwrap().lines().count(), 2);
        assert!(!output.with_extension("jsonl.partial").exists());
    }
}

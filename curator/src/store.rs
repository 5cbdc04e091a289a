//! Billed replies in an embedded database, so that no reply is billed twice.
//!
//! The key of a reply is a hash of everything that determines it: the command, the whole body of the request (model,
//! text, pictures, parameters) and the number of the sample. Each reply is durable before it is processed. Failures are
//! not stored.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, TableDefinition};

use crate::endpoint::Reply;

/// Replies as JSON.
const REPLIES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("replies/1");

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another process has it open.
    #[error("{} is in use by another process: wait for it, or choose another file with --store", .0.display())]
    InUse(PathBuf),
    /// It cannot be opened or created.
    #[error("cannot open {}: expected a store of podium-curator, or a new file", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: Box<redb::Error>,
    },
    /// It cannot be read or written.
    #[error("cannot use the store of replies")]
    Use(#[source] Box<redb::Error>),
    /// A reply in it cannot be read.
    #[error("the store contains a reply that cannot be read")]
    Reply(#[from] serde_json::Error),
}

/// Identifies a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// Returns the key of the `sample`-th reply to `body`, requested by `command`.
    pub(crate) fn new(command: &str, body: &str, sample: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("podium-curator reply 1");
        for part in [command.as_bytes(), body.as_bytes(), &sample.to_le_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// Returns a number derived from the key, for random choices that belong to it.
    pub(crate) fn number(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store(Database);

impl Store {
    /// Opens or creates the store in the file `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Open { path: path.to_owned(), source: Box::new(source) };
        let database = Database::create(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Error::InUse(path.to_owned()),
            error => failed(error.into()),
        })?;
        // Create the table, so that later reads find it.
        let make_table = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(REPLIES)?;
            transaction.commit()?;
            Ok(())
        };
        make_table().map_err(failed)?;
        Ok(Self(database))
    }

    /// Returns the reply under `key`, if it is stored.
    pub(crate) fn get(&self, key: Key) -> Result<Option<Reply>, Error> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = self.0.begin_read()?.open_table(REPLIES)?;
            Ok(table.get(key.0.as_slice())?.map(|value| value.value().to_vec()))
        };
        let bytes = read().map_err(|source| Error::Use(Box::new(source)))?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    }

    /// Stores a reply durably.
    pub(crate) fn put(&self, key: Key, reply: &Reply) -> Result<(), Error> {
        let bytes = serde_json::to_vec(reply)?;
        let write = || -> Result<(), redb::Error> {
            let transaction = self.0.begin_write()?;
            transaction.open_table(REPLIES)?.insert(key.0.as_slice(), bytes.as_slice())?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|source| Error::Use(Box::new(source)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply {
        Reply { text: text.to_owned(), cut: false, declined: None, prompt_tokens: 3, completion_tokens: 4 }
    }

    #[test]
    fn replies_of_earlier_versions_are_read() {
        let old = r#"{"text":"a cat","cut":false,"prompt_tokens":3,"completion_tokens":4}"#;
        assert_eq!(serde_json::from_str::<Reply>(old).unwrap(), reply("a cat"));
        assert_eq!(serde_json::to_string(&reply("a cat")).unwrap(), old);
    }

    #[test]
    fn replies_are_durable_and_keyed_by_their_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replies.redb");
        let key = Key::new("caption", "body", 0);
        Store::open(&path).unwrap().put(key, &reply("a cat")).unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!(store.get(key).unwrap(), Some(reply("a cat")));
        for other in [
            Key::new("reason", "body", 0),
            Key::new("caption", "bodi", 0),
            Key::new("caption", "body", 1),
            Key::new("captionb", "ody", 0),
        ] {
            assert_eq!(store.get(other).unwrap(), None);
        }
    }

    #[test]
    fn a_store_is_exclusive_and_other_files_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replies.redb");
        let _store = Store::open(&path).unwrap();
        assert!(matches!(Store::open(&path), Err(Error::InUse(_))));
        let text = folder.path().join("notes.txt");
        std::fs::write(&text, "these are notes and no database ".repeat(400)).unwrap();
        assert!(matches!(Store::open(&text), Err(Error::Open { .. })));
    }
}

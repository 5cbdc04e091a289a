//! A small data folder, and runs of the real program on it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::server::Server;

/// Number of items, numbered from 1. Titles are invented pairs of words that occur in no instruction.
pub(crate) const ITEMS: u64 = 40;
/// Number of training users, numbered from 1; test users are numbered from 101.
pub(crate) const USERS: u64 = 12;
/// The key, which must not be written anywhere.
pub(crate) const KEY: &str = "sk-7b1d0c-never-to-be-seen";
/// The environment variable of the key.
pub(crate) const KEY_VARIABLE: &str = "PODIUM_TEST_ENDPOINT_KEY";

/// The data folder.
pub(crate) struct Shop {
    folder: tempfile::TempDir,
}

/// Returns the title of an item.
pub(crate) fn title(item: u64) -> String {
    let first = ["Amber", "Brisk", "Cobalt", "Dusky", "Emerald", "Frosty", "Gilded", "Hollow"];
    let second = ["Anvil", "Beacon", "Cascade", "Dynamo", "Ember"];
    format!("{} {}", first[(item % 8) as usize], second[(item % 5) as usize])
}

/// Returns a user's items: three of history, and the target.
pub(crate) fn items_of(user: u64) -> [u64; 4] {
    [0, 1, 2, 3].map(|step| (user * 7 + step * 11) % ITEMS + 1)
}

impl Shop {
    /// Creates titles, interactions, and a picture of every item.
    pub(crate) fn new() -> Self {
        let shop = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(shop.path().join("images")).unwrap();
        let mut titles = "item,title\n".to_owned();
        for item in 1..=ITEMS {
            writeln!(titles, "{item},{}", title(item)).unwrap();
            let mut bytes = b"\x89PNG\r\n\x1A\n".to_vec();
            bytes.extend(format!("picture of item {item}").bytes());
            shop.write(&format!("images/{item}.png"), bytes);
        }
        shop.write("shop_titles.csv", titles);
        let rows = |users: &mut dyn Iterator<Item = u64>| {
            let mut rows = String::new();
            for user in users {
                let items = items_of(user).map(|item| item.to_string()).join(" ");
                writeln!(rows, "{user}\t{items}").unwrap();
            }
            rows
        };
        shop.write("train.tsv", rows(&mut (1..=USERS)));
        shop.write("test.tsv", rows(&mut (101..=104)));
        shop.write(
            "run.toml",
            "[data]\ndir = \".\"\nname = \"shop\"\nmin_interactions = 4\nvalidation = \"none\"\n[answer]\nrequire_thinking = false\n",
        );
        shop
    }

    /// Returns its folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of a file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), content).unwrap();
    }

    /// Reads a file.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Reads a JSON file.
    pub(crate) fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// Returns `podium-curator` with `arguments`, for this folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podium-curator"));
        command.args(arguments).arg("--run-file").arg(self.file("run.toml"));
        // The tests connect only to this machine, whatever proxies are configured.
        command.env("NO_PROXY", "127.0.0.1").env(KEY_VARIABLE, KEY);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Returns the same with the endpoint `server` and short waits.
    pub(crate) fn asking(&self, server: &Server, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.args(["--endpoint", &server.url(), "--model", "test-model", "--api-key-env", KEY_VARIABLE]);
        for (flag, value) in [("--backoff-ms", "1"), ("--deadline-ms", "20000"), ("--concurrency", "4")] {
            if !arguments.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command
    }
}

/// Result of a command.
pub(crate) struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Its standard output.
    pub(crate) output: String,
    /// Its logs.
    pub(crate) logs: String,
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Ended {
    command.output().unwrap().into()
}

/// Starts a command.
pub(crate) fn start(mut command: Command) -> Child {
    command.spawn().unwrap()
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            output: String::from_utf8(output.stdout).unwrap(),
            logs: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// Panics with all output unless the exit code is `code`.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.output, self.logs);
        self
    }
}

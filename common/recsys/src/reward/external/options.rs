//! Options of external terms.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reward::error::Error;
use crate::reward::term::Name;

/// Longest name of a term.
const LONGEST_NAME: usize = 64;
/// Largest number of requests that may be open at once.
const MOST_REQUESTS: u32 = 256;

/// A term whose values a program of the user computes: `[[reward.external]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Name of the term, as in the metrics `rewards/<name>/mean`: letters, digits, `-` and `_`. Not the name of a
    /// built-in term.
    pub name: String,
    /// Factor of its value, at least 0. With 0 the term is recorded and does not influence training.
    #[serde(default = "one")]
    pub weight: f64,
    /// Lowest value of a well-formed completion, and the value of a malformed one.
    pub min: f64,
    /// Highest value.
    pub max: f64,
    /// Address that answers a POST of the request: `http://…` or `https://…`. Either this or `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Program and its arguments, which reads a request per line and writes an answer per line. No shell is involved.
    /// Either this or `url`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// For `command`: working directory of the program. Without it: the folder of the run file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// For `url`: file with a token, sent as `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// For `url`: environment variable of the coordinator with the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_variable: Option<String>,
    /// Timeout of one attempt at a request.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// Retries of a failed request before the run is reported as waiting for the term. The request is repeated until it
    /// succeeds.
    #[serde(default = "retries")]
    pub retries: u32,
    /// Wait before the first retry; it doubles with every further one, up to one minute.
    #[serde(default = "backoff_ms")]
    pub backoff_ms: u64,
    /// For `url`: requests that are open at once. For `command`: programs that run at once, each with one request at a time.
    #[serde(default = "concurrency")]
    pub concurrency: u32,
    /// Maximum number of completions per request. A request holds completions of one prompt.
    #[serde(default = "batch_size")]
    pub batch_size: u32,
}

/// The program that computes the values of a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program<'a> {
    /// A server at this address.
    Url(&'a str),
    /// A subprocess: the program, then its arguments.
    Command(&'a [String]),
}

const fn one() -> f64 {
    1.0
}

const fn timeout_ms() -> u64 {
    30_000
}

const fn retries() -> u32 {
    5
}

const fn backoff_ms() -> u64 {
    500
}

const fn concurrency() -> u32 {
    4
}

const fn batch_size() -> u32 {
    16
}

impl External {
    /// Keys that never change the value of a completion. They are not part of the run hash.
    pub const NOT_HASHED: [&str; 9] = [
        "url",
        "command",
        "directory",
        "token_file",
        "token_variable",
        "timeout_ms",
        "retries",
        "backoff_ms",
        "concurrency",
    ];

    /// Returns the program.
    pub fn program(&self) -> Program<'_> {
        self.url.as_deref().map_or(Program::Command(&self.command), Program::Url)
    }

    /// Returns a line for users: name, range, weight and program. The query of an address may contain a secret and is not
    /// shown.
    pub fn described(&self) -> String {
        let Self { name, min, max, weight, .. } = self;
        format!("{name}: {min} to {max}, weight {weight}, {}", self.shown_program())
    }

    /// Returns the address without its query, or the name of the program.
    pub fn shown_program(&self) -> &str {
        match self.program() {
            Program::Url(url) => url.split(['?', '#']).next().unwrap_or_default(),
            Program::Command(command) => command.first().map_or("", String::as_str),
        }
    }

    /// Checks the keys of the term.
    pub(in crate::reward) fn check(&self) -> Result<(), Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let Self { name, weight, min, max, .. } = self;
        let length = (1..=LONGEST_NAME).contains(&name.len());
        self.require(
            "name",
            name,
            length && name.chars().all(plain),
            "letters, digits, - and _, at most 64",
        )?;
        let is_built_in = serde_json::from_value::<Name>(name.as_str().into()).is_ok();
        self.require("name", name, !is_built_in, "another name than those of built-in terms")?;
        self.require("weight", weight, weight.is_finite() && *weight >= 0.0, "a number of at least 0")?;
        self.require("min", min, min.is_finite(), "a finite number")?;
        self.require("max", max, max.is_finite() && max > min, "a finite number above `min`")?;
        let programs = usize::from(self.url.is_some()) + usize::from(!self.command.is_empty());
        self.require(
            "url",
            "there, or missing, like `command`",
            programs == 1,
            "one of `url` and `command`",
        )?;
        match self.program() {
            Program::Url(url) => {
                let expected =
                    "an address such as http://127.0.0.1:8000/reward, without user name and password";
                self.require("url", "not such an address", is_address(url), expected)?;
                let given = self.directory.is_some();
                self.require("directory", "there", !given, "no such key with `url`")?;
                let both = self.token_file.is_some() && self.token_variable.is_some();
                self.require("token_file", "there", !both, "one of `token_file` and `token_variable`")?;
            }
            Program::Command(command) => {
                let is_named = command.first().is_some_and(|program| !program.is_empty());
                self.require("command", "without a program", is_named, "a list that begins with a program")?;
                let given = self.token_file.is_some() || self.token_variable.is_some();
                let expected =
                    "no such key with `command`: the program inherits the coordinator's environment";
                self.require("token_file or token_variable", "there", !given, expected)?;
            }
        }
        self.require("timeout_ms", &self.timeout_ms, self.timeout_ms >= 1, "at least 1")?;
        self.require("backoff_ms", &self.backoff_ms, self.backoff_ms >= 1, "at least 1")?;
        let requests = self.concurrency;
        self.require("concurrency", &requests, (1..=MOST_REQUESTS).contains(&requests), "1 to 256")?;
        self.require("batch_size", &self.batch_size, self.batch_size >= 1, "at least 1")
    }

    fn require(
        &self,
        key: &'static str,
        value: &(impl ToString + ?Sized),
        holds: bool,
        expected: &'static str,
    ) -> Result<(), Error> {
        let failed = || Error::External { name: self.name.clone(), key, value: value.to_string(), expected };
        if holds { Ok(()) } else { Err(failed()) }
    }
}

/// Whether a text is an address over HTTP without credentials, as far as it can be seen without a network.
fn is_address(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !host.is_empty()
            && !host.contains('@')
            && !url.contains(|c: char| c.is_whitespace() || c.is_control())
    })
}

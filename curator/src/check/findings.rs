//! Findings of a check, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Number of locations per kind in a report.
const PLACES_NAMED: usize = 5;

/// Kinds of defects in training texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Leak: the text of a prompt outside its lists contains information of the target's record only.
    TargetGivenAway,
    /// Leak: a prompt contains reasoning.
    ReasoningInPrompt,
    /// Leak: a row is about a held-out user.
    HeldOutUser,
    /// Leak: a row contains the history and the target of a held-out user under another id.
    HeldOutCase,
    /// Leak: a file contains reasoning about users other than training users.
    ReasoningOfOthers,
    /// Leak: the fraction of reasoning that names its own target is higher than by guessing.
    ReasoningNamesTarget,
    /// A line that is not a row.
    Malformed,
    /// A row of a user in no part.
    UnknownUser,
    /// A row whose target is not the user's or is not among the candidates.
    WrongTarget,
    /// Candidates that repeat or are in the user's history.
    KnownCandidate,
    /// A completion that is not well-formed.
    MalformedCompletion,
    /// A completion that does not rank the target first.
    TargetNotFirst,
    /// A row that differs from the prompt or completion of this run file.
    DiffersFromRunFile,
    /// Two rows of the same user and epoch.
    RepeatedUser,
    /// Two rows with the same texts.
    RepeatedText,
    /// The target is not uniformly distributed over the positions of the candidates.
    UnevenPositions,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TargetGivenAway => "leak: a prompt gives its target away",
            Self::ReasoningInPrompt => "leak: reasoning in a prompt",
            Self::HeldOutUser => "leak: a row of a held-out user",
            Self::HeldOutCase => "leak: a held-out user's history and target",
            Self::ReasoningOfOthers => "leak: reasoning about users other than training users",
            Self::ReasoningNamesTarget => "leak: reasoning that names its target",
            Self::Malformed => "malformed line",
            Self::UnknownUser => "unknown user",
            Self::WrongTarget => "wrong target",
            Self::KnownCandidate => "candidate repeated or known to the user",
            Self::MalformedCompletion => "malformed completion",
            Self::TargetNotFirst => "target not ranked first",
            Self::DiffersFromRunFile => "row differs from the run file's",
            Self::RepeatedUser => "user twice in an epoch",
            Self::RepeatedText => "same prompt and completion twice",
            Self::UnevenPositions => "uneven target positions",
        })
    }
}

/// Findings of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct Found {
    count: u64,
    first: Vec<String>,
}

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct Findings {
    /// Number of checked rows.
    pub(super) rows: u64,
    /// Number of checked reasoning texts.
    pub(super) reasonings: u64,
    /// Number of targets at each position of the candidates.
    pub(super) positions: Vec<u64>,
    found: BTreeMap<Kind, Found>,
}

impl Findings {
    /// Adds a finding; `location` is evaluated only for the first ones.
    pub(super) fn add(&mut self, kind: Kind, location: impl FnOnce() -> String) {
        self.add_many(kind, 1, location);
    }

    /// Adds several findings at one location.
    pub(super) fn add_many(&mut self, kind: Kind, count: u64, location: impl FnOnce() -> String) {
        let found = self.found.entry(kind).or_default();
        found.count += count;
        if found.first.len() < PLACES_NAMED {
            found.first.push(location());
        }
    }

    /// Whether there are no findings.
    pub(super) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rows and {} texts of reasoning", self.rows, self.reasonings)?;
        let positions: Vec<String> = self.positions.iter().map(ToString::to_string).collect();
        if !positions.is_empty() {
            writeln!(f, "target at each position: {}", positions.join(" "))?;
        }
        for (kind, found) in &self.found {
            writeln!(f, "{:>8}  {kind}  ({})", found.count, found.first.join("; "))?;
        }
        if self.is_clean() {
            writeln!(f, "no findings")?;
        }
        Ok(())
    }
}

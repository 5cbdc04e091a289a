//! What a check found, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// As many places of each kind are named.
const PLACES_NAMED: usize = 5;

/// What can be wrong with the texts that a policy is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Leak: a prompt says, outside its lists, what only the target's record says.
    TargetGivenAway,
    /// Leak: reasoning stands in a prompt.
    ReasoningInPrompt,
    /// Leak: a row is about a user who is held out.
    HeldOutUser,
    /// Leak: a row shows the history and the target of a user who is held out, under another name.
    HeldOutCase,
    /// Leak: a file of reasoning is about users who are not trained on.
    ReasoningOfOthers,
    /// Leak: more reasoning names its own target than guessing explains.
    ReasoningNamesTarget,
    /// A line that is no row.
    Malformed,
    /// A row whose user is in neither file.
    UnknownUser,
    /// A row with another target than its user's, or without it among the candidates.
    WrongTarget,
    /// Candidates that repeat, or that the user knows.
    KnownCandidate,
    /// A completion that the parser does not take.
    MalformedCompletion,
    /// A completion that does not rank the target first.
    TargetNotFirst,
    /// A row that this run file does not make.
    DiffersFromRunFile,
    /// Two rows of one user and epoch.
    RepeatedUser,
    /// Two rows of the same words.
    RepeatedText,
    /// The target is not equally often at each position of the candidates.
    UnevenPositions,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TargetGivenAway => "leak: a prompt gives its target away",
            Self::ReasoningInPrompt => "leak: reasoning in a prompt",
            Self::HeldOutUser => "leak: a row of a held-out user",
            Self::HeldOutCase => "leak: a held-out user's history and target",
            Self::ReasoningOfOthers => "leak: reasoning about users not trained on",
            Self::ReasoningNamesTarget => "leak: reasoning that names its target",
            Self::Malformed => "line that is no row",
            Self::UnknownUser => "unknown user",
            Self::WrongTarget => "wrong target",
            Self::KnownCandidate => "candidate repeated or known to the user",
            Self::MalformedCompletion => "malformed completion",
            Self::TargetNotFirst => "target not ranked first",
            Self::DiffersFromRunFile => "row differs from what the run file makes",
            Self::RepeatedUser => "user twice in an epoch",
            Self::RepeatedText => "same prompt and completion twice",
            Self::UnevenPositions => "targets unevenly placed",
        })
    }
}

/// Findings of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct Found {
    count: u64,
    first: Vec<String>,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct Findings {
    /// Rows that were looked at.
    pub(super) rows: u64,
    /// Texts of reasoning that were looked at.
    pub(super) reasonings: u64,
    /// How often the target is at each position of the candidates.
    pub(super) positions: Vec<u64>,
    found: BTreeMap<Kind, Found>,
}

impl Findings {
    /// One more finding, at a place that is written when it is one of the first.
    pub(super) fn add(&mut self, kind: Kind, place: impl FnOnce() -> String) {
        self.add_many(kind, 1, place);
    }

    /// Several findings at one place.
    pub(super) fn add_many(&mut self, kind: Kind, count: u64, place: impl FnOnce() -> String) {
        let found = self.found.entry(kind).or_default();
        found.count += count;
        if found.first.len() < PLACES_NAMED {
            found.first.push(place());
        }
    }

    /// Whether nothing was found.
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
            writeln!(f, "nothing wrong was found")?;
        }
        Ok(())
    }
}

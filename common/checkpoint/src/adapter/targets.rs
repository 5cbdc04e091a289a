//! The linear layers that an adapter changes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fields::Field;

/// The linear layers of a block, by the last part of their names.
pub const LINEAR: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// PEFT's keyword for all of them.
const ALL_LINEAR: &str = "all-linear";

/// PEFT's `target_modules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// A regular expression for whole names.
    Pattern(String),
    /// Whole names, or their last parts.
    Names(BTreeSet<String>),
}

impl Field for Targets {
    const EXPECTED: &'static str =
        "a list of names of modules, or one text: a regular expression or all-linear";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(pattern) => Some(Self::Pattern(pattern.clone())),
            value => Some(Self::Names(Vec::from_value(value)?.into_iter().collect())),
        }
    }
}

impl Targets {
    /// All linear layers except the head.
    pub fn all_linear() -> Self {
        Self::names(LINEAR)
    }

    /// Whole names of modules, or their last parts such as `q_proj`. `all-linear` selects all linear layers except
    /// the head.
    pub fn names(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut names: BTreeSet<String> = names.into_iter().map(Into::into).collect();
        if names.remove(ALL_LINEAR) {
            names.extend(LINEAR.map(str::to_owned));
        }
        Self::Names(names)
    }

    /// PEFT treats the keyword as all linear layers, not as a pattern.
    pub(super) fn resolved(self) -> Self {
        match self {
            Self::Pattern(word) if word.eq_ignore_ascii_case(ALL_LINEAR) => Self::all_linear(),
            other => other,
        }
    }
}

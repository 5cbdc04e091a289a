//! The kinds of candidate lists of a table.

use std::fmt;

use serde::{Serialize, Serializer};

/// The candidate lists of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lists {
    /// The target and this number of sampled negatives.
    Sampled(usize),
    /// The target and all items outside the user's whole history.
    Catalogue,
}

impl Lists {
    /// Returns the number of candidates if all lists have the same.
    pub const fn candidates(self) -> Option<usize> {
        match self {
            Self::Sampled(negatives) => Some(negatives + 1),
            Self::Catalogue => None,
        }
    }
}

/// "9 negatives", "whole catalogue"
impl fmt::Display for Lists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sampled(negatives) => write!(f, "{negatives} negatives"),
            Self::Catalogue => f.write_str("whole catalogue"),
        }
    }
}

/// The number of negatives, or `catalogue`.
impl Serialize for Lists {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Sampled(negatives) => serializer.serialize_u64(*negatives as u64),
            Self::Catalogue => serializer.serialize_str("catalogue"),
        }
    }
}

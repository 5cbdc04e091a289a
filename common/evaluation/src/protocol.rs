//! Named protocols of the literature: sizes of candidate lists.

use serde::{Serialize, Serializer};

/// A protocol: uniform negatives outside the user's whole history, and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// 20 candidates, HR@1 and the ratio of valid answers (Liao et al. 2024).
    Llara,
    /// The target and this many negatives.
    Negatives(usize),
}

impl Protocol {
    /// Largest cutoff of the protocols.
    pub const LARGEST_CUT: usize = 20;

    /// Returns the number of negatives in each candidate list.
    pub const fn negatives(self) -> usize {
        match self {
            Self::Llara => 19,
            Self::Negatives(negatives) => negatives,
        }
    }

    /// Returns its name: `llara`, `negatives-99`.
    pub fn name(self) -> String {
        match self {
            Self::Llara => "llara".to_owned(),
            Self::Negatives(negatives) => format!("negatives-{negatives}"),
        }
    }
}

/// The name.
impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

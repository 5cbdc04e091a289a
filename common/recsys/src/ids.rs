//! Ids of items and users in data files, prompts and completions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An item of the catalogue. It is written `[ITEM_17]` in prompts and completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemId(pub u64);

/// A user of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(pub u64);

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[ITEM_{}]", self.0)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.0)
    }
}

/// The text is not a canonical whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a whole number in plain digits")]
pub struct NotAnId;

impl FromStr for ItemId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        canonical(text).map(Self)
    }
}

impl FromStr for UserId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        canonical(text).map(Self)
    }
}

/// Parses ASCII digits without sign or leading zeros, so that each number has one spelling.
fn canonical(text: &str) -> Result<u64, NotAnId> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits_only || (text.len() > 1 && text.starts_with('0')) {
        return Err(NotAnId);
    }
    text.parse().map_err(|_| NotAnId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_is_accepted() {
        assert_eq!("0".parse(), Ok(ItemId(0)));
        assert_eq!("18446744073709551615".parse(), Ok(ItemId(u64::MAX)));
        for text in ["", "+1", "-1", "01", "00", " 1", "1.0", "١", "18446744073709551616"] {
            assert_eq!(text.parse::<ItemId>(), Err(NotAnId), "{text:?}");
        }
    }

    #[test]
    fn items_are_displayed_as_in_prompts() {
        assert_eq!(ItemId(17).to_string(), "[ITEM_17]");
    }
}

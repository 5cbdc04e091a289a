//! Units of whole-number timestamps.

use std::fmt;

/// The most likely unit of a whole number that counts time since 1970, by its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// From 1973 to 5138.
    Seconds,
    /// From 1973 to 5138.
    Milliseconds,
    /// From 1973 to 5138.
    Microseconds,
    /// From 1973.
    Nanoseconds,
}

impl Unit {
    /// Returns the unit of `time`; `None` for numbers that are too small to have a clear unit.
    pub(crate) const fn of(time: i64) -> Option<Self> {
        match time.unsigned_abs() {
            0..100_000_000 => None,
            100_000_000..100_000_000_000 => Some(Self::Seconds),
            100_000_000_000..100_000_000_000_000 => Some(Self::Milliseconds),
            100_000_000_000_000..100_000_000_000_000_000 => Some(Self::Microseconds),
            _ => Some(Self::Nanoseconds),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
            Self::Nanoseconds => "nanoseconds",
        })
    }
}

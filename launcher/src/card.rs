//! Memory sizes of GPUs.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

/// Units of sizes, longest first.
const UNITS: [(&str, f64); 4] =
    [("GiB", (1_u64 << 30) as f64), ("MiB", (1_u64 << 20) as f64), ("GB", 1e9), ("MB", 1e6)];

/// The memory of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Card {
    /// Size in bytes.
    pub(crate) bytes: u64,
}

/// The text cannot be parsed as a size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size: expected bytes, or a number with GB, GiB, MB or MiB, such as 80GB")]
pub(crate) struct NotASize(String);

impl FromStr for Card {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let unit = UNITS.into_iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, bytes)));
        let (number, bytes) = unit.unwrap_or((text, 1.0));
        let size = number.trim().parse::<f64>().ok().map(|number| number * bytes);
        let size = size.filter(|size| size.is_finite() && *size >= 1.0);
        size.map(|size| Self { bytes: size as u64 }).ok_or_else(|| NotASize(text.to_owned()))
    }
}

impl Display for Card {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} GiB", podium_memory::gibibytes(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_or_are_bytes() {
        let bytes = |text: &str| text.parse::<Card>().map(|card| card.bytes);
        assert_eq!(bytes("80GB"), Ok(80_000_000_000));
        assert_eq!(bytes("79.5 GiB"), Ok(159 << 29));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("1000"), Ok(1000));
        for text in ["", "80G", "GB", "-1GB", "0", "infGB", "80 gb"] {
            assert!(bytes(text).unwrap_err().to_string().contains("such as 80GB"), "{text}");
        }
    }
}

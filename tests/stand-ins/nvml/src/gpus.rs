//! The described GPUs: `PODIUM_NVML_STAND_IN="<driver> <CUDA> <number>"`, such as "580.65.06 13.0 8".
//!
//! GPU `i` (from 0) is a "Stand-in 80GB" of 80 GiB, uses `i + 1` GiB, computes `10 (i + 1)` % of the time, and draws
//! `100 (i + 1)` W.

use std::str::FromStr;

/// The environment variable.
pub const VARIABLE: &str = "PODIUM_NVML_STAND_IN";

/// Name of every GPU.
pub const NAME: &str = "Stand-in 80GB";
/// Memory of every GPU.
pub const MEMORY_BYTES: u64 = 80 << 30;

/// A described machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Version of the driver.
    pub driver: String,
    /// The newest CUDA version that the driver supports, in NVML's form: 13000 for 13.0.
    pub cuda: i32,
    /// Number of GPUs.
    pub count: u32,
}

impl Machine {
    /// Reads the environment; `None` without a description.
    pub(crate) fn of_environment() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        match text.parse() {
            Ok(machine) => Some(machine),
            Err(error) => {
                eprintln!("{VARIABLE} is {error}");
                std::process::abort();
            }
        }
    }
}

impl FromStr for Machine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: expected \"<driver> <CUDA> <number of GPUs>\"");
        let words: Vec<&str> = text.split_whitespace().collect();
        let [driver, cuda, count] = words[..] else { return Err(wrong()) };
        let (major, minor) = cuda.split_once('.').ok_or_else(wrong)?;
        let number = |word: &str| word.parse::<i32>().map_err(|_| wrong());
        let cuda = number(major)? * 1000 + number(minor)? * 10;
        Ok(Self { driver: driver.to_owned(), cuda, count: count.parse().map_err(|_| wrong())? })
    }
}

/// The UUID of GPU `index`.
pub fn uuid(index: u32) -> String {
    format!("GPU-{index:08x}-0000-0000-0000-000000000000")
}

/// Memory in use on GPU `index`, in bytes.
pub const fn used_bytes(index: u32) -> u64 {
    (index as u64 + 1) << 30
}

/// Utilisation of GPU `index` in percent.
pub const fn utilisation_percent(index: u32) -> u32 {
    10 * (index + 1)
}

/// Power draw of GPU `index` in milliwatts.
pub const fn power_milliwatts(index: u32) -> u32 {
    100_000 * (index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_read() {
        let machine = Machine { driver: "570.86.15".into(), cuda: 12_080, count: 2 };
        assert_eq!("570.86.15 12.8 2".parse(), Ok(machine));
        for text in ["", "580 13.0", "580 13 1", "580 13.0 x", "580 13.0 1 1"] {
            assert!(text.parse::<Machine>().is_err(), "{text}");
        }
    }
}

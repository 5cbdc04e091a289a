//! The described machine: `PODIUM_CUDA_STAND_IN="<CUDA> <number of GPUs>"`, such as "13.0 2".

use std::str::FromStr;

/// The environment variable.
pub const VARIABLE: &str = "PODIUM_CUDA_STAND_IN";

/// A described machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// The newest CUDA version that the driver supports, in the driver's form: 13000 for 13.0.
    pub cuda: i32,
    /// Number of GPUs.
    pub count: i32,
}

impl Machine {
    /// Reads the environment; without a description there are no GPUs.
    pub(crate) fn of_environment() -> Self {
        let text = std::env::var(VARIABLE).unwrap_or_else(|_| "13.0 0".into());
        text.parse().unwrap_or_else(|error| {
            eprintln!("{VARIABLE} is {error}");
            std::process::abort();
        })
    }
}

impl FromStr for Machine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: expected \"<CUDA> <number of GPUs>\"");
        let (cuda, count) = text.split_once(' ').ok_or_else(wrong)?;
        let (major, minor) = cuda.split_once('.').ok_or_else(wrong)?;
        let number = |word: &str| word.parse::<i32>().map_err(|_| wrong());
        Ok(Self { cuda: number(major)? * 1000 + number(minor)? * 10, count: number(count)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_read() {
        assert_eq!("12.8 2".parse(), Ok(Machine { cuda: 12_080, count: 2 }));
        for text in ["", "13.0", "13 1", "13.x 1", "13.0 1 1"] {
            assert!(text.parse::<Machine>().is_err(), "{text}");
        }
    }
}

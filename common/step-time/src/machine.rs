//! Rates of a machine.

use crate::Error;

/// Number of rows of [`Rate::few`].
const FEW: f64 = 32.0;
/// Number of rows from which on matrix products have the rate [`Rate::many`].
const MANY: f64 = 512.0;

/// Operations per second of matrix products, by the number of their rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// With 32 rows.
    pub few: f64,
    /// With 512 rows or more.
    pub many: f64,
}

impl Rate {
    /// Returns the rate for a number of rows: proportional to it below 32, and a power of it between 32 and 512.
    pub fn at(self, rows: f64) -> f64 {
        // Measured rates of few rows may exceed those of many by an error.
        let few = self.few.min(self.many);
        if rows <= FEW {
            return few * rows.max(1.0) / FEW;
        }
        let exponent = (self.many / few).ln() / (MANY / FEW).ln();
        few * (rows.min(MANY) / FEW).powf(exponent)
    }
}

/// Rates that a GPU, or the threads of a process on a CPU, reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Device {
    /// Matrix products, in the number type of the policy.
    pub products: Rate,
    /// Operations per second of attention over whole sequences.
    pub attention: f64,
    /// Bytes per second that kernels read and write.
    pub bandwidth: f64,
    /// Seconds that a process needs to start an operation.
    pub launch: f64,
    /// Whether a decoding step attends to the cache and selects tokens in one pass each, as on a CPU.
    pub fused: bool,
}

/// Bandwidths between devices, processes and files, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Links {
    /// Between learner ranks, for each rank in one direction.
    pub ranks: f64,
    /// Of the link of each host, for policy versions.
    pub network: f64,
    /// Of files: written with a checksum and synced, or read.
    pub files: f64,
    /// Of the encoder of deltas between policy versions.
    pub encoder: f64,
    /// Of their decoder.
    pub decoder: f64,
}

impl Default for Links {
    /// Values for a host without GPUs. Encoder and decoder are measured (docs/design/evidence.md, bfloat16).
    fn default() -> Self {
        Self { ranks: 1.25e9, network: 1.25e9, files: 1e9, encoder: 0.6e9, decoder: 0.8e9 }
    }
}

impl Device {
    /// Checks that all rates are positive numbers.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check([
            ("the rate of matrix products of few rows", self.products.few),
            ("the rate of matrix products of many rows", self.products.many),
            ("the rate of attention", self.attention),
            ("the memory bandwidth", self.bandwidth),
            ("the launch time", self.launch),
        ])
    }
}

impl Links {
    /// Checks that all bandwidths are positive numbers.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check([
            ("the bandwidth between ranks", self.ranks),
            ("the bandwidth of the network", self.network),
            ("the bandwidth of files", self.files),
            ("the rate of the encoder", self.encoder),
            ("the rate of the decoder", self.decoder),
        ])
    }
}

fn check<const N: usize>(rates: [(&'static str, f64); N]) -> Result<(), Error> {
    let invalid = rates.into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0));
    invalid.map_or(Ok(()), |(what, value)| Err(Error::Rate { what, value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_to_the_one_of_many_rows() {
        let rate = Rate { few: 80.0, many: 160.0 };
        let rates = [1.0, 16.0, 32.0, 128.0, 512.0, 4096.0].map(|rows| rate.at(rows));
        for (found, expected) in rates.into_iter().zip([2.5, 40.0, 80.0, 80.0 * 2.0_f64.sqrt(), 160.0, 160.0])
        {
            assert!((found - expected).abs() < 1e-9, "{rates:?}");
        }
    }

    #[test]
    fn invalid_rates_are_named() {
        let links = Links { network: 0.0, ..Links::default() };
        let error = links.check().unwrap_err().to_string();
        assert_eq!(error, "the bandwidth of the network is 0, expected a positive number");
        Links::default().check().unwrap();
    }
}

//! Rates of the machine that time is computed for.

use std::path::{Path, PathBuf};

use podium_step_time::{CARDS, Card, Device, Links, Rate};
use serde::Deserialize;

/// The reasons why the machine is unknown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "{name} is neither a file nor a known GPU: expected {}, or the output of podium-learner selfcheck",
        CARDS.map(|card| card.name).join(", ")
    )]
    Unknown { name: String },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} has no measured rates: expected the output of podium-learner selfcheck without --no-speed"
    )]
    Rates { path: PathBuf, source: serde_json::Error },
}

/// A machine.
pub(super) enum Machine {
    /// A GPU by its data sheet.
    Card(Card),
    /// Measured rates of the device of this name.
    Measured { name: String, device: Device },
}

/// The output of `podium-learner selfcheck`.
#[derive(Deserialize)]
struct Report {
    device: String,
    rates: Rates,
}

#[derive(Deserialize)]
struct Rates {
    few_rows_flops_per_second: f64,
    many_rows_flops_per_second: f64,
    attention_flops_per_second: f64,
    bytes_per_second: f64,
    launch_seconds: f64,
}

impl Machine {
    /// Returns the GPU of this name, or the rates in a file.
    pub(super) fn of(name: &str) -> Result<Self, Error> {
        if let Some(card) = Card::named(name) {
            return Ok(Self::Card(card));
        }
        let path = Path::new(name);
        if !path.exists() {
            return Err(Error::Unknown { name: name.to_owned() });
        }
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let Report { device, rates } =
            serde_json::from_str(&text).map_err(|source| Error::Rates { path: path.to_owned(), source })?;
        let fused = device == "cpu";
        let products = Rate { few: rates.few_rows_flops_per_second, many: rates.many_rows_flops_per_second };
        Ok(Self::Measured {
            name: device,
            device: Device {
                products,
                attention: rates.attention_flops_per_second,
                bandwidth: rates.bytes_per_second,
                launch: rates.launch_seconds,
                fused,
            },
        })
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Card(card) => card.name,
            Self::Measured { name, .. } => name,
        }
    }

    pub(super) fn device(&self) -> Device {
        match self {
            Self::Card(card) => card.device(),
            Self::Measured { device, .. } => *device,
        }
    }

    pub(super) fn links(&self, ranks: u64) -> Links {
        match self {
            Self::Card(card) => card.links(ranks),
            Self::Measured { .. } => Links::default(),
        }
    }

    /// US dollars per hour.
    pub(super) fn price(&self) -> f64 {
        match self {
            Self::Card(card) => card.price,
            Self::Measured { .. } => 0.0,
        }
    }
}

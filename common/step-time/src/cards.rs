//! GPUs and their rates by the vendor's data sheets.

use crate::machine::{Device, Links, Rate};

/// Share of the peak that large matrix products reach, assumed.
const PRODUCTS: f64 = 0.6;
/// Share of the peak that attention reaches, assumed.
const ATTENTION: f64 = 0.3;
/// Rate of products of 32 rows relative to that of many rows, assumed: tiles have at least 64 rows, and few of them leave
/// processors of the GPU idle.
const FEW_ROWS: f64 = 0.25;
/// Share of the memory bandwidth that kernels reach, assumed.
const BANDWIDTH: f64 = 0.8;
/// Share of the interconnect's bandwidth that NCCL reaches, assumed.
const INTERCONNECT: f64 = 0.7;
/// Seconds that a process needs to dispatch an operation and launch its kernel, assumed.
const LAUNCH: f64 = 5e-6;
/// GPUs of a host, assumed.
pub const GPUS_PER_HOST: u64 = 8;
/// Bandwidth between hosts for each GPU, in bytes per second, assumed: 400 Gbit/s.
const BETWEEN_HOSTS: f64 = 50e9;
/// Bandwidth of a host for policy versions, in bytes per second, assumed: 10 Gbit/s.
const NETWORK: f64 = 1.25e9;

/// A GPU. Rates are those of the data sheet, without sparsity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Card {
    /// Its name on the command line.
    pub name: &'static str,
    /// Operations per second in bfloat16 with float32 sums.
    pub flops: f64,
    /// Memory bandwidth in bytes per second.
    pub bandwidth: f64,
    /// Bandwidth to the other GPUs of a host in one direction, in bytes per second.
    pub interconnect: f64,
    /// US dollars per hour, assumed: rented on demand. Prices of providers differ by more than a factor of two.
    pub price: f64,
}

/// The GPUs that are known by name: L40S with `PCIe` 4.0, the others with `NVLink`.
pub const CARDS: [Card; 5] = [
    Card { name: "h100", flops: 989e12, bandwidth: 3.35e12, interconnect: 450e9, price: 3.0 },
    Card { name: "h200", flops: 989e12, bandwidth: 4.8e12, interconnect: 450e9, price: 3.5 },
    Card { name: "a100", flops: 312e12, bandwidth: 2.039e12, interconnect: 300e9, price: 1.8 },
    Card { name: "l40s", flops: 362e12, bandwidth: 864e9, interconnect: 32e9, price: 1.0 },
    Card { name: "b200", flops: 2.25e15, bandwidth: 8e12, interconnect: 900e9, price: 5.0 },
];

impl Card {
    /// Returns the GPU of this name.
    pub fn named(name: &str) -> Option<Self> {
        CARDS.into_iter().find(|card| card.name.eq_ignore_ascii_case(name))
    }

    /// Returns the rates that the GPU is assumed to reach.
    pub fn device(&self) -> Device {
        let products = PRODUCTS * self.flops;
        Device {
            products: Rate { few: FEW_ROWS * products, many: products },
            attention: ATTENTION * self.flops,
            bandwidth: BANDWIDTH * self.bandwidth,
            launch: LAUNCH,
            fused: false,
        }
    }

    /// Returns the bandwidths of hosts with this GPU. `ranks`: learner ranks of the run.
    pub fn links(&self, ranks: u64) -> Links {
        let between_ranks = if ranks > GPUS_PER_HOST { BETWEEN_HOSTS } else { self.interconnect };
        Links { ranks: INTERCONNECT * between_ranks, network: NETWORK, ..Links::default() }
    }
}

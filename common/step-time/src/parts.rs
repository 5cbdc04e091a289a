//! Duration of a phase, and what limits it.

use std::fmt::{Display, Formatter};
use std::ops::{Add, Mul};

/// The resource that determines the duration of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Matrix products and attention.
    Products,
    /// Reading weights and the cache of keys and values.
    Weights,
    /// Memory traffic of norms, activation functions, adapters, scores, logits and the optimizer.
    Elementwise,
    /// Starting operations.
    Launches,
    /// The links between learner ranks.
    Ranks,
    /// Encoding, sending, decoding and storing policy versions.
    Transfer,
    /// The coordinator, and messages to it.
    Coordinator,
}

impl Display for Limit {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Products => "matrix products",
            Self::Weights => "reading weights and cache",
            Self::Elementwise => "memory traffic of other operations",
            Self::Launches => "kernel launches",
            Self::Ranks => "links between ranks",
            Self::Transfer => "transfers and files",
            Self::Coordinator => "coordinator",
        })
    }
}

/// Seconds of the parts of a computation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Parts {
    /// Matrix products and attention.
    pub(crate) products: f64,
    /// Reading weights and cache, which overlaps with the products.
    pub(crate) weights: f64,
    /// Memory traffic of other operations, which follows.
    pub(crate) elementwise: f64,
    /// Starting operations, which overlaps with all of these.
    pub(crate) launches: f64,
}

impl Parts {
    pub(crate) fn seconds(&self) -> f64 {
        (self.products.max(self.weights) + self.elementwise).max(self.launches)
    }

    fn limit(&self) -> Limit {
        if self.launches > self.products.max(self.weights) + self.elementwise {
            Limit::Launches
        } else if self.elementwise > self.products.max(self.weights) {
            Limit::Elementwise
        } else if self.weights > self.products {
            Limit::Weights
        } else {
            Limit::Products
        }
    }
}

impl Add for Parts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            products: self.products + other.products,
            weights: self.weights + other.weights,
            elementwise: self.elementwise + other.elementwise,
            launches: self.launches + other.launches,
        }
    }
}

impl Mul<f64> for Parts {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self {
            products: factor * self.products,
            weights: factor * self.weights,
            elementwise: factor * self.elementwise,
            launches: factor * self.launches,
        }
    }
}

/// A phase of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// Its duration in a step, in seconds.
    pub seconds: f64,
    /// What determines the duration.
    pub limit: Limit,
}

impl Phase {
    /// A phase of a computation.
    pub(crate) fn computed(name: &'static str, parts: Parts) -> Self {
        Self { name, seconds: parts.seconds(), limit: parts.limit() }
    }

    /// The same phase, repeated.
    pub(crate) fn times(self, factor: f64) -> Self {
        Self { seconds: factor * self.seconds, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_part_limits_a_phase() {
        let limit = |products, weights, elementwise, launches| {
            let parts = Parts { products, weights, elementwise, launches };
            let phase = Phase::computed("phase", parts);
            (phase.seconds, phase.limit)
        };
        assert_eq!(limit(3.0, 2.0, 1.0, 3.5), (4.0, Limit::Products));
        assert_eq!(limit(2.0, 3.0, 1.0, 3.5), (4.0, Limit::Weights));
        assert_eq!(limit(2.0, 1.0, 3.0, 3.5), (5.0, Limit::Elementwise));
        assert_eq!(limit(2.0, 1.0, 1.0, 3.5), (3.5, Limit::Launches));
    }
}

//! Outcomes with their rewards: the highest, the lowest, and those in the wrong order.

use std::fmt;

use super::outcome::Outcome;

/// Two outcomes with rewards in the wrong order.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// The outcome that must earn less.
    pub worse: Outcome,
    /// Its reward.
    pub worse_total: f64,
    /// The outcome that must earn more.
    pub better: Outcome,
    /// Its reward.
    pub better_total: f64,
    /// The violated rule.
    pub rule: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worse, worse_total, better, better_total, rule } = self;
        write!(f, "{worse} earns {worse_total:.4}, {better} earns {better_total:.4}; expected {rule}")
    }
}

/// An outcome and its reward.
pub type Earning = (Outcome, f64);

/// The highest and lowest rewards.
#[derive(Debug, Clone, PartialEq)]
pub struct Extremes {
    /// Highest reward of any answer.
    pub best: Earning,
    /// Lowest reward of a well-formed answer.
    pub worst_well_formed: Earning,
    /// Lowest reward of any answer.
    pub worst: Earning,
}

impl fmt::Display for Extremes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { best, worst_well_formed, worst } = self;
        write!(f, "{:.4} at best ({}), ", best.1, best.0)?;
        write!(f, "{:.4} at worst well-formed ({}), ", worst_well_formed.1, worst_well_formed.0)?;
        write!(f, "{:.4} at worst ({})", worst.1, worst.0)
    }
}

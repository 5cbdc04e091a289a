//! Errors of a prediction.

/// The reasons why a step cannot be predicted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A number of the plan is 0.
    #[error("{what} is 0, expected at least 1")]
    Zero {
        /// The number.
        what: &'static str,
    },
    /// A rate of the machine is not a positive number.
    #[error("{what} is {value}, expected a positive number")]
    Rate {
        /// The rate.
        what: &'static str,
        /// Its value.
        value: f64,
    },
}

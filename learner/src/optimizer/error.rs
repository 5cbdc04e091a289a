//! The failures of an optimizer's step.

use crate::{adamw, collective};

/// The reasons why a step is not applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rank group is broken.
    #[error(transparent)]
    Collective(#[from] collective::Error),
    /// The gradient is not finite. Every rank gets this error, and nothing has changed.
    #[error(transparent)]
    Gradient(#[from] adamw::Error),
}

//! Filters by name.

mod apply;
mod operand;
mod path;
mod sequences;
mod signature;
mod values;

pub(crate) use apply::apply;
pub(crate) use signature::is_known;

//! The device table: which device each process of a run on this machine uses.

mod assign;
mod placement;
mod rows;
mod table;

pub(crate) use assign::Error;
pub(crate) use placement::Placement;
pub(crate) use table::{ONE_PROCESS, Table};

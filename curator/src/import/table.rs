//! Custom tables: interactions and items as Parquet or CSV, with the names of their columns.

use std::path::PathBuf;

use super::collector::Collector;
use super::header::{self, ItemColumns, LogColumns};
use super::parquet;
use super::rows::Error;
use super::times::Times;

/// Reads the items and the interactions.
pub(crate) fn read(
    collector: &mut Collector,
    (logs, log_names): (&[PathBuf], &LogColumns<'_>),
    (items, item_names): (&[PathBuf], &ItemColumns<'_>),
) -> Result<(), Error> {
    collector.each(items, |collector, input| match input.parquet()? {
        Some(file) => parquet::items(collector, (input, file), item_names),
        None => header::items(collector, input, item_names),
    })?;
    collector.end_items(items, header::ITEM_ROW)?;
    let mut times = Times::default();
    collector.each(logs, |collector, input| match input.parquet()? {
        Some(file) => parquet::interactions(collector, (input, file), log_names, &mut times),
        None => header::interactions(collector, input, log_names, &mut times),
    })?;
    collector.end_log(logs, &times, header::LOG_ROW)
}

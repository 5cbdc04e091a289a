//! Tables of the user's own: interactions and items as Parquet or CSV, with the names of their columns.

use std::path::Path;

use super::collector::Collector;
use super::header::{self, ItemColumns, LogColumns};
use super::parquet;
use super::rows::Error;

/// Reads the items and the interactions.
pub(crate) fn read(
    collector: &mut Collector,
    log: (&Path, &LogColumns<'_>),
    items: (&Path, &ItemColumns<'_>),
) -> Result<(), Error> {
    let ((file, names), (item_file, item_names)) = (log, items);
    if parquet::is_parquet(item_file) {
        parquet::items(collector, item_file, item_names)?;
    } else {
        header::items(collector, item_file, item_names)?;
    }
    if parquet::is_parquet(file) {
        parquet::interactions(collector, file, names)
    } else {
        header::interactions(collector, file, names)
    }
}

//! Cached state of an inspected version's folder.

use podium_files::stamp::Stamp;
use podium_transfer::Content;

/// A version's state at the last comparison of its checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inspected {
    pub(super) content: Content,
    pub(super) stamps: Vec<Stamp>,
}

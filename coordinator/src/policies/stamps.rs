//! Cached state of an inspected version's folder.

use podium_transfer::Content;

/// A file's metadata, which changes with its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) inode: u64,
    pub(super) changed: (i64, i64),
    pub(super) modified: (i64, i64),
}

/// A version's state at the last comparison of its checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inspected {
    pub(super) content: Content,
    pub(super) stamps: Vec<Stamp>,
}

//! What is known of the folder of a version that was inspected.

use podium_transfer::Content;

/// How a file looks to the file system: changes with its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) inode: u64,
    pub(super) changed: (i64, i64),
    pub(super) modified: (i64, i64),
}

/// A version as it was when its checksums were compared last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inspected {
    pub(super) content: Content,
    pub(super) stamps: Vec<Stamp>,
}

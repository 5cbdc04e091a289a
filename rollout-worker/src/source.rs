//! Identity of a policy version.

use std::fmt;

use podium_grpo::PolicyVersion;
use podium_transfer::{Content, Manifest};

/// A policy version by number and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    /// Its number.
    pub(crate) version: PolicyVersion,
    /// Its content; `None` for a folder that does not belong to a coordinator.
    pub(crate) content: Option<Content>,
}

impl Source {
    /// Returns the version that a manifest describes.
    pub(crate) fn of(manifest: &Manifest) -> Self {
        Self { version: manifest.version, content: Some(manifest.content()) }
    }

    /// Returns the name of its folder in a cache.
    #[cfg(test)]
    pub(crate) fn folder_name(self) -> String {
        podium_transfer::cache::folder_name(self.version, self.content.unwrap())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Some(content) => write!(f, "{} with content {content}", self.version),
            None => write!(f, "{}", self.version),
        }
    }
}

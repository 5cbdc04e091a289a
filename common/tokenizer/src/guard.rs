//! Catches panics of libraries that panic on invalid files.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use crate::Error;

/// Runs `work` of a library on the files of a folder and converts a panic into an error.
pub(crate) fn guarded<T>(folder: &Path, library: &'static str, work: impl FnOnce() -> T) -> Result<T, Error> {
    // The result of `work` is lost with the panic. Its inputs are unchanged except for caches, whose locks are
    // poisoned.
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Error::Library {
        path: folder.to_owned(),
        library,
        message: message(&*panic).to_owned(),
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "no message",
    }
}

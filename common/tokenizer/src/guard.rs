//! The border to libraries that panic over some files which they ought to refuse.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use crate::Error;

/// Runs `work` of a library on the files of a folder. A panic becomes an error.
pub(crate) fn guarded<T>(folder: &Path, library: &'static str, work: impl FnOnce() -> T) -> Result<T, Error> {
    // What `work` makes is lost with the panic, and what it looks at stays as it was, but for caches that their locks
    // take out of use.
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
        (None, None) => "no reason given",
    }
}

//! Installs a stand-in where programs search a library.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, io};

/// Links the stand-in `library` into `folder` as `name` and returns the `LD_LIBRARY_PATH` with which a program finds it.
/// For test executables: cargo writes the library beside them.
pub fn install(library: &str, name: &str, folder: &Path) -> io::Result<OsString> {
    let test = env::current_exe()?;
    let library = test.with_file_name(format!("lib{library}.so"));
    if !library.is_file() {
        let missing = format!("{} is missing: build the stand-in first", library.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, missing));
    }
    let link = folder.join(name);
    if !link.exists() {
        std::os::unix::fs::symlink(&library, &link)?;
    }
    let others = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::iter::once(PathBuf::from(folder)).chain(env::split_paths(&others));
    env::join_paths(folders).map_err(io::Error::other)
}

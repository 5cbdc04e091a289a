//! Reading of a run file: its layers, and its paths relative to its folder.

use std::path::Path;

use crate::error::Error;
use crate::layers::{self, Override};
use crate::run_file::RunFile;

impl RunFile {
    /// Reads a run file, applies environment variables and `overrides`, and validates the result.
    ///
    /// Relative paths in the file are resolved against the file's folder.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let mut file = layers::assemble(&text, &path.display().to_string(), layers::variables()?, overrides)?;
        file.resolve_paths(&folder)?;
        Ok(file)
    }

    /// Parses a run file that is embedded in the program. Relative paths are not resolved.
    pub fn parse(text: &str, name: &str, overrides: &[Override]) -> Result<Self, Error> {
        layers::assemble(text, name, layers::variables()?, overrides)
    }

    fn resolve_paths(&mut self, folder: &Path) -> Result<(), Error> {
        for path in self.paths() {
            if path.is_relative() {
                *path = folder.join(&*path);
            }
            require_text(path)?;
        }
        Ok(())
    }
}

/// Rejects a path that is not UTF-8 and therefore cannot be stored in a run file.
pub fn require_text(path: &Path) -> Result<(), Error> {
    if path.to_str().is_some() { Ok(()) } else { Err(Error::Path { path: path.to_owned() }) }
}

//! Checksums of files.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::Error;

/// Returns the SHA-256 of a file's content.
pub fn sha256(path: &Path) -> Result<[u8; 32], Error> {
    Ok(sha256_so_far(path)?.0.finalize().into())
}

/// Returns the SHA-256 of a file's content, to be continued with more bytes, and the number of bytes.
pub fn sha256_so_far(path: &Path) -> Result<(Sha256, u64), Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut digest = Sha256::new();
    let bytes = io::copy(&mut File::open(path).map_err(failed)?, &mut digest).map_err(failed)?;
    Ok((digest, bytes))
}

/// Returns bytes as lower-case hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

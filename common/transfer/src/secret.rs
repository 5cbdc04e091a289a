//! The secret of a run, which every call to its coordinator carries.
//!
//! The secret is 32 bytes from the operating system, as hexadecimal digits in `run.secret` of the run folder, with mode
//! 0600. The launcher or the coordinator creates it, whichever starts first. Other hosts receive a copy of the file.
//! It appears in no argument, log or message other than the metadata of calls.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use podium_config::Network;
use podium_files::durable;
use subtle::ConstantTimeEq;
use tonic::metadata::{Ascii, MetadataValue};

/// Name of the file in the run folder.
pub const FILE: &str = "run.secret";
/// Environment variable with the path of the file, which wins over `network.secret_file`.
pub const VARIABLE: &str = "PODIUM_SECRET_FILE";
/// Name of the metadata that carries the secret.
pub const METADATA: &str = "authorization";

/// Scheme of the metadata's value.
const SCHEME: &str = "Bearer ";
/// Size of a secret.
const BYTES: usize = 32;
/// Number of hexadecimal digits in the file.
const DIGITS: usize = 2 * BYTES;
/// Longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// The reasons why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error(
        "cannot read the secret of the run in {}: expected a copy of {FILE} from the run folder of its coordinator; set \
         {VARIABLE} or network.secret_file to its path",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Other users can read the file.
    #[error(
        "the secret of the run in {} has mode {mode:04o}: expected 0600, so that only its owner can read it; run chmod 600 \
         (0440 for a file of root in Kubernetes: defaultMode and fsGroup), and replace the secret if other users may have read it",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not contain a secret.
    #[error(
        "{} does not contain the secret of a run: expected {DIGITS} hexadecimal digits in one line; copy {FILE} from the run \
         folder of the coordinator, or create a new secret with openssl rand -hex {BYTES}",
        path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be created.
    #[error(
        "cannot create the secret of the run; set {VARIABLE} or network.secret_file to a file that contains one"
    )]
    Create(#[from] durable::Error),
    /// The operating system has no random numbers.
    #[error("the system provides no random numbers for the secret of the run")]
    Random(#[from] getrandom::Error),
}

impl Error {
    /// Returns whether the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The secret of a run. It is not printed.
#[derive(Clone)]
pub struct Secret([u8; BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(redacted)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        bool::from(self.0.ct_eq(&other.0))
    }
}

impl Eq for Secret {}

impl Secret {
    /// Reads a secret.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not a secret, or can be read by other users. A file of this user must have no
    /// permissions for group and others. A file of root may be readable by a group of this user, as Kubernetes mounts it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let content = || Error::Content { path: path.to_owned() };
        // A pipe would block.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(content());
        }
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o777;
        let of_root = metadata.uid() == 0 && !nix::unistd::geteuid().is_root();
        if mode & if of_root { 0o037 } else { 0o077 } != 0 {
            return Err(Error::Exposed { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|_| content())?;
        Self::parse(text.trim_end()).ok_or_else(content)
    }

    /// Returns the secret of the run in `out`. Without a configured file the secret is that of the run folder, which is
    /// created if it does not exist.
    pub fn of_run(out: &Path, network: &Network) -> Result<Self, Error> {
        if let Some(path) = configured(network) {
            return Self::read(&path);
        }
        let path = out.join(FILE);
        match Self::read(&path) {
            Err(error) if error.is_missing() => {
                let mut bytes = [0; BYTES];
                getrandom::fill(&mut bytes)?;
                durable::create_private(&path, format!("{}\n", durable::hex(&bytes)).as_bytes())?;
                // Another process may have created it first.
                Self::read(&path)
            }
            read => read,
        }
    }

    /// Returns whether the value of a call's metadata is this secret. The time does not depend on the given digits.
    pub fn accepts(&self, value: &[u8]) -> bool {
        let digits =
            value.strip_prefix(SCHEME.as_bytes()).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(Self::parse).is_some_and(|given| given == *self)
    }

    /// Returns the value of a call's metadata. Logs of libraries do not show it.
    pub(crate) fn metadata(&self) -> MetadataValue<Ascii> {
        let value = format!("{SCHEME}{}", durable::hex(&self.0));
        let mut value: MetadataValue<Ascii> = value.parse().expect("hexadecimal digits are ASCII");
        value.set_sensitive(true);
        value
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() != DIGITS {
            return None;
        }
        let (pairs, _) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; BYTES];
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Some(Self(bytes))
    }
}

/// Returns the configured file: that of [`VARIABLE`], else that of `network.secret_file`.
pub fn configured(network: &Network) -> Option<PathBuf> {
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    variable.map(PathBuf::from).or_else(|| network.secret_file.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        // The file before may be read-only.
        let _ = fs::remove_file(path);
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_run_has_one_secret_that_only_its_owner_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::default();
        let secret = Secret::of_run(folder.path(), &network).unwrap();
        assert_eq!(Secret::of_run(folder.path(), &network).unwrap(), secret);
        let path = folder.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap().trim_end().len(), DIGITS);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Secret::of_run(other.path(), &network).unwrap(), secret);
        let network = Network { secret_file: Some(path), ..network };
        let third = tempfile::tempdir().unwrap();
        assert_eq!(Secret::of_run(third.path(), &network).unwrap(), secret);
        assert!(!third.path().join(FILE).exists());
    }

    #[test]
    fn only_the_same_secret_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let secret = Secret::of_run(folder.path(), &Network::default()).unwrap();
        let value = secret.metadata();
        assert!(secret.accepts(value.as_bytes()));
        let mut wrong = value.as_bytes().to_vec();
        *wrong.last_mut().unwrap() ^= 1;
        let truncated = &value.as_bytes()[..value.as_bytes().len() - 1];
        for refused in
            [&wrong, truncated, b"", b"Bearer ", b"Basic x", &value.as_bytes()[SCHEME.len()..], &[0xff; 71]]
        {
            assert!(!secret.accepts(refused), "{refused:?}");
        }
        let shown = format!("{secret:?} {value:?}");
        assert!(!shown.contains(&durable::hex(&secret.0)), "{shown}");
    }

    #[test]
    fn an_unusable_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine");
        let refused = || Secret::read(&path).unwrap_err();
        assert!(refused().is_missing());
        let digits = "0a".repeat(BYTES);
        write(&path, &digits, 0o640);
        let error = refused().to_string();
        assert!(
            error.contains("mine has mode 0640: expected 0600") && error.contains("chmod 600"),
            "{error}"
        );
        for text in [
            &digits[1..],
            &digits.replace('a', "g"),
            "",
            &format!("{digits}\n{digits}"),
            &"0".repeat(1 << 20),
        ] {
            write(&path, text, 0o600);
            let error = refused().to_string();
            assert!(error.contains("mine does not contain") && error.contains("64 hexadecimal"), "{error}");
            assert!(text.is_empty() || !error.contains(text), "the content is not shown");
        }
        for text in [digits.clone(), digits.to_uppercase() + "\r\n"] {
            write(&path, &text, 0o400);
            assert_eq!(Secret::read(&path).unwrap().0, [0x0a; BYTES]);
        }
        assert!(matches!(Secret::read(folder.path()), Err(Error::Content { .. })));
    }
}

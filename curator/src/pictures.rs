//! The pictures of items: `images/<item>.jpg`, `.png` or `.webp`.
//!
//! The type of a file is determined by its content. Files that are not an item's picture are reported.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podium_recsys::{Catalogue, ItemId};

/// Maximum size of a picture; endpoints reject larger ones.
const LARGEST_BYTES: u64 = 20 << 20;

/// An error while listing or reading pictures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An operation of the operating system failed.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file has changed since it was listed.
    #[error("{} is no longer a picture", .0.display())]
    Changed(PathBuf),
}

/// Reason why a file is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SkipReason {
    /// The name is not an item's number with the extension jpg, jpeg, png or webp.
    Name,
    /// Its item is not in the titles file.
    UnknownItem,
    /// It cannot be read, or is a dangling link.
    Unreadable,
    /// The content is neither JPEG nor PNG nor WebP.
    NotAPicture,
    /// Too large to send.
    TooLarge,
    /// Its item already has a picture.
    SecondPicture,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("not named <item>.jpg, .jpeg, .png or .webp"),
            Self::UnknownItem => f.write_str("its item is not in the titles file"),
            Self::Unreadable => f.write_str("it cannot be read"),
            Self::NotAPicture => f.write_str("neither JPEG nor PNG nor WebP"),
            Self::TooLarge => write!(f, "larger than {LARGEST_BYTES} bytes"),
            Self::SecondPicture => f.write_str("its item has another picture"),
        }
    }
}

/// The pictures in a folder.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    /// The picture of each item that has one.
    pub(crate) of_items: BTreeMap<ItemId, PathBuf>,
    /// Skipped files, in order of name.
    pub(crate) skipped: Vec<(PathBuf, SkipReason)>,
}

impl Pictures {
    /// Lists the folder `dir`.
    pub(crate) fn list(dir: &Path, catalogue: &Catalogue) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: dir.to_owned(), source };
        let entries: io::Result<Vec<_>> = fs::read_dir(dir).map_err(failed)?.collect();
        let mut paths: Vec<PathBuf> =
            entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        let mut pictures = Self::default();
        for path in paths {
            match pictures.item(&path, catalogue) {
                Ok(item) => {
                    pictures.of_items.insert(item, path);
                }
                Err(reason) => pictures.skipped.push((path, reason)),
            }
        }
        Ok(pictures)
    }

    fn item(&self, path: &Path, catalogue: &Catalogue) -> Result<ItemId, SkipReason> {
        let part = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(str::to_owned);
        let extension = part(path.extension()).unwrap_or_default().to_ascii_lowercase();
        let item = part(path.file_stem()).and_then(|stem| stem.parse::<ItemId>().ok());
        let Some(item) = item.filter(|_| ["jpg", "jpeg", "png", "webp"].contains(&extension.as_str())) else {
            return Err(SkipReason::Name);
        };
        if !catalogue.contains(item) {
            return Err(SkipReason::UnknownItem);
        }
        let unreadable = |_: io::Error| SkipReason::Unreadable;
        let metadata = fs::metadata(path).map_err(unreadable)?;
        // Opening a pipe would wait for a writer.
        if !metadata.is_file() {
            return Err(SkipReason::NotAPicture);
        }
        let mut start = Vec::new();
        File::open(path).and_then(|file| file.take(16).read_to_end(&mut start)).map_err(unreadable)?;
        if media_type(&start).is_none() {
            Err(SkipReason::NotAPicture)
        } else if metadata.len() > LARGEST_BYTES {
            Err(SkipReason::TooLarge)
        } else if self.of_items.contains_key(&item) {
            Err(SkipReason::SecondPicture)
        } else {
            Ok(item)
        }
    }
}

/// Returns a picture as a `data:` URL.
pub(crate) fn address(path: &Path) -> Result<String, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let media_type = media_type(&bytes).ok_or_else(|| Error::Changed(path.to_owned()))?;
    Ok(format!("data:{media_type};base64,{}", STANDARD.encode(bytes)))
}

/// Returns the media type of a file by its first bytes.
fn media_type(start: &[u8]) -> Option<&'static str> {
    if start.starts_with(b"\xFF\xD8\xFF") {
        Some("image/jpeg")
    } else if start.starts_with(b"\x89PNG\r\n\x1A\n") {
        Some("image/png")
    } else if start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP") {
        Some("image/webp")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use podium_recsys::Item;

    use super::*;

    #[test]
    fn files_that_are_no_item_pictures_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let png = b"\x89PNG\r\n\x1A\nrest";
        let files: [(&str, &[u8], Option<SkipReason>); 9] = [
            ("1.png", png, None),
            ("2.JPG", b"\xFF\xD8\xFF\xE0rest", None),
            ("3.webp", b"RIFF\0\0\0\0WEBPVP8 ", None),
            ("1.webp", b"RIFF\0\0\0\0WEBPVP8 ", Some(SkipReason::SecondPicture)),
            ("4.png", b"<html>not found</html>", Some(SkipReason::NotAPicture)),
            ("5.png", b"", Some(SkipReason::NotAPicture)),
            ("9.png", png, Some(SkipReason::UnknownItem)),
            ("01.png", png, Some(SkipReason::Name)),
            ("Thumbs.db", png, Some(SkipReason::Name)),
        ];
        for (name, bytes, _) in &files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let path = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink("nowhere", path("6.png")).unwrap();
        nix::unistd::mkfifo(&path("7.png"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(path("8.png")).unwrap();
        let odd = [
            ("6.png", SkipReason::Unreadable),
            ("7.png", SkipReason::NotAPicture),
            ("8.png", SkipReason::NotAPicture),
        ];
        let catalogue = Catalogue::new((1..=8).map(|id| Item {
            id: ItemId(id),
            title: "Title".to_owned(),
            caption: None,
            interactions: 0,
        }));
        let pictures = Pictures::list(folder.path(), &catalogue).unwrap();
        assert_eq!(pictures.of_items.keys().copied().collect::<Vec<_>>(), [1, 2, 3].map(ItemId));
        let odd = odd.map(|(name, reason)| (name, Some(reason)));
        for (name, reason) in files.map(|(name, _, reason)| (name, reason)).into_iter().chain(odd) {
            let path = path(name);
            let found = pictures.skipped.iter().find(|(odd, _)| *odd == path).map(|(_, reason)| *reason);
            assert_eq!(found, reason, "{name}");
        }
        let shown = address(&pictures.of_items[&ItemId(2)]).unwrap();
        assert_eq!(shown, "data:image/jpeg;base64,/9j/4HJlc3Q=");
    }
}

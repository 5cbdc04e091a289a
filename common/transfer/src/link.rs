//! Links of a policy version between folders of one host.
//!
//! A link shares the file with its source. All processes replace the files of a version and never write into them.

use std::fs;
use std::io;
use std::path::Path;

use podium_files::durable::{self, Durability};

use crate::manifest::{self, File, Manifest};

/// Links the files of a version in `from` into the folder `target`, and copies those that cannot be linked: those on
/// another file system, for example. Checks all lengths and checksums before the folder appears.
///
/// `before`: an intact version and its folder beside the target, as durable as the target is to be. Files that it shares
/// with the version are linked from there, without a check.
pub fn link(
    manifest: &Manifest,
    from: &Path,
    before: Option<(&Manifest, &Path)>,
    target: &Path,
    durability: Durability,
) -> Result<(), manifest::Error> {
    let fill = |staging: &Path| {
        manifest.files.iter().try_for_each(|file| -> Result<(), manifest::Error> {
            let to = staging.join(&file.name);
            let unchanged = before.filter(|(known, _)| known.files.contains(file));
            if unchanged.is_some_and(|(_, folder)| is_linked(file, folder, &to)) {
                return Ok(());
            }
            link_file(file, &from.join(&file.name), &to)?;
            if durability == Durability::Durable {
                durable::sync_file(&to)?;
            }
            Ok(())
        })
    };
    let publish = match durability {
        Durability::Durable => durable::publish_folder_of_synced_files,
        Durability::Cached => durable::publish_cached_folder,
    };
    durable::replace_folder(target, fill, publish)
}

/// Links a file of a folder, if possible.
fn is_linked(file: &File, folder: &Path, to: &Path) -> bool {
    let created = to.parent().map_or(Ok(()), durable::create_folder);
    created.is_ok() && fs::hard_link(folder.join(&file.name), to).is_ok()
}

fn link_file(file: &File, from: &Path, to: &Path) -> Result<(), manifest::Error> {
    let not_written = |source| durable::Error::Write { path: to.to_owned(), source };
    // A link to a symbolic link or a device would not be a file of the version.
    let found = fs::symlink_metadata(from)
        .map_err(|source| durable::Error::Read { path: from.to_owned(), source })?;
    if !found.is_file() {
        return Err(not_written(io::ErrorKind::InvalidInput.into()).into());
    }
    to.parent().map_or(Ok(()), durable::create_folder)?;
    if fs::hard_link(from, to).is_err() {
        file.verify_length(from)?;
        fs::copy(from, to).map_err(not_written)?;
    }
    file.verify(to)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use podium_grpo::PolicyVersion;

    use super::*;
    use crate::manifest::{describe, tests::folder};

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    fn linked(durability: Durability) {
        let (source, target) = (folder(b"weights"), tempfile::tempdir().unwrap());
        let manifest = describe(source.path(), PolicyVersion(3), "cafe", "f00d").unwrap();
        let target = target.path().join("3");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("model.safetensors"), "damaged").unwrap();
        link(&manifest, source.path(), None, &target, durability).unwrap();
        manifest.verify(&target).unwrap();
        let weights = "model.safetensors";
        assert_eq!(inode(&source.path().join(weights)), inode(&target.join(weights)));
        // The source replaces its file, as all processes do.
        durable::write(&source.path().join(weights), b"wEights").unwrap();
        manifest.verify(&target).unwrap();
    }

    #[test]
    fn a_linked_version_shares_its_files_until_they_are_replaced() {
        linked(Durability::Durable);
        linked(Durability::Cached);
    }

    #[test]
    fn unchanged_files_are_those_of_the_version_before() {
        let (source, before) = (folder(b"weights"), folder(b"weights before"));
        let describe =
            |folder: &Path, version| describe(folder, PolicyVersion(version), "cafe", "f00d").unwrap();
        let (manifest, known) = (describe(source.path(), 3), describe(before.path(), 2));
        let target = source.path().join("3");
        let before = before.path();
        link(&manifest, source.path(), Some((&known, before)), &target, Durability::Durable).unwrap();
        manifest.verify(&target).unwrap();
        for (file, from) in [("model.safetensors", source.path()), ("tokenizer.json", before)] {
            assert_eq!(inode(&target.join(file)), inode(&from.join(file)), "{file}");
        }
        // A file that has disappeared meanwhile.
        fs::remove_file(before.join("tokenizer.json")).unwrap();
        link(&manifest, source.path(), Some((&known, before)), &target, Durability::Durable).unwrap();
        manifest.verify(&target).unwrap();
    }

    #[test]
    fn a_folder_with_another_content_is_not_linked() {
        let (source, target) = (folder(b"weights"), tempfile::tempdir().unwrap());
        let manifest = describe(source.path(), PolicyVersion(3), "cafe", "f00d").unwrap();
        let (weights, target) = (source.path().join("model.safetensors"), target.path().join("3"));
        let refused =
            || link(&manifest, source.path(), None, &target, Durability::Cached).unwrap_err().to_string();
        fs::write(&weights, "wEights").unwrap();
        assert!(refused().contains("checksum"));
        fs::remove_file(&weights).unwrap();
        assert!(refused().contains("model.safetensors"));
        std::os::unix::fs::symlink("/dev/zero", &weights).unwrap();
        refused();
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn files_on_another_file_system_are_copied() {
        let source = folder(b"weights");
        let Ok(target) = tempfile::tempdir_in("/dev/shm") else { return };
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        if device(source.path()) == device(target.path()) {
            return;
        }
        let manifest = describe(source.path(), PolicyVersion(3), "cafe", "f00d").unwrap();
        let target = target.path().join("3");
        link(&manifest, source.path(), None, &target, Durability::Cached).unwrap();
        manifest.verify(&target).unwrap();
        assert_eq!(device(&target.join("model.safetensors")), device(&target));
    }
}

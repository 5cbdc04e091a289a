use super::*;

#[test]
fn a_file_is_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    write(&path, b"old").unwrap();
    write_with(&path, |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    write(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_full_disk_is_named_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let error = write_with(&folder.path().join("x"), |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
    assert!(error.to_string().contains("free space"));
}

#[test]
fn a_full_disk_is_found_among_causes() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, full) in [
        (io::ErrorKind::StorageFull, true),
        (io::ErrorKind::FileTooLarge, true),
        (io::ErrorKind::PermissionDenied, false),
    ] {
        let error = write_with(&folder.path().join("x"), |_| Err(kind.into())).unwrap_err();
        assert_eq!(is_full(&error), full, "{error}");
    }
}

#[test]
fn temporary_files_of_the_dead_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("below");
    fs::create_dir(&below).unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();
    let (dead, alive) =
        (format!(".a.json.{dead}.tmp"), format!(".a.json.{}.tmp", std::os::unix::process::parent_id()));
    let names = [dead.as_str(), &alive, ".a.json.x.tmp", "a.json.1.tmp", ".lock"];
    for name in names {
        fs::write(folder.path().join(name), "").unwrap();
    }
    fs::write(below.join(&dead), "").unwrap();
    let folder_of_the_dead = below.join(format!(".policy.{}", dead.rsplit_once("json.").unwrap().1));
    create_folder(&folder_of_the_dead.join("deep")).unwrap();
    assert_eq!(remove_leftovers(folder.path()).unwrap(), 3);
    assert_eq!(remove_leftovers(folder.path()).unwrap(), 0);
    assert!(!folder_of_the_dead.exists());
    assert!(names[1..].iter().all(|name| folder.path().join(name).exists()) && !below.join(&dead).exists());
    assert_eq!(remove_leftovers(&folder.path().join("nowhere")).unwrap(), 0);
}

#[test]
fn checksums_are_sha256() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("abc");
    write(&path, b"abc").unwrap();
    assert_eq!(hex(&sha256(&path).unwrap())[..16], *"ba7816bf8f01cfea");
}

#[test]
fn a_new_folder_appears_whole_and_takes_the_place_of_an_empty_one() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("policy");
    let fill = |folder: &Path| write(&folder.join("a"), b"1");
    new_folder(&target, fill).unwrap();
    let again = new_folder(&target, |_| -> Result<(), Error> { panic!("before any work") }).unwrap_err();
    assert!(
        matches!(again, Error::Write { source, .. } if source.kind() == io::ErrorKind::DirectoryNotEmpty)
    );
    let empty = parent.path().join("empty");
    fs::create_dir(&empty).unwrap();
    new_folder(&empty, fill).unwrap();
    assert_eq!(fs::read(empty.join("a")).unwrap(), b"1");
    let fails = |folder: &Path| -> Result<(), Error> {
        fill(folder)?;
        write_with(&folder.join("b"), |_| Err(io::ErrorKind::StorageFull.into()))
    };
    new_folder(&parent.path().join("full"), fails).unwrap_err();
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2, "nothing is left aside");
}

#[test]
fn a_published_folder_replaces_another() {
    let parent = tempfile::tempdir().unwrap();
    let (staging, target) = (parent.path().join("new"), parent.path().join("1"));
    for (folder, name) in [(&staging, "a"), (&target, "b")] {
        create_folder(&folder.join("below")).unwrap();
        write(&folder.join("below").join(name), b"").unwrap();
    }
    publish_folder(&staging, &target).unwrap();
    assert!(target.join("below/a").is_file() && !target.join("below/b").exists() && !staging.exists());
}

use super::start::ADAPTER;
use super::*;

fn start() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors", "notes.txt"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    folder
}

fn from(model: &Path) -> Start {
    Start { model: Some(model.to_owned()), adapter: None }
}

fn schedule() -> Schedule {
    let file = podium_config::RunFile::parse("[evaluation]\nevery_steps = 4", "run.toml", &[]).unwrap();
    Schedule::of(&file, 10)
}

#[test]
fn declared_tokens_and_further_templates_belong_to_the_policy() {
    let (start, out) = (start(), tempfile::tempdir().unwrap());
    let template = "additional_chat_templates/default.jinja";
    fs::create_dir(start.path().join("additional_chat_templates")).unwrap();
    let declared = ["added_tokens.json", "special_tokens_map.json", template];
    for name in declared {
        fs::write(start.path().join(name), name).unwrap();
    }
    let store = Store::open(out.path(), "cafe").unwrap();
    let root = out.path().join("policy");
    let policies = Policies::open(&root, "cafe", from(start.path()), &store).unwrap();
    for name in declared {
        let path = policies.folder(PolicyVersion::START).unwrap().join(name);
        assert_eq!(fs::read_to_string(path).unwrap(), name);
    }
}

#[test]
fn the_start_is_imported_once_and_then_fixed() {
    let (start, out) = (start(), tempfile::tempdir().unwrap());
    let store = Store::open(out.path(), "cafe").unwrap();
    let root = out.path().join("policy");
    assert!(matches!(Policies::open(&root, "cafe", Start::default(), &store), Err(Error::NoStart)));
    let policies = Policies::open(&root, "cafe", from(start.path()), &store).unwrap();
    let manifest = policies.manifest(None).unwrap();
    assert_eq!(manifest.files.len(), 3, "notes do not belong to the policy");
    manifest.verify(&root.join("0")).unwrap();
    Policies::open(&root, "cafe", Start::default(), &store).unwrap();
    fs::write(start.path().join("config.json"), "other").unwrap();
    let other = Policies::open(&root, "cafe", from(start.path()), &store);
    assert!(matches!(other, Err(Error::OtherStart { .. })));
}

#[test]
fn an_adapter_to_go_on_with_is_part_of_the_start() {
    let (start, adapter, out) = (start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(out.path(), "cafe").unwrap();
    let root = out.path().join("policy");
    let both = || Start { adapter: Some(adapter.path().to_owned()), ..from(start.path()) };
    let missing = describe(&Policies::open(&root, "cafe", both(), &store).unwrap_err());
    assert!(missing.contains("adapter_config.json"), "{missing}");
    for name in ADAPTER {
        fs::write(adapter.path().join(name), name).unwrap();
    }
    let policies = Policies::open(&root, "cafe", both(), &store).unwrap();
    assert_eq!(policies.manifest(None).unwrap().files.len(), 5);
}

#[test]
fn a_version_must_match_its_published_content() {
    let (start, out) = (start(), tempfile::tempdir().unwrap());
    let store = Store::open(out.path(), "cafe").unwrap();
    let policies = Policies::open(&out.path().join("policy"), "cafe", from(start.path()), &store).unwrap();
    let mut manifest = Manifest { version: PolicyVersion(1), ..policies.manifest(None).unwrap() };
    assert_eq!(policies.compare(&manifest).unwrap(), Compared::New);
    policies.add(manifest.clone());
    assert_eq!(policies.compare(&manifest).unwrap(), Compared::Same);
    assert!(matches!(policies.manifest(Some(PolicyVersion(1))), Err(Error::Gone { .. })), "no folder");
    assert_eq!(
        policies.manifest(None).unwrap().version,
        PolicyVersion::START,
        "the newest that can be served"
    );
    let published = manifest.content();
    manifest.files[0].sha256 = [0; 32];
    assert_eq!(policies.compare(&manifest).unwrap(), Compared::Other(published));
    manifest.run_hash = "beef".into();
    assert!(policies.compare(&manifest).unwrap_err().to_string().contains("beef"));
}

/// Returns policies with a version 1, and the folder of its files.
fn with_a_version(start: &Path, out: &Path) -> (Policies, PathBuf) {
    let store = Store::open(out, "cafe").unwrap();
    let root = out.join("policy");
    let policies = Policies::open(&root, "cafe", from(start), &store).unwrap();
    let folder = root.join("1");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("model.safetensors"), "weights").unwrap();
    let manifest = manifest::describe(&folder, PolicyVersion(1), "cafe", policies.fingerprint()).unwrap();
    policies.add(manifest);
    (policies, folder)
}

#[test]
fn a_folder_that_was_removed_or_changed_is_named() {
    let (start, out) = (start(), tempfile::tempdir().unwrap());
    let (policies, folder) = with_a_version(start.path(), out.path());
    let version = PolicyVersion(1);
    let problem = || describe(&policies.inspect(version).unwrap_err());
    policies.inspect(version).unwrap();
    let weights = folder.join("model.safetensors");
    fs::write(&weights, "wEights").unwrap();
    policies.look(version).unwrap();
    let flipped = problem();
    assert!(
        flipped.contains("policy version 1 cannot be served") && flipped.contains("checksum"),
        "{flipped}"
    );
    fs::write(&weights, "weight").unwrap();
    assert!(problem().contains("length") && policies.look(version).is_err(), "{}", problem());
    fs::remove_file(&weights).unwrap();
    assert!(problem().contains("has no model.safetensors"), "{}", problem());
    fs::remove_dir_all(&folder).unwrap();
    assert!(problem().contains("policy version 1 is not on disk"), "{}", problem());
    fs::create_dir(&folder).unwrap();
    fs::write(&weights, "weights").unwrap();
    policies.inspect(version).unwrap();
    assert!(
        policies.inspect(PolicyVersion(2)).unwrap_err().to_string().contains("there is no policy version 2")
    );
}

#[test]
fn the_start_is_copied_again_where_it_is_lost_and_only_if_it_is_the_same() {
    let (start, out) = (start(), tempfile::tempdir().unwrap());
    let (policies, folder) = with_a_version(start.path(), out.path());
    let root = folder.parent().unwrap();
    fs::remove_dir_all(root).unwrap();
    assert_eq!(policies.manifest(None).unwrap().version, PolicyVersion::START);
    policies.inspect(PolicyVersion::START).unwrap();
    fs::write(root.join("0/model.safetensors"), "model.safetensor").unwrap();
    policies.manifest(Some(PolicyVersion::START)).unwrap();
    assert_eq!(fs::read_to_string(root.join("0/model.safetensors")).unwrap(), "model.safetensors");

    fs::write(start.path().join("model.safetensors"), "other weights").unwrap();
    fs::remove_dir_all(root.join("0")).unwrap();
    let error = describe(&policies.manifest(Some(PolicyVersion::START)).unwrap_err());
    assert!(error.contains("policy version 0 is not on disk"), "{error}");
    assert!(error.contains("differs from the one that this run began with"), "{error}");
    drop(policies);
    let store = Store::open(out.path(), "cafe").unwrap();
    let error = Policies::open(root, "cafe", from(start.path()), &store).unwrap_err();
    assert!(matches!(error, Error::StartGone { .. }), "{error}");
}

#[test]
fn old_versions_go_unless_they_are_evaluated() {
    let (start, out) = (start(), tempfile::tempdir().unwrap());
    let store = Store::open(out.path(), "cafe").unwrap();
    let root = out.path().join("policy");
    let policies = Policies::open(&root, "cafe", from(start.path()), &store).unwrap();
    (1..=7).for_each(|version| fs::create_dir(root.join(version.to_string())).unwrap());
    policies.prune(&schedule(), PolicyVersion(7)).unwrap();
    let mut left: Vec<String> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["0", "4", "6", "7"]);
}

use podium_grpo::PolicyVersion;

use super::*;
use crate::manifest::{describe, tests::folder};

#[test]
fn a_broken_transfer_continues_and_the_folder_appears_complete() {
    let weights: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (source, target) = (folder(&weights), tempfile::tempdir().unwrap());
    let target = target.path().join("7");
    let templates = source.path().join("additional_chat_templates");
    fs::create_dir(&templates).unwrap();
    fs::write(templates.join("default.jinja"), "{{ messages }}").unwrap();
    fs::write(templates.join("empty.jinja"), "").unwrap();
    let manifest = describe(source.path(), PolicyVersion(7), "cafe", "f00d").unwrap();
    let sent =
        |name: &str, offset| chunks(&source.path().join(name), offset, None).unwrap().map(Result::unwrap);

    let mut first = Receiver::new(manifest.clone(), &target, Durability::Durable).unwrap();
    let start = sent("model.safetensors", 0).next().unwrap();
    first.chunk("model.safetensors", &start).unwrap();
    drop(first);
    assert!(!target.exists());

    let mut second = Receiver::new(manifest.clone(), &target, Durability::Durable).unwrap();
    for file in &manifest.files {
        let offset = second.received(&file.name).unwrap();
        assert_eq!(offset > 0, file.name == "model.safetensors");
        for chunk in sent(&file.name, offset) {
            second.chunk(&file.name, &chunk).unwrap();
        }
    }
    second.finish().unwrap();
    manifest.verify(&target).unwrap();
    for name in ["additional_chat_templates/default.jinja", "additional_chat_templates/empty.jinja"] {
        assert!(manifest.file(name).is_some() && target.join(name).is_file(), "{name}");
    }
}

#[test]
fn invalid_chunks_are_refused() {
    let (source, target) = (folder(b"weights"), tempfile::tempdir().unwrap());
    let manifest = describe(source.path(), PolicyVersion(1), "cafe", "f00d").unwrap();
    let mut receiver = Receiver::new(manifest, &target.path().join("1"), Durability::Cached).unwrap();
    let chunk = |offset_bytes, data: &[u8]| v1::Chunk {
        offset_bytes,
        data: data.to_vec(),
        crc32c: crc32c::crc32c(data),
        delta_bytes: 0,
    };
    let name = "model.safetensors";
    assert!(matches!(receiver.chunk("other", &chunk(0, b"x")), Err(Error::Unexpected { .. })));
    assert!(matches!(receiver.chunk(name, &chunk(1, b"x")), Err(Error::Gap { expected: 0, .. })));
    assert!(matches!(receiver.chunk(name, &chunk(0, b"weights and more")), Err(Error::Damaged { .. })));
    let wrong = v1::Chunk { crc32c: 1, ..chunk(0, b"w") };
    assert!(matches!(receiver.chunk(name, &wrong), Err(Error::Damaged { .. })));
    receiver.chunk(name, &chunk(0, b"wEights")).unwrap();
    assert!(matches!(receiver.complete(name), Err(Error::Damaged { what: "checksum", .. })));
    assert_eq!(receiver.received(name).unwrap(), 0, "a damaged file is sent again from its start");
}

/// Receives the first chunk of the weights.
fn begin(manifest: &Manifest, source: &Path, target: &Path) -> Receiver {
    let mut receiver = Receiver::new(manifest.clone(), target, Durability::Durable).unwrap();
    let first = chunks(&source.join("model.safetensors"), 0, None).unwrap().next().unwrap().unwrap();
    receiver.chunk("model.safetensors", &first).unwrap();
    receiver
}

#[test]
fn a_damaged_part_is_detected_at_the_end_and_sent_again() {
    let weights = vec![7; 300_000];
    let (source, target) = (folder(&weights), tempfile::tempdir().unwrap());
    let target = target.path().join("7");
    let manifest = describe(source.path(), PolicyVersion(7), "cafe", "f00d").unwrap();
    drop(begin(&manifest, source.path(), &target));
    let received = received_before(&manifest, &target).unwrap();
    let chunk = podium_proto::MAX_CHUNK_BYTES as u64;
    assert_eq!(received, [("model.safetensors".to_owned(), chunk)]);
    let partial = partial_folder(&manifest, &target).join("model.safetensors");
    fs::write(&partial, vec![8; chunk as usize]).unwrap();

    let mut receiver = Receiver::new(manifest.clone(), &target, Durability::Durable).unwrap();
    let mut send = |offset| -> Result<(), Error> {
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            let from = if name == "model.safetensors" { offset } else { receiver.received(name)? };
            for chunk in chunks(&source.path().join(name), from, None).unwrap() {
                receiver.chunk(name, &chunk.unwrap())?;
            }
            receiver.complete(name)?;
        }
        Ok(())
    };
    assert!(matches!(send(chunk), Err(Error::Damaged { what: "checksum", .. })));
    send(0).unwrap();
    receiver.finish().unwrap();
    manifest.verify(&target).unwrap();
}

#[test]
fn another_content_does_not_continue_in_a_partial_folder() {
    let (source, other) = (folder(&vec![7; 300_000]), folder(&vec![8; 300_000]));
    let target = tempfile::tempdir().unwrap();
    let target = target.path().join("7");
    let describe =
        |folder: &tempfile::TempDir| describe(folder.path(), PolicyVersion(7), "cafe", "f00d").unwrap();
    let (manifest, changed) = (describe(&source), describe(&other));
    let receiver = begin(&manifest, source.path(), &target);
    assert!(receiver.continues(&manifest) && !receiver.continues(&changed));
    assert!(received_before(&changed, &target).unwrap().is_empty());
    let fresh = Receiver::new(changed.clone(), &target, Durability::Durable).unwrap();
    assert_eq!(fresh.received("model.safetensors").unwrap(), 0);
    fs::remove_dir_all(partial_folder(&manifest, &target)).unwrap();
    assert!(!receiver.continues(&manifest), "its files are gone");
}

#[test]
fn bytes_of_a_failed_write_are_overwritten() {
    let (source, target) = (folder(&vec![7; 300_000]), tempfile::tempdir().unwrap());
    let target = target.path().join("7");
    let manifest = describe(source.path(), PolicyVersion(7), "cafe", "f00d").unwrap();
    let mut receiver = begin(&manifest, source.path(), &target);
    let (name, bytes) = ("model.safetensors", receiver.received("model.safetensors").unwrap());
    let path = partial_folder(&manifest, &target).join(name);
    let append = |data: &[u8]| OpenOptions::new().append(true).open(&path).unwrap().write_all(data).unwrap();
    // As after a write that failed in its middle.
    receiver.open = None;
    append(b"rest");
    for chunk in chunks(&source.path().join(name), bytes, None).unwrap() {
        receiver.chunk(name, &chunk.unwrap()).unwrap();
    }
    receiver.complete(name).unwrap();
}

/// Weights of which one in `every` differs from those of [`before`].
fn after(every: usize) -> Vec<u8> {
    let mut weights = before();
    weights.iter_mut().step_by(2 * every).for_each(|byte| *byte ^= 3);
    weights
}

fn before() -> Vec<u8> {
    (0..700_000_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Sends the rest of all files, as deltas against `base` if given. Returns the number of bytes in transfer.
fn send(receiver: &mut Receiver, source: &Path, base: Option<&Path>) -> Result<usize, Error> {
    let mut bytes = 0;
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let base = base.map(|base| base.join(name));
        for chunk in chunks(&source.join(name), receiver.received(name)?, base.as_deref()).unwrap() {
            let chunk = chunk.unwrap();
            bytes += chunk.data.len();
            receiver.chunk(name, &chunk)?;
        }
        receiver.complete(name)?;
    }
    Ok(bytes)
}

#[test]
fn a_version_with_few_changes_is_received_as_deltas_also_from_the_middle() {
    let (base, source, target) = (folder(&before()), folder(&after(100)), tempfile::tempdir().unwrap());
    let target = target.path().join("7");
    let manifest = describe(source.path(), PolicyVersion(7), "cafe", "f00d").unwrap();
    drop(begin(&manifest, source.path(), &target));
    let mut receiver = Receiver::new(manifest.clone(), &target, Durability::Durable).unwrap();
    receiver.set_base(Some(base.path()));
    let bytes = send(&mut receiver, source.path(), Some(base.path())).unwrap();
    assert!(bytes * 8 < before().len(), "{bytes} bytes");
    receiver.finish().unwrap();
    manifest.verify(&target).unwrap();
}

#[test]
fn a_delta_against_a_damaged_or_missing_base_is_detected_and_the_version_sent_in_full() {
    let (base, source, target) = (folder(&before()), folder(&after(100)), tempfile::tempdir().unwrap());
    let manifest = describe(source.path(), PolicyVersion(7), "cafe", "f00d").unwrap();
    let mut damaged = before();
    damaged[600_000] ^= 1;
    let (damaged, empty) = (folder(&damaged), tempfile::tempdir().unwrap());
    for (number, own) in [Some(damaged.path()), Some(empty.path()), None].into_iter().enumerate() {
        let target = target.path().join(number.to_string());
        let mut receiver = Receiver::new(manifest.clone(), &target, Durability::Durable).unwrap();
        receiver.set_base(own);
        let error = send(&mut receiver, source.path(), Some(base.path())).unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{error}");
        send(&mut receiver, source.path(), None).unwrap();
        receiver.finish().unwrap();
        manifest.verify(&target).unwrap();
    }
}

#[test]
fn all_damaged_files_are_removed_at_once() {
    let (source, target) = (folder(b"weights"), tempfile::tempdir().unwrap());
    let target = target.path().join("7");
    let manifest = describe(source.path(), PolicyVersion(7), "cafe", "f00d").unwrap();
    let partial = partial_folder(&manifest, &target);
    fs::create_dir(&partial).unwrap();
    for (name, content) in
        [("config.json", "[]"), ("model.safetensors", "wEights"), ("tokenizer.json", "{\"a\":1}")]
    {
        fs::write(partial.join(name), content).unwrap();
    }
    let receiver = Receiver::new(manifest.clone(), &target, Durability::Durable).unwrap();
    assert_eq!(receiver.finish().unwrap_err().kind(), Kind::Damaged);
    assert_eq!(received_before(&manifest, &target).unwrap(), [("tokenizer.json".to_owned(), 7)]);
    assert!(!target.exists());
}

#[test]
fn a_delta_cannot_exceed_its_file() {
    let (base, source, target) = (folder(&before()), folder(&before()), tempfile::tempdir().unwrap());
    let manifest = describe(source.path(), PolicyVersion(7), "cafe", "f00d").unwrap();
    let mut receiver = Receiver::new(manifest, &target.path().join("7"), Durability::Cached).unwrap();
    receiver.set_base(Some(base.path()));
    let (config, weights) = (base.path().join("config.json"), base.path().join("model.safetensors"));
    let large = chunks(&weights, 0, Some(&weights)).unwrap().next().unwrap().unwrap();
    assert!(
        large.delta_bytes > 0
            && chunks(&config, 0, Some(&config)).unwrap().all(|chunk| chunk.unwrap().delta_bytes == 0)
    );
    assert_eq!(receiver.chunk("config.json", &large).unwrap_err().kind(), Kind::Damaged);
}

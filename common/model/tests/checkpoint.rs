//! Model folders: what is written is read back bit for bit, and damaged or hostile folders are refused by name.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;

use std::error::Error as _;
use std::fs;
use std::path::Path;

use podium_model::checkpoint::{Error, HeaderError};
use podium_model::{Config, Family, LoadOptions, Policy, Precision, checkpoint};
use tch::{Kind, Tensor, no_grad};

fn saved(config: &Config, folder: &Path) -> Policy {
    let policy = naive::policy(config, 1);
    policy.save(folder).unwrap();
    policy
}

fn load(folder: &Path) -> Result<Policy, Error> {
    Policy::load(folder, LoadOptions::default())
}

fn assert_same(found: &Policy, expected: &Policy) {
    assert_eq!(found.config(), expected.config());
    assert_eq!(found.parameters(), expected.parameters());
}

/// The header of a safetensors file, changed by `edit`, before the same data.
fn edit_header(path: &Path, edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let (mut header, data) = parts(path);
    edit(&mut header);
    write_parts(path, &header, &data);
}

fn parts(path: &Path) -> (serde_json::Map<String, serde_json::Value>, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), bytes[8 + length..].to_vec())
}

fn write_parts(path: &Path, header: &serde_json::Map<String, serde_json::Value>, data: &[u8]) {
    let text = serde_json::to_vec(header).unwrap();
    let bytes = [&(text.len() as u64).to_le_bytes(), text.as_slice(), data].concat();
    fs::write(path, bytes).unwrap();
}

fn header_error(folder: &Path) -> HeaderError {
    match load(folder).unwrap_err() {
        Error::Header { path, source } => {
            assert!(path.ends_with("model.safetensors"));
            source
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_folder_is_read_back_bit_for_bit() {
    for config in [
        naive::config(Family::Qwen3),
        naive::config(Family::Qwen2),
        Config {
            tie_word_embeddings: false,
            qkv_bias: true,
            output_bias: true,
            ..naive::config(Family::Llama)
        },
    ] {
        let folder = tempfile::tempdir().unwrap();
        let policy = saved(&config, folder.path());
        assert_same(&load(folder.path()).unwrap(), &policy);
    }
}

#[test]
fn the_same_weights_give_the_same_bytes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = naive::config(Family::Qwen3);
    saved(&config, one.path());
    saved(&config, other.path());
    for name in ["config.json", "model.safetensors"] {
        assert_eq!(fs::read(one.path().join(name)).unwrap(), fs::read(other.path().join(name)).unwrap());
    }
    assert_eq!(fs::read_dir(one.path()).unwrap().count(), 2, "nothing temporary is left");
}

#[test]
fn random_weights_are_a_function_of_the_seed() {
    let random = |seed| Policy::random(&naive::config(Family::Qwen3), seed, LoadOptions::default()).unwrap();
    assert_same(&random(3), &random(3));
    assert_ne!(random(3).parameters()[0], random(4).parameters()[0]);
}

#[test]
fn bfloat16_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let options = LoadOptions { precision: Precision::Bfloat16, ..LoadOptions::default() };
    let policy = Policy::random(&naive::config(Family::Qwen3), 1, options).unwrap();
    policy.save(folder.path()).unwrap();
    assert_same(&Policy::load(folder.path(), options).unwrap(), &policy);
    for ((_, wide), (_, narrow)) in load(folder.path()).unwrap().parameters().iter().zip(policy.parameters())
    {
        assert_eq!(wide, &narrow.to_kind(Kind::Float));
    }
}

#[test]
fn a_version_is_assigned_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = naive::config(Family::Qwen3);
    let newer = saved(&config, folder.path());
    let mut policy = Policy::random(&config, 9, LoadOptions::default()).unwrap();
    policy.set_training(true);
    let tokens = [1, 2, 3, 4];
    assert_ne!(policy.plain_logprobs(&tokens).unwrap(), newer.plain_logprobs(&tokens).unwrap());
    policy.assign_from(folder.path()).unwrap();
    assert_same(&policy, &newer);
    assert_eq!(policy.plain_logprobs(&tokens).unwrap(), newer.plain_logprobs(&tokens).unwrap());

    let mut other = Policy::random(&naive::config(Family::Llama), 9, LoadOptions::default()).unwrap();
    assert!(matches!(other.assign_from(folder.path()), Err(Error::Architecture { .. })));
}

#[test]
fn sharded_checkpoints_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let policy = saved(&naive::config(Family::Qwen3), folder.path());
    let whole = folder.path().join("model.safetensors");
    let (header, data) = parts(&whole);
    let tensors: Vec<_> = header.iter().filter(|(name, _)| *name != "__metadata__").collect();
    let mut index = serde_json::Map::new();
    for (shard, names) in tensors.chunks(9).enumerate() {
        let file = format!("model-{shard}.safetensors");
        let (mut shard_header, mut shard_data) = (serde_json::Map::new(), Vec::new());
        for (name, entry) in names {
            let offsets: Vec<usize> = serde_json::from_value(entry["data_offsets"].clone()).unwrap();
            let mut entry = (*entry).clone();
            let begin = shard_data.len();
            shard_data.extend_from_slice(&data[offsets[0]..offsets[1]]);
            entry["data_offsets"] = serde_json::json!([begin, shard_data.len()]);
            shard_header.insert((*name).clone(), entry);
            index.insert((*name).clone(), file.clone().into());
        }
        write_parts(&folder.path().join(file), &shard_header, &shard_data);
    }
    fs::remove_file(whole).unwrap();
    let write_index = |map: &serde_json::Map<String, serde_json::Value>| {
        let text = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
        fs::write(folder.path().join("model.safetensors.index.json"), text).unwrap();
    };
    write_index(&index);
    assert_same(&load(folder.path()).unwrap(), &policy);

    fs::copy(folder.path().join("model-0.safetensors"), folder.path().join("twice.safetensors")).unwrap();
    let mut twice = index.clone();
    twice.insert("again".to_owned(), "twice.safetensors".into());
    write_index(&twice);
    assert!(matches!(load(folder.path()), Err(Error::Twice { .. })));
    index.insert("elsewhere".to_owned(), "../model.safetensors".into());
    write_index(&index);
    assert!(matches!(load(folder.path()), Err(Error::ShardName { name, .. }) if name.starts_with("..")));
}

#[test]
fn a_tied_head_that_is_written_out_is_left_aside() {
    let folder = tempfile::tempdir().unwrap();
    let policy = saved(&naive::config(Family::Qwen3), folder.path());
    let path = folder.path().join("model.safetensors");
    let (mut header, mut data) = parts(&path);
    let mut head = header["model.embed_tokens.weight"].clone();
    head["data_offsets"] = serde_json::json!([data.len(), data.len() + 37 * 24 * 4]);
    data.extend(vec![0; 37 * 24 * 4]);
    header.insert("lm_head.weight".to_owned(), head);
    write_parts(&path, &header, &data);
    assert_same(&load(folder.path()).unwrap(), &policy);
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let damage = |damage: &dyn Fn(&Path)| {
        saved(&naive::config(Family::Qwen3), folder.path());
        damage(&path);
        header_error(folder.path())
    };
    let resize = |length: &dyn Fn(usize) -> usize| {
        damage(&|path| {
            let mut bytes = fs::read(path).unwrap();
            bytes.resize(length(bytes.len()), 0);
            fs::write(path, bytes).unwrap();
        })
    };
    assert!(matches!(resize(&|_| 5), HeaderError::TooShort(5)));
    assert!(matches!(resize(&|_| 900), HeaderError::Length { available: 892, .. }));
    assert!(matches!(resize(&|length| length - 1), HeaderError::End { .. }));
    assert!(matches!(resize(&|length| length + 1), HeaderError::End { .. }));
    let absurd = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[..8].copy_from_slice(&(u64::MAX - 3).to_le_bytes());
        fs::write(path, bytes).unwrap();
    };
    assert!(matches!(damage(&absurd), HeaderError::Length { claimed, .. } if claimed == u64::MAX - 3));
    let garbage = |path: &Path| fs::write(path, b"\x04\0\0\0\0\0\0\0]]]]").unwrap();
    assert!(matches!(damage(&garbage), HeaderError::Json(_)));
}

#[test]
fn hostile_entries_are_refused_by_tensor() {
    const NORM: &str = "model.norm.weight";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let edit = |key: &str, value: serde_json::Value| {
        saved(&naive::config(Family::Qwen3), folder.path());
        edit_header(&path, |header| header[NORM][key] = value);
        header_error(folder.path())
    };
    let offsets = |begin: u64, end: u64| edit("data_offsets", serde_json::json!([begin, end]));
    assert!(matches!(offsets(0, 24 * 4), HeaderError::Offset { .. }), "overlap");
    assert!(matches!(offsets(0, 7), HeaderError::Size { tensor, .. } if tensor == NORM));
    assert!(matches!(offsets(u64::MAX, 95), HeaderError::Size { tensor, .. } if tensor == NORM));
    let huge = serde_json::json!([1_u64 << 62, 24]);
    assert!(matches!(edit("shape", huge), HeaderError::Size { tensor, .. } if tensor == NORM));
    assert!(matches!(edit("dtype", "F4".into()), HeaderError::Dtype { tensor, .. } if tensor == NORM));
    assert!(matches!(edit("shape", (-1).into()), HeaderError::Entry { tensor, .. } if tensor == NORM));
}

#[test]
fn tensors_that_do_not_fit_the_configuration_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = naive::config(Family::Qwen3);
    let path = folder.path().join("model.safetensors");
    saved(&config, folder.path());
    let error_with = |config: &Config| {
        fs::write(folder.path().join("config.json"), config.to_json("float32")).unwrap();
        load(folder.path()).unwrap_err()
    };
    let missing = error_with(&Config { tie_word_embeddings: false, ..config.clone() });
    assert!(matches!(missing, Error::Missing { tensor, .. } if tensor == "lm_head.weight"));
    let extra = error_with(&Config { num_hidden_layers: 2, ..config.clone() });
    assert!(matches!(extra, Error::Unexpected { tensor, .. } if tensor.starts_with("model.layers.2.")));
    let shape = error_with(&Config { vocab_size: 1 << 22, ..config.clone() });
    assert!(matches!(shape, Error::Shape { tensor, .. } if tensor == "model.embed_tokens.weight"));

    fs::write(folder.path().join("config.json"), config.to_json("float32")).unwrap();
    fs::remove_file(&path).unwrap();
    let gone = load(folder.path()).unwrap_err();
    assert!(matches!(&gone, Error::File { action: "open", .. }), "{gone}");
    assert!(gone.source().is_some());
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    for value in [f64::NAN, f64::INFINITY] {
        let folder = tempfile::tempdir().unwrap();
        let policy = naive::policy(&naive::config(Family::Qwen3), 1);
        let (name, tensor) = &policy.parameters()[5];
        no_grad(|| tensor.view(-1).narrow(0, 3, 1).copy_(&Tensor::from(value)));
        policy.save(folder.path()).unwrap();
        let error = load(folder.path()).unwrap_err();
        assert!(matches!(error, checkpoint::Error::NotFinite { tensor, .. } if tensor == *name));
    }
}

#[test]
fn a_failed_save_leaves_the_version_before() {
    let folder = tempfile::tempdir().unwrap();
    let policy = saved(&naive::config(Family::Qwen3), folder.path());
    // A folder in the way of the temporary file's destination.
    let target = folder.path().join("elsewhere");
    fs::create_dir_all(target.join("model.safetensors/occupied")).unwrap();
    assert!(matches!(policy.save(&target), Err(Error::File { action: "write", .. })));
    assert!(
        !fs::read_dir(&target)
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().ends_with(".part") })
    );
    assert_same(&load(folder.path()).unwrap(), &policy);
}

//! Weights of model folders: one file or several, and mismatches with the configuration.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod tiny;

use std::fs;
use std::path::Path;

use podium_checkpoint::{Checkpoint, Config, Dtype, Error, TensorInfo, header, parameters};
use podium_checkpoint::{INDEX, ONE_FILE, write, write_file};
use podium_files::durable::{self, Durability, new_folder};
use serde_json::json;

const NORM: &str = "model.norm.weight";

fn infos(config: &Config, dtype: Dtype) -> Vec<TensorInfo> {
    let info =
        |parameter: parameters::Parameter| TensorInfo { name: parameter.name, dtype, shape: parameter.shape };
    parameters::list(config).into_iter().map(info).collect()
}

/// Finite numbers that differ between tensors.
#[allow(clippy::unnecessary_wraps, reason = "the signature that writers require")]
fn numbers(info: &TensorInfo) -> Result<Vec<u8>, Error> {
    let seed = info.name.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    Ok((0..info.size()).map(|index| (index as u8).wrapping_add(seed) & 0x37).collect())
}

fn saved(folder: &Path, config: &Config) {
    write(folder, &infos(config, Dtype::F32), u64::MAX, numbers).unwrap();
}

fn assert_whole(folder: &Path, config: &Config, dtype: Dtype) {
    let checkpoint = Checkpoint::open(folder, config).unwrap();
    for info in infos(config, dtype) {
        let tensor = checkpoint.tensor(&info.name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, info.shape.as_slice()));
        assert_eq!(tensor.bytes(), numbers(&info).unwrap(), "{}", info.name);
        assert_eq!(checkpoint.info(&info.name), info);
    }
}

#[test]
fn written_weights_are_read_back() {
    for family in ["qwen3", "qwen2", "llama"] {
        for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
            let (folder, config) = (tempfile::tempdir().unwrap(), tiny::config(family, &[]));
            write(folder.path(), &infos(&config, dtype), u64::MAX, numbers).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");
            assert_whole(folder.path(), &config, dtype);
        }
    }
}

#[test]
fn shards_are_filled_up_to_their_size() {
    let config = tiny::config("qwen3", &[("tie_word_embeddings", false.into())]);
    let tensors = infos(&config, Dtype::F32);
    let largest = tensors.iter().map(TensorInfo::size).max().unwrap();
    for most in [1, largest - 1, largest, 3 * largest] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &tensors, most, numbers).unwrap();
        assert_whole(folder.path(), &config, Dtype::F32);

        let index: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.path().join(INDEX)).unwrap()).unwrap();
        let total: u64 = tensors.iter().map(TensorInfo::size).sum();
        assert_eq!(index["metadata"]["total_size"], total);
        let files = fs::read_dir(folder.path()).unwrap().count() - 1;
        for (number, tensor) in (0..).zip(&tensors) {
            let name = index["weight_map"][&tensor.name].as_str().unwrap();
            assert!(name.ends_with(&format!("-of-{files:05}.safetensors")), "{name}");
            assert!(number > 0 || name.starts_with("model-00001-"));
            let entries = header::parse(&fs::read(folder.path().join(name)).unwrap()).unwrap();
            let size: u64 = entries.values().map(|entry| entry.range.1 - entry.range.0).sum();
            assert!(size <= most || entries.len() == 1, "{size} in {name}");
        }
        assert!(files as u64 <= 2 * total.div_ceil(most.max(largest)) || most < largest, "{files} files");
    }
}

#[test]
fn a_single_file_takes_precedence_over_an_index() {
    let (folder, config) = (tempfile::tempdir().unwrap(), tiny::config("qwen3", &[]));
    fs::write(folder.path().join(INDEX), "no index").unwrap();
    assert!(matches!(Checkpoint::open(folder.path(), &config), Err(Error::Index { .. })));
    saved(folder.path(), &config);
    assert_whole(folder.path(), &config, Dtype::F32);

    let shards = write(folder.path(), &infos(&config, Dtype::F32), 1, numbers);
    assert!(matches!(shards, Err(Error::Occupied { .. })), "several files cannot replace one at once");
    assert_whole(folder.path(), &config, Dtype::F32);
}

#[test]
fn an_index_names_files_of_its_folder() {
    let (folder, config) = (tempfile::tempdir().unwrap(), tiny::config("qwen3", &[]));
    for name in ["../model.safetensors", "/etc/passwd", "a/b", "", "..", "."] {
        let index = json!({ "weight_map": { NORM: name } });
        fs::write(folder.path().join(INDEX), index.to_string()).unwrap();
        let error = Checkpoint::open(folder.path(), &config).unwrap_err();
        assert!(matches!(&error, Error::ShardName { name: found, .. } if found == name), "{error}");
    }
    let index = json!({ "weight_map": { NORM: "model-1.safetensors" } });
    fs::write(folder.path().join(INDEX), index.to_string()).unwrap();
    let error = Checkpoint::open(folder.path(), &config).unwrap_err();
    assert!(
        matches!(&error, Error::File { action: "open", path, .. } if path.ends_with("model-1.safetensors"))
    );
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let (folder, config) = (tempfile::tempdir().unwrap(), tiny::config("qwen3", &[]));
    let tensors = infos(&config, Dtype::F32);
    write_file(&folder.path().join("a.safetensors"), &tensors, Durability::Durable, numbers).unwrap();
    write_file(
        &folder.path().join("b.safetensors"),
        &tensors[tensors.len() - 1..],
        Durability::Durable,
        numbers,
    )
    .unwrap();
    let index = json!({ "weight_map": { "x": "a.safetensors", "y": "b.safetensors" } });
    fs::write(folder.path().join(INDEX), index.to_string()).unwrap();
    let error = Checkpoint::open(folder.path(), &config).unwrap_err();
    let Error::Twice { path, tensor } = error else { panic!("{error}") };
    assert!(path.ends_with("b.safetensors") && tensor == NORM);
}

/// Saves a model with additional tensors, whose content `extra` defines.
fn saved_with(folder: &Path, config: &Config, extra: &[(&str, Dtype, &[i64], Vec<u8>)]) {
    let mut tensors = infos(config, Dtype::F32);
    for (name, dtype, shape, _) in extra {
        tensors.push(TensorInfo { name: (*name).to_owned(), dtype: *dtype, shape: shape.to_vec() });
    }
    let content = |info: &TensorInfo| match extra.iter().find(|(name, ..)| *name == info.name) {
        Some((_, _, _, bytes)) => Ok(bytes.clone()),
        None => numbers(info),
    };
    write(folder, &tensors, u64::MAX, content).unwrap();
}

fn embedding(config: &Config) -> Vec<u8> {
    let shape = vec![config.vocab_size, config.hidden_size];
    numbers(&TensorInfo { name: parameters::EMBEDDING.to_owned(), dtype: Dtype::F32, shape }).unwrap()
}

const FREQUENCIES: &str = "model.layers.0.self_attn.rotary_emb.inv_freq";

fn frequencies(theta: f64, factor: f64) -> Vec<u8> {
    let frequency = |index: i32| (theta.powf(-f64::from(index) / 5.0) / factor) as f32;
    (0..5).flat_map(|index| frequency(index).to_le_bytes()).collect()
}

#[test]
fn redundant_tensors_are_ignored() {
    let linear = json!({ "type": "linear", "factor": 4.0 });
    let plain = tiny::config("qwen3", &[]);
    let scaled = tiny::config("llama", &[("rope_scaling", linear), ("rope_theta", 5e5.into())]);
    for (config, theta, factor) in [(&plain, 1e4, 1.0), (&scaled, 5e5, 4.0), (&scaled, 5e5, 1.0)] {
        let folder = tempfile::tempdir().unwrap();
        let (head, stored) = (embedding(config), frequencies(theta, factor));
        let extra = [
            (parameters::HEAD, Dtype::F32, &[37, 24][..], head),
            (FREQUENCIES, Dtype::F32, &[5], stored.clone()),
            (
                "model.rotary_emb.inv_freq",
                Dtype::BF16,
                &[5],
                stored.chunks(4).flat_map(|f| [f[2], f[3]]).collect(),
            ),
        ];
        saved_with(folder.path(), config, &extra);
        assert_whole(folder.path(), config, Dtype::F32);
    }
}

#[test]
fn tensors_that_contradict_the_configuration_are_refused() {
    let config = tiny::config("qwen3", &[]);
    let contradicts = |name: &str, dtype, shape: &[i64], bytes: Vec<u8>| {
        let folder = tempfile::tempdir().unwrap();
        saved_with(folder.path(), &config, &[(name, dtype, shape, bytes)]);
        let error = Checkpoint::open(folder.path(), &config).unwrap_err();
        let text = error.to_string();
        let Error::Contradiction { path, tensor, .. } = error else { panic!("{error}") };
        assert!(path.ends_with(ONE_FILE) && tensor == name);
        text
    };
    let mut other = embedding(&config);
    other[500] ^= 1;
    let text = contradicts(parameters::HEAD, Dtype::F32, &[37, 24], other);
    assert!(
        text.contains("tie_word_embeddings is true") && text.contains("set tie_word_embeddings to false"),
        "{text}"
    );
    contradicts(parameters::HEAD, Dtype::F32, &[36, 24], embedding(&config)[..36 * 24 * 4].to_vec());
    contradicts(parameters::HEAD, Dtype::F16, &[37, 24], vec![0; 37 * 24 * 2]);
    for (theta, factor) in [(1e6, 1.0), (1e4, 2.0)] {
        let text = contradicts(FREQUENCIES, Dtype::F32, &[5], frequencies(theta, factor));
        assert!(text.contains("frequencies of rope_theta"), "{text}");
    }
    contradicts(FREQUENCIES, Dtype::F32, &[4], frequencies(1e4, 1.0)[..16].to_vec());
}

#[test]
fn a_redundant_tensor_must_be_unique() {
    let (folder, config) = (tempfile::tempdir().unwrap(), tiny::config("qwen3", &[]));
    saved_with(folder.path(), &config, &[(parameters::HEAD, Dtype::F32, &[37, 24], embedding(&config))]);
    let head = TensorInfo { name: parameters::HEAD.to_owned(), dtype: Dtype::F32, shape: vec![37, 24] };
    fs::rename(folder.path().join(ONE_FILE), folder.path().join("a.safetensors")).unwrap();
    write_file(&folder.path().join("b.safetensors"), &[head], Durability::Durable, |_| {
        Ok::<_, Error>(embedding(&config))
    })
    .unwrap();
    let index = json!({ "weight_map": { "x": "a.safetensors", "y": "b.safetensors" } });
    fs::write(folder.path().join(INDEX), index.to_string()).unwrap();
    let error = Checkpoint::open(folder.path(), &config).unwrap_err();
    assert!(matches!(&error, Error::Twice { tensor, .. } if tensor == parameters::HEAD), "{error}");
}

#[test]
fn weights_in_other_formats_are_refused_by_name() {
    let (folder, config) = (tempfile::tempdir().unwrap(), tiny::config("qwen3", &[]));
    let open = || Checkpoint::open(folder.path(), &config).unwrap_err();
    fs::write(folder.path().join("training_args.bin"), "").unwrap();
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(matches!(open(), Error::File { action: "open", .. }), "no file contains weights");
    for name in
        ["pytorch_model.bin", "consolidated.00.pth", "Model-Q4.GGUF", "model-00001-of-00002.safetensors"]
    {
        fs::write(folder.path().join(name), "").unwrap();
        let text = open().to_string();
        assert!(text.contains(&format!("but {name}")) && text.contains("save_pretrained(OUT)"), "{text}");
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    saved(folder.path(), &config);
    fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    assert_whole(folder.path(), &config, Dtype::F32);
}

#[test]
fn git_lfs_pointers_are_refused_by_name() {
    let (folder, config) = (tempfile::tempdir().unwrap(), tiny::config("qwen3", &[]));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 988097824\n";
    for name in [INDEX, ONE_FILE] {
        fs::write(folder.path().join(name), pointer).unwrap();
        let text = Checkpoint::open(folder.path(), &config).unwrap_err().to_string();
        assert!(
            text.contains(&format!("{name} is a Git LFS pointer")) && text.contains("git lfs pull"),
            "{text}"
        );
    }
}

#[test]
fn tensors_that_do_not_fit_the_configuration_are_refused() {
    let (folder, config) = (tempfile::tempdir().unwrap(), tiny::config("qwen3", &[]));
    saved(folder.path(), &config);
    let error = |config: &Config| Checkpoint::open(folder.path(), config).unwrap_err();

    let untied = error(&Config { tie_word_embeddings: false, ..config.clone() });
    let Error::Missing { path, tensor, expected } = untied else { panic!("{untied}") };
    assert_eq!((path.as_path(), tensor.as_str(), expected), (folder.path(), "lm_head.weight", vec![37, 24]));
    let shallow = error(&Config { num_hidden_layers: 1, ..config.clone() });
    let Error::Unexpected { path, tensor } = shallow else { panic!("{shallow}") };
    assert!(path.ends_with(ONE_FILE) && tensor.starts_with("model.layers.1."));
    let large = error(&Config { vocab_size: 1 << 22, ..config.clone() });
    let text = large.to_string();
    assert!(matches!(large, Error::Shape { .. }));
    assert!(text.contains("model.embed_tokens.weight in ") && text.contains(ONE_FILE), "{text}");
    assert!(text.ends_with("has shape [37, 24], expected [4194304, 24]"), "{text}");

    fs::write(folder.path().join("config.json"), config.to_json("float32")).unwrap();
    let llama = tiny::config("llama", &[]);
    let version = Checkpoint::open_version(folder.path(), &llama).unwrap_err();
    assert!(matches!(version, Error::Architecture { .. }));
    Checkpoint::open_version(folder.path(), &config).unwrap();
}

#[test]
fn damaged_files_are_refused_by_name() {
    let (folder, config) = (tempfile::tempdir().unwrap(), tiny::config("qwen3", &[]));
    saved(folder.path(), &config);
    let path = folder.path().join(ONE_FILE);
    let whole = fs::read(&path).unwrap();
    for length in [0, 5, 900, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Checkpoint::open(folder.path(), &config).unwrap_err();
        assert!(
            matches!(&error, Error::Header { path, .. } if path.ends_with(ONE_FILE)),
            "{length}: {error}"
        );
    }
    fs::remove_file(&path).unwrap();
    let missing = Checkpoint::open(folder.path(), &config).unwrap_err();
    assert!(matches!(&missing, Error::File { action: "open", .. }), "{missing}");
    fs::create_dir(&path).unwrap();
    let not_a_file = Checkpoint::open(folder.path(), &config).unwrap_err();
    assert!(matches!(&not_a_file, Error::File { action: "map", .. }), "{not_a_file}");
}

#[test]
fn non_finite_weights_are_refused_by_tensor() {
    let config = tiny::config("llama", &[]);
    let f32s = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7f80_0001)];
    let culprits = f32s.map(|number| (Dtype::F32, number.to_le_bytes().to_vec())).into_iter();
    let culprits = culprits
        .chain([0x7f80_u16, 0xff80, 0x7fc0, 0x7f81].map(|bits| (Dtype::BF16, bits.to_le_bytes().to_vec())))
        .chain([0x7c00_u16, 0xfc00, 0x7e00, 0x7c01].map(|bits| (Dtype::F16, bits.to_le_bytes().to_vec())));
    for (dtype, culprit) in culprits {
        let folder = tempfile::tempdir().unwrap();
        let with_culprit = |info: &TensorInfo| {
            let mut bytes = numbers(info)?;
            if info.name == NORM {
                let last = bytes.len() - culprit.len();
                bytes[last..].copy_from_slice(&culprit);
            }
            Ok::<_, Error>(bytes)
        };
        write(folder.path(), &infos(&config, dtype), u64::MAX, with_culprit).unwrap();
        let checkpoint = Checkpoint::open(folder.path(), &config).unwrap();
        checkpoint.tensor("model.embed_tokens.weight").unwrap();
        let error = checkpoint.tensor(NORM).unwrap_err();
        let Error::NotFinite { path, tensor } = error else { panic!("{error}") };
        assert!(path.ends_with(ONE_FILE) && tensor == NORM, "{dtype:?} {culprit:?}");
    }
}

#[test]
fn the_largest_numbers_are_finite() {
    let (folder, config) = (tempfile::tempdir().unwrap(), tiny::config("llama", &[]));
    for (dtype, largest) in [
        (Dtype::F32, f32::MAX.to_le_bytes().to_vec()),
        (Dtype::BF16, 0xff7f_u16.to_le_bytes().to_vec()),
        (Dtype::F16, 0xfbff_u16.to_le_bytes().to_vec()),
    ] {
        let all = |info: &TensorInfo| Ok::<_, Error>(largest.repeat(info.size() as usize / largest.len()));
        write(folder.path(), &infos(&config, dtype), u64::MAX, all).unwrap();
        Checkpoint::open(folder.path(), &config).unwrap().tensor(NORM).unwrap();
    }
}

#[test]
fn a_failed_write_preserves_the_previous_weights() {
    let (folder, config) = (tempfile::tempdir().unwrap(), tiny::config("qwen3", &[]));
    saved(folder.path(), &config);
    let fails = |info: &TensorInfo| {
        if info.name == NORM {
            return Err(Error::NotFinite { path: "source".into(), tensor: info.name.clone() });
        }
        Ok(vec![0; info.size() as usize])
    };
    let error = write(folder.path(), &infos(&config, Dtype::F32), u64::MAX, fails).unwrap_err();
    assert!(matches!(error, Error::NotFinite { tensor, .. } if tensor == NORM));
    assert_whole(folder.path(), &config, Dtype::F32);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file remains");

    let out = folder.path().join("merged");
    let error = new_folder(&out, |out| write(out, &infos(&config, Dtype::F32), 1, fails)).unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no partial folder remains");
}

#[test]
fn a_sharded_checkpoint_is_written_into_a_new_folder() {
    let (parent, config) = (tempfile::tempdir().unwrap(), tiny::config("qwen3", &[]));
    let out = parent.path().join("merged");
    let fill = |folder: &Path| -> Result<(), Error> {
        durable::write(&folder.join("config.json"), config.to_json("float32").as_bytes())?;
        write(folder, &infos(&config, Dtype::F32), 2000, numbers)
    };
    new_folder(&out, fill).unwrap();
    assert_whole(&out, &config, Dtype::F32);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

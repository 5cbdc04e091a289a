//! Reading a checkpoint retains at most one of its tensors in memory. In a separate file, since mappings of other
//! tests would count.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

use std::fs;

use podium_checkpoint::parameters::{Initial, Parameter};
use podium_checkpoint::{Checkpoint, Dtype, Error, TensorInfo, write_file};
use podium_files::durable::Durability;

const TENSORS: usize = 16;
/// Four MiB.
const SHAPE: [i64; 2] = [1024, 1024];

/// Memory of this process for mapped files, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn the_memory_of_a_read_tensor_is_released() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let list: Vec<_> = (0..TENSORS)
        .map(|number| Parameter { name: format!("{number}"), shape: SHAPE.to_vec(), initial: Initial::Zeros })
        .collect();
    let infos: Vec<_> = list
        .iter()
        .map(|Parameter { name, shape, .. }| TensorInfo {
            name: name.clone(),
            dtype: Dtype::F32,
            shape: shape.clone(),
        })
        .collect();
    write_file(&path, &infos, Durability::Durable, |info| Ok::<_, Error>(vec![1; info.size() as usize]))
        .unwrap();

    let checkpoint = Checkpoint::open_files(folder.path(), vec![path], &list, |_| false).unwrap();
    let before = resident();
    let mut most = 0;
    for info in &infos {
        let tensor = checkpoint.tensor(&info.name).unwrap();
        assert!(resident() >= before + info.size(), "the tensor is mapped and was read");
        most = most.max(resident() - before);
        assert_eq!(tensor.bytes()[0], 1);
    }
    let (tensor, grown) = (infos[0].size(), resident().saturating_sub(before));
    assert!(most < 2 * tensor, "{most} bytes at once, for tensors of {tensor}");
    assert!(grown < tensor, "{grown} bytes are retained");

    // Released pages are read from the file again.
    assert!(checkpoint.tensor("3").unwrap().bytes().iter().all(|byte| *byte == 1));
}

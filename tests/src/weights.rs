//! The weights of policy versions in a run folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use safetensors::{Dtype, SafeTensors};

/// SHA-256 of the weights of a policy version in a run folder.
pub fn weights_hash(out: &Path, version: u64) -> Result<String> {
    let folder = out.join("policy").join(version.to_string());
    let adapter = folder.join("adapter_model.safetensors");
    let path = if adapter.exists() { adapter } else { folder.join("model.safetensors") };
    Ok(podium_files::durable::hex(&podium_files::durable::sha256(&path)?))
}

/// All weights of a policy version.
#[derive(Debug)]
pub struct Weights(BTreeMap<String, Vec<f32>>);

impl Weights {
    /// Reads the weights of a policy version in a run folder.
    pub fn read(out: &Path, version: u64) -> Result<Self> {
        let bytes = fs::read(out.join("policy").join(version.to_string()).join("model.safetensors"))?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let numbers =
            |bytes: &[u8]| bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let mut weights = BTreeMap::new();
        for (name, tensor) in tensors.tensors() {
            ensure!(tensor.dtype() == Dtype::F32, "{name} has numbers of type {:?}", tensor.dtype());
            weights.insert(name, numbers(tensor.data()));
        }
        Ok(Self(weights))
    }

    /// Returns the relative distance ‖a − b‖ / ‖b‖ over all weights.
    pub fn distance(&self, others: &Self) -> Result<f64> {
        let (mut difference, mut norm) = (0.0, 0.0);
        ensure!(self.0.keys().eq(others.0.keys()), "the names of the tensors differ");
        for (a, b) in self.0.values().zip(others.0.values()) {
            ensure!(a.len() == b.len(), "the sizes of the tensors differ");
            for (a, b) in a.iter().zip(b) {
                difference += (f64::from(*a) - f64::from(*b)).powi(2);
                norm += f64::from(*b).powi(2);
            }
        }
        Ok((difference / norm).sqrt())
    }
}

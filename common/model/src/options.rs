//! Device and number type of a policy.

use podium_checkpoint::Dtype;
use tch::{Device, Kind};

/// The arithmetic of a policy. Norms, softmax and log-probabilities are always float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// The faster choice on a CPU without bfloat16 units.
    #[default]
    Float32,
    /// Half the memory, and several times faster on GPUs.
    Bfloat16,
}

impl Precision {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Bfloat16 => Kind::BFloat16,
        }
    }

    /// Returns the number type in files.
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::Float32 => Dtype::F32,
            Self::Bfloat16 => Dtype::BF16,
        }
    }

    /// Returns the name in `config.json`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
        }
    }
}

/// Device and number type of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Device of all its tensors.
    pub device: Device,
    /// Type of its weights and activations.
    pub precision: Precision,
}

impl LoadOptions {
    /// Returns the options of a policy on `device`, in bfloat16 if `bfloat16` is set, else in
    /// float32. A CPU always computes in float32.
    pub fn new(device: Device, bfloat16: bool) -> Self {
        let reduced = bfloat16 && device != Device::Cpu;
        Self { device, precision: if reduced { Precision::Bfloat16 } else { Precision::Float32 } }
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { device: Device::Cpu, precision: Precision::Float32 }
    }
}

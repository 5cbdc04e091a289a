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

/// Implementation of attention over whole sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionKernel {
    /// Without scores in memory (Dao et al. 2022, arXiv:2205.14135).
    Flash,
    /// Matrix products and a softmax over all scores, which are in memory.
    Materialized,
}

/// Device and number type of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Device of all its tensors.
    pub device: Device,
    /// Type of the model's weights and of activations.
    pub precision: Precision,
    /// Type of the adapter's weights.
    pub adapter: Precision,
    /// Whether other policies share the model's weights, which are then never written to.
    pub(crate) shares_base: bool,
    /// Implementation of attention.
    pub attention: AttentionKernel,
    /// Whether sampling uses the kernels for CPUs that compute several operations in one pass.
    pub(crate) fused: bool,
}

impl LoadOptions {
    /// Returns the options of a policy on `device`, in bfloat16 or in float32; `None` for bfloat16 on a GPU and float32
    /// on a CPU.
    pub fn new(device: Device, bfloat16: Option<bool>) -> Self {
        let reduced = bfloat16.unwrap_or(device != Device::Cpu);
        let precision = if reduced { Precision::Bfloat16 } else { Precision::Float32 };
        // Flash kernels of GPUs compute in bfloat16 alone.
        let flash = device == Device::Cpu || precision == Precision::Bfloat16;
        let attention = if flash { AttentionKernel::Flash } else { AttentionKernel::Materialized };
        let fused = device == Device::Cpu;
        Self { device, precision, adapter: precision, attention, shares_base: false, fused }
    }

    /// Returns the options for training: the adapter is float32, so that small updates are not rounded away. Forward
    /// passes round it to the model's type.
    #[must_use]
    pub const fn for_training(self) -> Self {
        Self { adapter: Precision::Float32, ..self }
    }

    /// Returns the options with all scores of attention in memory, if `materialized`.
    #[must_use]
    pub const fn with_materialized_attention(self, materialized: bool) -> Self {
        let attention = if materialized { AttentionKernel::Materialized } else { self.attention };
        Self { attention, ..self }
    }

    /// Returns the options with the operations that a GPU computes, also on a CPU: for tests.
    #[must_use]
    pub const fn as_on_a_gpu(self) -> Self {
        Self { fused: false, ..self }
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self::new(Device::Cpu, None)
    }
}

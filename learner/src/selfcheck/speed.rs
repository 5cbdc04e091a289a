//! Speed of sampling, and the number of operations per decoding step.

use std::time::Instant;

use podium_model::{LoadOptions, Policy};
use podium_torch_shim::{count, device_memory, empty_cache, reset_peak};
use tch::Device;

use super::error::Error;
use super::report::{PerToken, Speed};
use super::subject::{SMALL, Shape, policy, sample};

/// Qwen3's shapes.
const SHAPES: [Shape; 3] = [
    Shape("Qwen3-0.6B", [1024, 3072, 28, 16, 8, 128, 151_936]),
    Shape("Qwen3-1.7B", [2048, 6144, 28, 16, 8, 128, 151_936]),
    Shape("Qwen3-4B", [2560, 9728, 36, 32, 8, 128, 151_936]),
];
/// Completions sampled at once on a GPU.
const LANES: [usize; 3] = [64, 256, 512];
/// Completions of each prompt.
const GROUP_SIZE: usize = 8;
const PROMPT_TOKENS: usize = 512;
const COMPLETION_TOKENS: usize = 64;

/// Measures sampling: Qwen3's shapes on a GPU, the shape of the checks on a CPU.
pub(super) fn measure(device: Device) -> Result<Vec<Speed>, Error> {
    if device == Device::Cpu {
        let policy = policy(device, false)?;
        return Ok(vec![speed(&policy, SMALL, 16, 64, 16)?]);
    }
    let mut speeds = Vec::new();
    for shape in SHAPES {
        let options = LoadOptions::new(device, None);
        let policy =
            Policy::for_timing(&shape.config(), options).map_err(|error| Error::Policy(error.into()))?;
        // The first use of a shape selects kernels.
        sample(&policy, 1, GROUP_SIZE, PROMPT_TOKENS, 4)?;
        for lanes in LANES {
            speeds.push(speed(&policy, shape, lanes, PROMPT_TOKENS, COMPLETION_TOKENS)?);
        }
        drop(policy);
        empty_cache()?;
    }
    Ok(speeds)
}

fn speed(
    policy: &Policy,
    shape: Shape,
    lanes: usize,
    prompt_tokens: usize,
    completion_tokens: usize,
) -> Result<Speed, Error> {
    let gpu = match policy.device() {
        Device::Cuda(index) => Some(index),
        _ => None,
    };
    gpu.map(reset_peak).transpose()?;
    let began = Instant::now();
    sample(policy, lanes / GROUP_SIZE, GROUP_SIZE, prompt_tokens, completion_tokens)?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Speed {
        shape: shape.0,
        parameters: policy.parameters().iter().map(|(_, tensor)| tensor.numel() as u64).sum(),
        lanes,
        prompt_tokens,
        completion_tokens,
        tokens_per_second: (lanes * completion_tokens) as f64 / seconds,
        peak_bytes: gpu.map(device_memory).transpose()?.map(|memory| memory.peak_allocated),
    })
}

/// Counts the operations of a decoding step of the checks' policy, in bfloat16.
pub(super) fn operations(device: Device) -> Result<PerToken, Error> {
    const FEW: usize = 4;
    const MANY: usize = 20;
    let policy = policy(device, true)?;
    let counted = |length: usize| -> Result<_, Error> {
        let (sampled, counted) = count(|| sample(&policy, 2, 4, 16, length))?;
        sampled.map(|_| counted)
    };
    let layers = policy.config().num_hidden_layers as u64;
    Ok(PerToken::between(counted(FEW)?, counted(MANY)?, (MANY - FEW) as u64, layers))
}

//! Comparisons of a device with the CPU, of sampling with scoring, and of a computation with its repetition.

use podium_files::durable::hex;
use podium_model::{Entropy, GroupTokens, Packed, Policy, TrainingOptions, memory};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use super::error::Error;
use super::report::{Check, Limit};
use super::subject::{batch, policy, sample};
use crate::adamw::{AdamW, Options};
use crate::collective::Collective;
use crate::collective::nccl::{Library, Nccl};
use crate::collective::star::Star;

const OPTIMIZER: Options =
    Options { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 };
const LEARNING_RATE: f64 = 1e-3;
/// Time limit of one collective operation.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

/// All checks of arithmetic.
pub(super) fn all(device: Device) -> Result<Vec<Check>, Error> {
    let expected = Computed::of(Device::Cpu, false)?;
    let single = Computed::of(device, false)?;
    let half = Computed::of(device, true)?;
    let relative = |found: &Tensor, expected: &Tensor| {
        (found - expected).norm().double_value(&[]) / expected.norm().double_value(&[])
    };
    let mean =
        |found: &Tensor, expected: &Tensor| (found - expected).abs().mean(Kind::Double).double_value(&[]);
    let cosine = |found: &Tensor, expected: &Tensor| {
        let product = found.dot(expected).double_value(&[]);
        product / (found.norm().double_value(&[]) * expected.norm().double_value(&[]))
    };
    let mut checks = vec![
        Check::new(
            "forward_float32",
            "log-probabilities in float32 against those of the CPU: mean difference in nats",
            mean(&single.logprobs, &expected.logprobs),
            Limit::AtMost(1e-4),
        ),
        Check::new(
            "forward_bfloat16",
            "log-probabilities in bfloat16 against float32 on the CPU: mean difference in nats",
            mean(&half.logprobs, &expected.logprobs),
            Limit::AtMost(0.03),
        ),
        Check::new(
            "gradients_float32",
            "gradients in float32 against those of the CPU: relative difference",
            relative(&single.gradients, &expected.gradients),
            Limit::AtMost(1e-3),
        ),
        Check::new(
            "gradients_bfloat16",
            "gradients in bfloat16 against float32 on the CPU: cosine",
            cosine(&half.gradients, &expected.gradients),
            Limit::AtLeast(0.99),
        ),
        Check::new(
            "update_float32",
            "weights after one update in float32 against those of the CPU: relative difference",
            relative(&single.weights, &expected.weights),
            Limit::AtMost(1e-3),
        ),
    ];
    for (name, what, bfloat16, limit) in [
        (
            "sampler_float32",
            "log-probabilities of the sampler against those of scoring, float32: mean difference in nats",
            false,
            1e-4,
        ),
        (
            "sampler_bfloat16",
            "log-probabilities of the sampler against those of scoring, bfloat16: mean difference in nats",
            true,
            0.03,
        ),
    ] {
        checks.push(Check::new(name, what, sampler_gap(&policy(device, bfloat16)?)?, Limit::AtMost(limit)));
    }
    Ok(checks)
}

/// The digest of an update's result in both number types.
pub(super) fn digest(device: Device) -> Result<String, Error> {
    let mut digest = Sha256::new();
    for bfloat16 in [false, true] {
        let result = Computed::of(device, bfloat16)?;
        for tensor in [&result.logprobs, &result.gradients, &result.weights] {
            let numbers = Vec::<f64>::try_from(tensor).expect("a flat tensor of doubles");
            for number in numbers {
                digest.update(number.to_le_bytes());
            }
        }
    }
    Ok(hex(&digest.finalize()))
}

/// The checks that need a GPU.
pub(super) fn of_gpu(device: Device) -> Result<Vec<Check>, Error> {
    const MEMORY: (&str, &str) =
        ("out_of_memory", "an allocation beyond the device's memory is detected, and computing goes on");
    const NCCL: (&str, &str) = ("nccl", "a sum over one rank by NCCL returns its input: largest difference");
    const PEAK: (&str, &str) = ("memory", "memory of tensors on the device after the checks, in bytes");
    let Device::Cuda(index) = device else {
        let skipped = |(name, what)| Check::skipped(name, what, "it needs a GPU");
        return Ok([MEMORY, NCCL, PEAK].map(skipped).into());
    };
    let total = podium_torch_shim::device_memory(index)?.total;
    let refused = memory::attempt(|| Tensor::empty([total], (Kind::Float, device))).is_err();
    let goes_on = Computed::of(device, false).is_ok();
    let mut checks = vec![Check::new(MEMORY.0, MEMORY.1, f64::from(refused && goes_on), Limit::AtLeast(1.0))];
    checks.push(match Library::find() {
        Ok(library) => Check::new(NCCL.0, NCCL.1, sum_of_one_rank(&library, device)?, Limit::AtMost(0.0)),
        Err(error) => Check::skipped(NCCL.0, NCCL.1, &podium_service::logs::describe(&error)),
    });
    podium_torch_shim::empty_cache()?;
    let left = podium_torch_shim::device_memory(index)?.allocated;
    checks.push(Check::new(PEAK.0, PEAK.1, left as f64, Limit::AtMost(f64::from(64 << 20))));
    Ok(checks)
}

fn sum_of_one_rank(library: &Library, device: Device) -> Result<f64, Error> {
    let id = library.unique_id()?;
    let mut nccl = Nccl::set_up(Star::alone(DEADLINE), library, &id, device)?;
    let own = Tensor::arange(1000, (Kind::Float, device));
    let mut sum = own.copy();
    nccl.all_reduce_sum(&mut sum)?;
    Ok((sum - own).abs().max().double_value(&[]))
}

/// Mean difference in nats between the log-probabilities of sampling and of scoring.
fn sampler_gap(policy: &Policy) -> Result<f64, Error> {
    let (prompts, generated) = sample(policy, 3, 4, 40, 16)?;
    let completions: Vec<Vec<&[u32]>> = generated
        .groups
        .iter()
        .map(|group| group.iter().map(|sampled| sampled.token_ids.as_slice()).collect())
        .collect();
    let groups: Vec<GroupTokens<'_>> = prompts
        .iter()
        .zip(completions)
        .map(|(prompt, completions)| GroupTokens { prompt, completions })
        .collect();
    let failed = |error: podium_model::packed::Error| Error::Policy(error.into());
    let batch = Packed::new(&groups).map_err(failed)?;
    let scores = policy.score(&batch, 1.0, Entropy::Skipped).map_err(failed)?.logprobs;
    let sampled: Vec<f32> =
        generated.groups.iter().flatten().flat_map(|sampled| sampled.logprobs.iter().copied()).collect();
    let sampled = Tensor::from_slice(&sampled);
    Ok((scores.to_device(Device::Cpu) - sampled).abs().mean(Kind::Double).double_value(&[]))
}

/// What one training step computes: flat float64 tensors on the CPU.
struct Computed {
    logprobs: Tensor,
    gradients: Tensor,
    weights: Tensor,
}

impl Computed {
    fn of(device: Device, bfloat16: bool) -> Result<Self, Error> {
        let mut policy = policy(device, bfloat16)?;
        policy.set_training(true);
        let options = TrainingOptions { entropy: Entropy::Measured, ..TrainingOptions::default() };
        let pass = policy.training_pass(&batch(), options).map_err(|error| Error::Policy(error.into()))?;
        let logprobs = flat([pass.scores().logprobs.detach()]);
        let count = pass.scores().logprobs.numel() as f64;
        (pass.scores().logprobs.sum(Kind::Float) / -count).backward();
        pass.backward();
        let mut gradients = policy.take_gradients();
        let before = flat(gradients.iter().map(Tensor::shallow_clone));
        let mut optimizer = AdamW::new(policy.trainable(), OPTIMIZER);
        optimizer.step(&mut gradients, LEARNING_RATE).map_err(|error| Error::Policy(error.into()))?;
        let weights = flat(policy.trainable().iter().map(|(_, tensor)| tensor.detach()));
        Ok(Self { logprobs, gradients: before, weights })
    }
}

fn flat(tensors: impl IntoIterator<Item = Tensor>) -> Tensor {
    let flat = |tensor: Tensor| tensor.to_device(Device::Cpu).to_kind(Kind::Double).reshape([-1]);
    Tensor::cat(&tensors.into_iter().map(flat).collect::<Vec<_>>(), 0)
}

//! Rates of the device: the inputs of `podium check-config --time`.

use std::time::Instant;

use podium_checkpoint::flops::Positions;
use podium_torch_shim::{PromptQueries, Sequences, attention, linear};
use tch::{Device, Kind, Tensor, no_grad};

use super::error::Error;
use super::report::Rates;

/// Rows of a decoding step, and of a training pass. `podium-step-time` interpolates between them.
const FEW: i64 = 32;
const MANY: i64 = 2048;
/// Number of measurements, of which the shortest counts: other processes of a machine only lengthen them.
const REPETITIONS: u32 = 20;
/// Least duration of one measurement in seconds.
const LEAST: f64 = 0.02;
/// Operations that are started for one measurement of the launch time.
const STARTED: u32 = 200;

/// Sizes of the measured tensors.
struct Sizes {
    inputs: i64,
    outputs: i64,
    heads: i64,
    key_heads: i64,
    head: i64,
    /// Prompts of 400 tokens with 8 completions of 64 tokens each, which attend together.
    prompts: usize,
    /// Numbers of a tensor that is added to another.
    numbers: i64,
}

const OF_CPU: Sizes =
    Sizes { inputs: 512, outputs: 1536, heads: 8, key_heads: 4, head: 64, prompts: 4, numbers: 1 << 22 };
const OF_GPU: Sizes =
    Sizes { inputs: 2560, outputs: 9728, heads: 32, key_heads: 8, head: 128, prompts: 16, numbers: 1 << 27 };

/// Measures the rates in the number type that policies have on the device by default.
pub(super) fn measure(device: Device) -> Result<Rates, Error> {
    let (sizes, kind) = match device {
        Device::Cpu => (OF_CPU, Kind::Float),
        _ => (OF_GPU, Kind::BFloat16),
    };
    no_grad(|| {
        Ok(Rates {
            number: if kind == Kind::Float { "float32" } else { "bfloat16" },
            few_rows_flops_per_second: sizes.products(FEW, device, kind)?,
            many_rows_flops_per_second: sizes.products(MANY, device, kind)?,
            attention_flops_per_second: sizes.attention(device, kind)?,
            bytes_per_second: sizes.bandwidth(device, kind)?,
            launch_seconds: launch(device)?,
        })
    })
}

impl Sizes {
    /// Operations per second of a product of this number of rows, as sampling computes it.
    fn products(&self, rows: i64, device: Device, kind: Kind) -> Result<f64, Error> {
        let x = Tensor::randn([rows, self.inputs], (kind, device));
        let weight = Tensor::randn([self.outputs, self.inputs], (kind, device));
        let seconds = seconds(device, &mut || Ok(linear(&x, &weight, None, &[])?))?;
        Ok((2 * rows * self.inputs * self.outputs) as f64 / seconds)
    }

    /// Operations per second of attention in a training pass, without gradients.
    fn attention(&self, device: Device, kind: Kind) -> Result<f64, Error> {
        const PROMPT: u64 = 400;
        const COMPLETIONS: usize = 8;
        const COMPLETION: u64 = 64;
        let group = Positions::of_group(PROMPT, [COMPLETION; COMPLETIONS]);
        let prompts = vec![PROMPT as i64; self.prompts];
        let completions = vec![COMPLETION as i64 - 1; self.prompts * COMPLETIONS];
        let rows = self.prompts as i64 * group.tokens as i64;
        let tensor = |heads: i64| Tensor::randn([rows, heads, self.head], (kind, device));
        let (query, key, value) = (tensor(self.heads), tensor(self.key_heads), tensor(self.key_heads));
        let sequences =
            || Sequences { prompts: &prompts, completions: &completions, queries: PromptQueries::All };
        let seconds =
            seconds(device, &mut || Ok(attention(&query, &key, &value, sequences(), self.scale())?))?;
        let pairs = self.prompts as u64 * group.attended;
        Ok((4 * pairs * (self.heads * self.head) as u64) as f64 / seconds)
    }

    fn scale(&self) -> f64 {
        (self.head as f64).powf(-0.5)
    }

    /// Bytes per second of a sum: two tensors are read and a new one is written.
    fn bandwidth(&self, device: Device, kind: Kind) -> Result<f64, Error> {
        let tensor = || Tensor::randn([self.numbers], (kind, device));
        let (x, y) = (tensor(), tensor());
        let seconds = seconds(device, &mut || Ok(&x + &y))?;
        Ok((3 * self.numbers as usize * kind.elt_size_in_bytes()) as f64 / seconds)
    }
}

/// Seconds to start an operation on one number.
fn launch(device: Device) -> Result<f64, Error> {
    let mut number = Tensor::zeros([1], (Kind::Float, device));
    let seconds = seconds(device, &mut || {
        for _ in 0..STARTED {
            let _ = number.g_add_scalar_(1.0);
        }
        Ok(number.shallow_clone())
    })?;
    Ok(seconds / f64::from(STARTED))
}

/// The shortest duration of a computation in seconds. Each measurement repeats it and ends with a read of its result, which
/// waits for the device.
fn seconds(device: Device, compute: &mut dyn FnMut() -> Result<Tensor, Error>) -> Result<f64, Error> {
    let wait = |result: &Tensor| {
        if device != Device::Cpu {
            let _ = result.view(-1).double_value(&[0]);
        }
    };
    let mut repeated = |times: u32| -> Result<f64, Error> {
        let began = Instant::now();
        let mut result = compute()?;
        for _ in 1..times {
            result = compute()?;
        }
        wait(&result);
        Ok(began.elapsed().as_secs_f64() / f64::from(times))
    };
    // The first computations select kernels and reserve memory.
    repeated(2)?;
    let once = repeated(2)?;
    let times = (LEAST / once.max(1e-9)).ceil().clamp(1.0, 1e5) as u32;
    (0..REPETITIONS).try_fold(f64::INFINITY, |shortest, _| Ok(repeated(times)?.min(shortest)))
}

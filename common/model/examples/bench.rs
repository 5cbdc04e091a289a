//! Speed of sampling, scoring and training on one device, as one line of JSON.
//!
//! `cargo run --release -p podium-model --example bench -- [--device cpu] [--threads 2] [--repeats 3] [--vocab 8192]
//! [--hidden 512] [--ffn 1536] [--layers 8] [--heads 8] [--kv-heads 4] [--head-dim 64] [--prompts 4]
//! [--prompt-tokens 400] [--group-size 8] [--new-tokens 64] [--top-p 1.0] [--recompute-layers]`
//!
//! Times are the best of the repeats: what the machine can do when nobody disturbs it.

use std::time::Instant;

use anyhow::{Context, bail};
use podium_model::rope::Rope;
use podium_model::{
    Config, Entropy, Family, GroupTokens, LoadOptions, Packed, Policy, Precision, Sampling, TrainingOptions,
    device, generate,
};
use tch::{Cuda, Device, Kind};

/// What is measured.
struct Workload {
    device: String,
    precision: Precision,
    threads: usize,
    repeats: usize,
    config: Config,
    prompts: usize,
    prompt_tokens: usize,
    group_size: usize,
    new_tokens: usize,
    top_p: f64,
    recompute_layers: bool,
}

impl Workload {
    fn from_arguments() -> anyhow::Result<Self> {
        let mut workload = Self {
            device: "cpu".to_owned(),
            precision: Precision::Float32,
            threads: 2,
            repeats: 3,
            config: Config {
                family: Family::Qwen3,
                vocab_size: 8192,
                hidden_size: 512,
                intermediate_size: 1536,
                num_hidden_layers: 8,
                num_attention_heads: 8,
                num_key_value_heads: 4,
                head_dim: 64,
                max_position_embeddings: 32_768,
                rms_norm_eps: 1e-6,
                rope: Rope { theta: 1e6, scaling: None },
                tie_word_embeddings: true,
                qkv_bias: false,
                output_bias: false,
                mlp_bias: false,
                initializer_range: 0.02,
                other: serde_json::Map::new(),
            },
            prompts: 4,
            prompt_tokens: 400,
            group_size: 8,
            new_tokens: 64,
            top_p: 1.0,
            recompute_layers: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(flag) = arguments.next() {
            match flag.as_str() {
                "--recompute-layers" => workload.recompute_layers = true,
                "--bf16" => workload.precision = Precision::Bfloat16,
                _ => {
                    let value = arguments.next().with_context(|| format!("{flag} needs a value"))?;
                    workload.set(&flag, &value).with_context(|| format!("{flag} {value}"))?;
                }
            }
        }
        Ok(workload)
    }

    fn set(&mut self, flag: &str, value: &str) -> anyhow::Result<()> {
        match flag {
            "--device" => value.clone_into(&mut self.device),
            "--threads" => self.threads = value.parse()?,
            "--repeats" => self.repeats = value.parse()?,
            "--vocab" => self.config.vocab_size = value.parse()?,
            "--hidden" => self.config.hidden_size = value.parse()?,
            "--ffn" => self.config.intermediate_size = value.parse()?,
            "--layers" => self.config.num_hidden_layers = value.parse()?,
            "--heads" => self.config.num_attention_heads = value.parse()?,
            "--kv-heads" => self.config.num_key_value_heads = value.parse()?,
            "--head-dim" => self.config.head_dim = value.parse()?,
            "--prompts" => self.prompts = value.parse()?,
            "--prompt-tokens" => self.prompt_tokens = value.parse()?,
            "--group-size" => self.group_size = value.parse()?,
            "--new-tokens" => self.new_tokens = value.parse()?,
            "--top-p" => self.top_p = value.parse()?,
            _ => bail!("there is no such flag"),
        }
        Ok(())
    }
}

/// Seconds of the fastest run, and what it returned.
fn best_of<T>(repeats: usize, device: Device, mut run: impl FnMut() -> T) -> (f64, T) {
    let mut best: Option<(f64, T)> = None;
    for _ in 0..repeats.max(1) {
        let start = Instant::now();
        let result = run();
        if let Device::Cuda(index) = device {
            Cuda::synchronize(index as i64);
        }
        let seconds = start.elapsed().as_secs_f64();
        if best.as_ref().is_none_or(|(best, _)| seconds < *best) {
            best = Some((seconds, result));
        }
    }
    best.expect("at least one repeat")
}

fn main() -> anyhow::Result<()> {
    let workload = Workload::from_arguments()?;
    device::set_threads(workload.threads)?;
    let device = device::parse(&workload.device)?;
    let options = LoadOptions { device, precision: workload.precision };
    let mut policy = Policy::random(&workload.config, 1, options)?;
    let token = |index: usize| (index * 7919 % workload.config.vocab_size as usize) as u32;
    let prompts: Vec<Vec<u32>> = (0..workload.prompts)
        .map(|prompt| (0..workload.prompt_tokens).map(|position| token(prompt * 10_007 + position)).collect())
        .collect();

    let sampling =
        Sampling { max_new_tokens: workload.new_tokens, top_p: workload.top_p, ..Sampling::default() };
    let uniform = |prompt: usize, sample: usize, position: usize| {
        (prompt as f64 * 0.37 + sample as f64 * 0.71 + position as f64 * 0.618_034).fract()
    };
    let sample =
        |sampling: &Sampling| generate(&policy, &prompts, workload.group_size, sampling, &uniform, &|| false);
    let one_token = Sampling { max_new_tokens: 1, ..sampling.clone() };
    let (prefill_s, prefilled) = best_of(workload.repeats, device, || sample(&one_token));
    let (sampling_s, generated) = best_of(workload.repeats, device, || sample(&sampling));
    let (prefilled, generated) = (prefilled?, generated?);

    let groups: Vec<_> = prompts
        .iter()
        .zip(&generated.groups)
        .map(|(prompt, group)| GroupTokens {
            prompt,
            completions: group.iter().map(|one| one.token_ids.as_slice()).collect(),
        })
        .collect();
    let batch = Packed::new(&groups)?;
    let (scoring_s, scores) =
        best_of(workload.repeats, device, || policy.score(&batch, 1.0, Entropy::Skipped));
    let scores = Vec::<f32>::try_from(scores?.logprobs.to_device(Device::Cpu))?;
    let recorded = generated.groups.iter().flatten().flat_map(|one| &one.logprobs);
    let gap = recorded.zip(&scores).map(|(own, other)| (own - other).abs()).fold(0.0, f32::max);

    policy.set_training(true);
    let options = TrainingOptions { recompute_layers: workload.recompute_layers, ..Default::default() };
    let (training_s, trained) = best_of(workload.repeats, device, || {
        let pass = policy.training_pass(&batch, options)?;
        pass.scores().logprobs.sum(Kind::Float).backward();
        pass.backward();
        anyhow::Ok(())
    });
    trained?;

    let report = serde_json::json!({
        "parameters": policy.parameters().iter().map(|(_, tensor)| tensor.numel()).sum::<usize>(),
        "threads": workload.threads,
        "completion_tokens": batch.completion_tokens(),
        "computed_tokens": batch.input_tokens(),
        // The tokens of each prompt once, however large the group.
        "prefill_tokens": prefilled.prefill_tokens,
        "decode_rows": generated.decode_rows,
        "prefill_s": prefill_s,
        "sampling_s": sampling_s,
        "sampling_tokens_per_s": batch.completion_tokens() as f64 / sampling_s,
        "decode_step_ms": (sampling_s - prefill_s) * 1e3 / (workload.new_tokens - 1).max(1) as f64,
        "scoring_s": scoring_s,
        "forward_backward_s": training_s,
        "training_tokens_per_s": batch.completion_tokens() as f64 / training_s,
        "largest_logprob_gap": gap,
    });
    println!("{report}");
    Ok(())
}

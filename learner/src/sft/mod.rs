//! Supervised fine-tuning (`podium-learner sft`): trains a policy, or its adapter, on the demonstrations of a data
//! set.
//!
//! The loss is the mean negative log-probability of the batch's completion tokens, including the end-of-turn token of
//! each completion; prompt tokens are masked. Prompts use the template of rollouts. The same command on the same
//! hardware writes the same bytes.
//!
//! `[sft]` of the run file defines step sizes, batches and the curriculum; `[learner]` defines the other optimizer
//! settings and libtorch's threads.

mod encoder;
mod file_samples;
mod samples;
mod start;

use std::fs::File;
use std::io::{LineWriter, Write};
use std::path::Path;
use std::sync::mpsc;

use podium_config::RunFile;
use podium_files::durable::{self, Durability};
use podium_grpo::Step;
use podium_model::{GroupTokens, Packed, Policy, TrainingOptions, memory, packed};
use podium_service::progress::Progress;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

pub use encoder::Sample;
pub use file_samples::Error as FileError;
pub use samples::{Error as SamplesError, Samples};
pub use start::{Error as StartError, Start};

use crate::adamw::{self, AdamW};
use crate::lora;
use crate::memory::MicroBatches;
use crate::schedule::{Course, Schedule};

/// Final step size, as a fraction of its peak.
const COSINE_FLOOR: f64 = 0.1;

/// Number of prefetched batches of demonstrations.
const BATCHES_AHEAD: usize = 4;
/// File of the metrics of every step, beside the policy.
const METRICS_FILE: &str = "metrics.jsonl";

/// The reasons why fine-tuning fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no initial policy.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There are no demonstrations.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// A batch does not fit the policy.
    #[error("cannot train on the demonstrations of step {step}")]
    Batch {
        /// The step.
        step: u64,
        /// The cause.
        source: podium_model::packed::Error,
    },
    /// A single demonstration does not fit into the device's memory.
    #[error(
        "step {step} does not fit into the memory of the device with one demonstration at once ({reason}): set \
         learner.recompute_layers, or lower prompt.max_tokens or sft.longest_tokens"
    )]
    Memory {
        /// The step.
        step: u64,
        /// libtorch's message.
        reason: String,
    },
    /// A step was not applied.
    #[error("cannot take step {step}")]
    Optimizer {
        /// The step.
        step: u64,
        /// The cause.
        source: adamw::Error,
    },
    /// The policy cannot be written.
    #[error(transparent)]
    Save(#[from] podium_model::checkpoint::Error),
    /// A file beside the policy cannot be written.
    #[error(transparent)]
    Write(#[from] durable::Error),
}

/// One row of metrics.jsonl.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Row {
    /// The step, from 1.
    pub step: u64,
    /// Mean negative log-probability of the step's completion tokens, in nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Step size.
    pub learning_rate: f64,
    /// Number of completion tokens so far.
    pub num_tokens: u64,
}

/// Fine-tunes the policy of `start` and writes it to `out` in Hugging Face layout, or its adapter in PEFT's layout if
/// the run file trains one, with the tokenizer's files and metrics.jsonl.
///
/// `base`: the folder that the run file's templates are relative to. Returns the last row of the metrics.
pub fn run(
    file: &RunFile,
    base: &Path,
    start: &Start,
    device: Device,
    out: &Path,
) -> Result<Option<Row>, Error> {
    let weights = start.weights(file)?;
    durable::create_folder(out)?;
    start.write_tokenizer(file, out)?;
    let tokenizer = start.folder(file).unwrap_or(out);
    let samples = match &file.sft.rows {
        Some(rows) => Samples::of_file(file, rows, tokenizer)?,
        None => Samples::new(file, base, tokenizer)?,
    };
    let mut policy = weights.policy(file, samples.vocabulary(), device)?;
    let mut trainer = Trainer::new(&mut policy, file);
    let path = out.join(METRICS_FILE);
    let unwritten = |source| durable::Error::Write { path: path.clone(), source };
    let mut metrics = LineWriter::new(File::create(&path).map_err(unwritten)?);
    let mut progress = Progress::new("sft", file.sft.steps);

    let mut last = None;
    std::thread::scope(|scope| {
        let (sender, batches) = mpsc::sync_channel(BATCHES_AHEAD);
        scope.spawn(move || prepare(samples, file, &sender));
        for batch in batches {
            let row = trainer.step(batch?)?;
            writeln!(metrics, "{}", serde_json::json!(row)).map_err(unwritten)?;
            progress.show(row.step, || format!("loss {:.4}  grad_norm {:.3}", row.loss, row.grad_norm));
            last = Some(row);
        }
        Ok::<_, Error>(())
    })?;
    progress.finish();
    metrics.into_inner().map_err(|error| unwritten(error.into_error()))?.sync_all().map_err(unwritten)?;
    let base_model = start.folder(file).map(|folder| folder.display().to_string());
    policy.save_trained(out, base_model, Durability::Durable)?;
    Ok(last)
}

/// Sends the batch of every step, in order, until the run is over or the receiver is closed.
fn prepare(
    mut samples: Samples,
    file: &RunFile,
    batches: &mpsc::SyncSender<Result<Vec<Sample>, SamplesError>>,
) {
    for step in 0..file.sft.steps {
        let full_ranking = step < file.sft.full_ranking_steps;
        let batch = (0..file.sft.batch_size).map(|_| samples.draw(full_ranking)).collect();
        if batches.send(batch).is_err() {
            return;
        }
    }
}

/// A policy under fine-tuning.
#[derive(Debug)]
struct Trainer<'a> {
    policy: &'a mut Policy,
    optimizer: AdamW,
    schedule: Schedule,
    micro_batches: MicroBatches,
    file: RunFile,
    num_tokens: u64,
}

impl<'a> Trainer<'a> {
    fn new(policy: &'a mut Policy, file: &RunFile) -> Self {
        policy.set_training(true);
        let sft = &file.sft;
        let options = adamw::Options { weight_decay: sft.weight_decay, ..(&file.learner).into() };
        Self {
            optimizer: AdamW::new(policy.trainable(), options),
            schedule: Schedule {
                peak: sft.learning_rate,
                warmup_steps: sft.warmup_steps,
                course: Course::Cosine { steps: sft.steps, floor: COSINE_FLOOR },
            },
            micro_batches: MicroBatches::of(sft.micro_batch_size),
            file: file.clone(),
            num_tokens: 0,
            policy,
        }
    }

    fn step(&mut self, mut batch: Vec<Sample>) -> Result<Row, Error> {
        let step = self.optimizer.steps();
        let tokens: usize = batch.iter().map(|sample| sample.completion.len()).sum();
        // Neighbours of similar length need little padding.
        batch.sort_by_key(|sample| (sample.prompt.len(), sample.completion.len()));
        let options = TrainingOptions {
            recompute_layers: self.file.learner.recompute_layers,
            dropout: Some(lora::dropout(&self.file, step)),
            ..TrainingOptions::default()
        };
        let unusable = |source| Error::Batch { step, source };
        let losses = loop {
            let size = self.micro_batches.at(Step(step));
            let compute = || self.accumulate(&batch, size, tokens, options);
            let reason = match memory::attempt(compute) {
                Ok(losses) => break losses.map_err(unusable)?,
                Err(memory::UsedUp(reason)) => reason,
            };
            self.policy.clear_gradients();
            let Some(fewer) = self.micro_batches.halve(Step(step), batch.len())? else {
                return Err(Error::Memory { step, reason });
            };
            tracing::warn!(
                "step {step} does not fit with {size} samples per micro-batch ({reason}): continuing with {fewer}"
            );
        };
        let learning_rate = self.schedule.at(step);
        let stepped = self.optimizer.step(&mut self.policy.take_gradients(), learning_rate);
        let grad_norm = stepped.map_err(|source| Error::Optimizer { step, source })?;
        self.num_tokens += tokens as u64;
        let loss = Tensor::stack(&losses, 0).sum(Kind::Double).double_value(&[]);
        Ok(Row { step: step + 1, loss, grad_norm, learning_rate, num_tokens: self.num_tokens })
    }

    /// Adds the gradients of a batch in micro-batches of `size` samples; returns their losses, whose sum is the mean over
    /// `tokens`.
    fn accumulate(
        &self,
        batch: &[Sample],
        size: usize,
        tokens: usize,
        options: TrainingOptions,
    ) -> Result<Vec<Tensor>, packed::Error> {
        let loss_of = |samples: &[Sample]| {
            #[cfg(test)]
            crate::memory::injected::take(samples.len());
            let packed = Packed::new(&samples.iter().map(Sample::tokens).collect::<Vec<_>>())?;
            let pass = self.policy.training_pass(&packed, options)?;
            let loss = pass.scores().logprobs.sum(Kind::Float) / -(tokens as f64);
            loss.backward();
            pass.backward();
            Ok(loss.detach())
        };
        batch.chunks(size).map(loss_of).collect()
    }
}

impl Sample {
    /// Returns one prompt with one completion in the form of a batch.
    fn tokens(&self) -> GroupTokens<'_> {
        GroupTokens { prompt: &self.prompt, completions: vec![&self.completion] }
    }
}

//! The policy and its tokenizer: converts messages or token ids to completions.
//!
//! The sampler lives on one thread, which owns every tensor. It is independent of the coordinator: the caller
//! passes the version and its folder. Keys and values are dropped at the end of a call, so they never outlive
//! a version.

mod batch;
mod catalogue;
mod complete;
mod likelihood;

use std::cell::{Cell, OnceCell};
use std::path::PathBuf;
use std::sync::Arc;

use podium_config::{Attention, MergeAdapter, Model, Rollout};
use podium_constraint::{Answer, Vocabulary};
use podium_grpo::rng::Stream;
use podium_model::{LoadOptions, Policy, Precision, SharedDevice, checkpoint, device, generate};
use podium_proto::convert::SlotResult;
use podium_recsys::completion::ThinkingStart;
use podium_tokenizer::{Message, Tokenizer, Variables};
use tch::Device;

use crate::lease::{Choices, Lease, Outcome, Task, stream};
use crate::policy_cache::PolicyFolders;
use crate::source::Source;
use batch::Part;
pub(crate) use batch::{Batch, Completed};
pub(crate) use catalogue::{CatalogueTexts, Opening};

/// The reasons why sampling failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The device is unavailable.
    #[error("cannot compute on device {name:?}")]
    Device {
        /// The requested device.
        name: String,
        /// The cause.
        source: device::Error,
    },
    /// The weights cannot be read.
    #[error("cannot load the policy in {}", folder.display())]
    Policy {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: Box<checkpoint::Error>,
    },
    /// The tokenizer cannot be read.
    #[error("cannot load the tokenizer in {}", folder.display())]
    Tokenizer {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: podium_tokenizer::Error,
    },
    /// The model has no stop token.
    #[error(transparent)]
    Stop(podium_tokenizer::Error),
    /// A prompt cannot be tokenized.
    #[error("cannot tokenize the messages of {what}")]
    Prompt {
        /// The prompt.
        what: String,
        /// The cause.
        source: podium_tokenizer::Error,
    },
    /// The answer cannot be constrained to the choices of a prompt.
    #[error("cannot constrain the answer to {what} to its choices")]
    Choices {
        /// The prompt.
        what: String,
        /// The cause.
        source: podium_constraint::Error,
    },
    /// A choice cannot be scored.
    #[error("the tokenizer has no tokens for the choice {choice:?} of {what}")]
    NoTokens {
        /// The prompt.
        what: String,
        /// The choice's text.
        choice: String,
    },
    /// A catalogue without items.
    #[error("the catalogue has no items to rank: expected at least one")]
    NoItems,
    /// Prompts and the continuations of a catalogue do not fit into the device's memory.
    #[error(
        "prompts with the items of the catalogue do not fit into the memory of the device ({reason}): lower \
         evaluation.prompts_per_lease, or use a larger GPU"
    )]
    Prompts {
        /// libtorch's message.
        reason: String,
    },
    /// Choices cannot be scored.
    #[error("cannot score the choices of prompts")]
    Likelihood(#[from] podium_model::packed::Error),
    /// The tokenizer does not expose the texts of its tokens.
    #[error("cannot constrain answers")]
    Vocabulary(#[source] podium_tokenizer::Error),
    /// Sampled ids cannot be decoded.
    #[error("cannot decode sampled tokens")]
    Text(#[source] podium_tokenizer::Error),
    /// No policy is loaded yet.
    #[error("no policy is loaded")]
    Empty,
    /// Another version is loaded.
    #[error("the lease requires {wanted}, but {loaded} is loaded")]
    Version {
        /// The lease's version.
        wanted: Source,
        /// The loaded version.
        loaded: Source,
    },
    /// Sampling failed.
    #[error(transparent)]
    Generate(#[from] generate::Error),
    /// A single completion does not fit into the device's memory.
    #[error(
        "one completion does not fit into the memory of the device ({reason}): lower prompt.max_tokens or \
         rollout.max_new_tokens, or use a larger GPU"
    )]
    Memory {
        /// libtorch's message.
        reason: String,
    },
}

/// The state of the thread that samples.
#[derive(Debug)]
pub(crate) struct Sampler {
    options: LoadOptions,
    /// The device, if another thread of this process uses it too.
    shared: Option<SharedDevice>,
    variables: Variables,
    /// Whether an adapter is merged into a copy of the weights.
    merges: bool,
    loaded: Option<Loaded>,
    /// Maximum number of prompt tokens that are computed at once.
    prefill_tokens: usize,
    /// What is sampled at once; smaller after the device's memory was exhausted.
    part: Cell<Part>,
    /// How many answers are scored at once, likewise.
    questions: Cell<usize>,
}

#[derive(Debug)]
struct Loaded {
    source: Source,
    policy: Policy,
    /// The policy with its adapter merged into the weights, to sample from.
    merged: Option<Policy>,
    tokenizer: Tokenizer,
    /// Created when answers are first constrained.
    vocabulary: OnceCell<Arc<Vocabulary>>,
}

impl Loaded {
    /// Returns the policy to sample from.
    fn policy(&self) -> &Policy {
        self.merged.as_ref().unwrap_or(&self.policy)
    }

    fn vocabulary(&self) -> Result<Arc<Vocabulary>, Error> {
        if let Some(vocabulary) = self.vocabulary.get() {
            return Ok(vocabulary.clone());
        }
        let texts = self.tokenizer.token_texts().map_err(Error::Vocabulary)?;
        let vocabulary = Arc::new(Vocabulary::new(&texts, self.tokenizer.stop_token_ids()));
        Ok(self.vocabulary.get_or_init(|| vocabulary).clone())
    }
}

/// A conversation, rendered by the chat template.
#[derive(Debug)]
pub(crate) struct Prompt {
    text: String,
    /// Its token ids.
    pub(crate) ids: Vec<u32>,
}

impl Sampler {
    /// Creates the sampler of the calling thread, with the threads and the prefill of `rollout` on the device `device`.
    /// `variables`: the variables of the chat template.
    pub(crate) fn new(
        device: &str,
        model: &Model,
        rollout: &Rollout,
        variables: Variables,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Device { name: device.to_owned(), source };
        let device = device::parse(device).map_err(failed)?;
        device::set_threads(rollout.threads as usize).map_err(failed)?;
        let bfloat16 = model.dtype.bfloat16();
        device::check_bfloat16(device, bfloat16, model.emulate_bfloat16).map_err(failed)?;
        let options = LoadOptions::new(device, bfloat16)
            .with_materialized_attention(model.attention == Attention::Materialized);
        let merges = match rollout.merge_adapter {
            MergeAdapter::Auto => options.precision == Precision::Float32,
            MergeAdapter::Always => true,
            MergeAdapter::Never => false,
        };
        Ok(Self {
            merges,
            options,
            shared: None,
            variables,
            loaded: None,
            prefill_tokens: rollout.prefill_tokens as usize,
            part: Cell::new(Part::WHOLE),
            questions: Cell::new(usize::MAX),
        })
    }

    /// Shares the model's weights with the other policies of a device.
    pub(crate) fn sharing(self, shared: Option<SharedDevice>) -> Self {
        Self { shared, ..self }
    }

    /// Returns the device's name: `cpu`, `cuda:0`, …
    pub(crate) fn device_name(&self) -> String {
        match self.options.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    /// Returns the loaded version.
    pub(crate) fn source(&self) -> Option<Source> {
        self.loaded.as_ref().map(|loaded| loaded.source)
    }

    /// Loads the version `source` from `place`.
    ///
    /// The versions of a run share architecture and tokenizer, so later loads only assign weights.
    pub(crate) fn load(&mut self, source: Source, place: &PolicyFolders) -> Result<(), Error> {
        if self.source() == Some(source) {
            return Ok(());
        }
        let PolicyFolders { version: folder, model } = place;
        let failed = |source| Error::Policy { folder: folder.to_owned(), source: Box::new(source) };
        // Taken out, because partially assigned weights must not be used if the assignment fails.
        let mut loaded = if let Some(mut loaded) = self.loaded.take() {
            loaded.merged = None;
            loaded.policy.assign_from(folder).map_err(failed)?;
            Loaded { source, ..loaded }
        } else {
            let load = match &self.shared {
                Some(device) => Policy::load_shared(model, self.options, device),
                None => Policy::load(model, self.options),
            };
            let mut policy = load.map_err(failed)?;
            if folder != model {
                policy.assign_from(folder).map_err(failed)?;
            }
            let tokenizer = Tokenizer::load(model)
                .map_err(|source| Error::Tokenizer { folder: model.to_owned(), source })?;
            Loaded { source, policy, merged: None, tokenizer, vocabulary: OnceCell::new() }
        };
        if self.merges {
            loaded.merged = loaded.policy.merged();
        }
        self.loaded = Some(loaded);
        Ok(())
    }

    /// Fails if the policy has no stop token.
    pub(crate) fn check_stop_tokens(&self) -> Result<(), Error> {
        let Loaded { tokenizer, .. } = self.loaded.as_ref().ok_or(Error::Empty)?;
        tokenizer.check_stop_tokens().map_err(Error::Stop)
    }

    /// Samples a lease; returns `None` if `stop` returned true before the end.
    pub(crate) fn sample(&self, lease: &Lease, stop: &dyn Fn() -> bool) -> Result<Option<Outcome>, Error> {
        let source = self.source().ok_or(Error::Empty)?;
        if source != lease.source {
            return Err(Error::Version { wanted: lease.source, loaded: source });
        }
        let (mut prompts, mut starts) = (Vec::new(), Vec::new());
        for task in &lease.tasks {
            let what = || task.slot.to_string();
            let prompt = self.prompt(&task.messages, what)?;
            if lease.needs_choices() {
                starts.push(self.thinking_start(&prompt, &task.messages, what)?);
            }
            prompts.push(prompt.ids);
        }
        let streams = |slot| (0..lease.group_size).map(|sample| stream(lease.seed, slot, sample)).collect();
        let streams: Vec<Vec<Stream>> = lease.tasks.iter().map(|task| streams(task.slot)).collect();
        let mut answers = Vec::new();
        if lease.constrain_answers {
            for (task, start) in lease.tasks.iter().zip(&starts) {
                let choices = task.choices.as_ref();
                answers.extend(choices.map(|choices| self.answer(choices, *start, task)).transpose()?);
            }
        }
        let batch = Batch {
            prompts: &prompts,
            streams: &streams,
            samples: 0..lease.group_size,
            sampling: &lease.sampling,
            answers: &answers,
            ignore_stop: false,
        };
        let Some(Completed { groups, cost }) = self.complete(&batch, stop)? else { return Ok(None) };
        let Some(scores) = self.choice_logprobs(lease, (&prompts, &starts), &groups, stop)? else {
            return Ok(None);
        };
        let results = lease.tasks.iter().zip(prompts).zip(groups.into_iter().zip(scores)).map(
            |((task, prompt_ids), (completions, choice_logprobs))| SlotResult {
                slot: task.slot,
                prompt_ids,
                completions,
                choice_logprobs,
            },
        );
        Ok(Some(Outcome { source, results: results.collect(), cost }))
    }

    /// Returns the answers to a task that list `choices`, spelled as tokens.
    fn answer(&self, choices: &Choices, start: ThinkingStart, task: &Task) -> Result<Answer, Error> {
        let tokenizer = &self.loaded.as_ref().ok_or(Error::Empty)?.tokenizer;
        let items = choices.items.iter().map(|item| tokenizer.normalized(item));
        let items = items.collect::<Result<_, _>>().map_err(Error::Vocabulary)?;
        let spelled = Choices { items, ..choices.clone() };
        spelled.answer(start).map_err(|source| Error::Choices { what: task.slot.to_string(), source })
    }

    /// Renders a conversation for the policy to continue; `what` names it in errors.
    pub(crate) fn prompt(
        &self,
        messages: &[Message],
        what: impl FnOnce() -> String,
    ) -> Result<Prompt, Error> {
        let tokenizer = &self.loaded.as_ref().ok_or(Error::Empty)?.tokenizer;
        let rendered = tokenizer.render(messages, &self.variables);
        let prompt = rendered.and_then(|text| Ok(Prompt { ids: tokenizer.encode(&text)?, text }));
        prompt.map_err(|source| Error::Prompt { what: what(), source })
    }

    /// Returns the state of the think block at the end of the prompt that `messages` were rendered as; `what`
    /// names the prompt in errors.
    pub(crate) fn thinking_start(
        &self,
        prompt: &Prompt,
        messages: &[Message],
        what: impl FnOnce() -> String,
    ) -> Result<ThinkingStart, Error> {
        let tokenizer = &self.loaded.as_ref().ok_or(Error::Empty)?.tokenizer;
        let end = tokenizer.generation_prompt_of(&prompt.text, messages, &self.variables);
        let end = end.map_err(|source| Error::Prompt { what: what(), source })?;
        Ok(ThinkingStart::of(&end))
    }
}

#[cfg(test)]
mod tests;

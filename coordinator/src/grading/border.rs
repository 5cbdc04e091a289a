//! Checks of submitted results before they are graded or stored: against the policy's `config.json`, against
//! the prompt that the policy's own tokenizer and chat template render, and against the limits of the run
//! file.
//!
//! `podium_proto::convert` checks the format (lengths, finite numbers, ascending ends). The coordinator
//! computes no model: the learner recomputes log-probabilities and detects wrong ones.

use std::path::Path;
use std::sync::Arc;

use podium_checkpoint::{Config, config};
use podium_config::RunFile;
use podium_grpo::Completion;
use podium_proto::convert::{Slot, SlotResult};
use podium_recsys::task::{self, Case};
use podium_tokenizer::Chat;

use super::sampling::SamplingByWork;
use crate::curriculum::Curriculum;
use crate::machine::Work;

/// The lowest log-probability of a sampled token, in nats. Below it the probability is 0 in float32, and such
/// a token is never sampled (`ln` of the smallest float32 is −103.3).
const LEAST_LOGPROB: f32 = -104.0;

/// The reasons why a submitted result is unusable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The number of completions differs from the requested one.
    #[error("{slot} has {found} completions: expected {expected}")]
    Count {
        /// The slot.
        slot: Slot,
        /// Number of completions of the result.
        found: usize,
        /// `rollout.group_size`, or 1 for evaluation.
        expected: u32,
    },
    /// A completion is too long.
    #[error(
        "a completion of {slot} has {found} tokens: expected at most {expected} (rollout.max_new_tokens)"
    )]
    Length {
        /// The slot.
        slot: Slot,
        /// Number of tokens of the completion.
        found: usize,
        /// `rollout.max_new_tokens`.
        expected: u32,
    },
    /// The number of scored candidates differs from the requested one.
    #[error("{slot} has scores of {found} candidates: expected {expected}")]
    Choices {
        /// The slot.
        slot: Slot,
        /// Number of scored candidates.
        found: usize,
        /// Number of candidates to score.
        expected: usize,
    },
    /// The slot has no prompt.
    #[error("there is no prompt for {slot}")]
    Case {
        /// The slot.
        slot: Slot,
        /// The cause.
        source: task::Error,
    },
    /// The slot's prompt cannot be rendered.
    #[error("cannot render the prompt of {slot}")]
    Render {
        /// The slot.
        slot: Slot,
        /// The cause.
        source: podium_tokenizer::Error,
    },
    /// The prompt differs from the slot's prompt.
    #[error(
        "{slot} has a prompt of {found} token ids that differs at position {position} from the {expected} ids that the \
         policy's tokenizer and chat template render: expected the same ids"
    )]
    Prompt {
        /// The slot.
        slot: Slot,
        /// Number of ids of the submitted prompt.
        found: usize,
        /// Number of ids of the rendered prompt.
        expected: usize,
        /// The first position that differs.
        position: usize,
    },
    /// The policy has no token with this id.
    #[error(
        "completion {completion} of {slot} has token id {token}: expected ids below {vocab_size} (vocab_size of the policy's \
         config.json)"
    )]
    Vocabulary {
        /// The slot.
        slot: Slot,
        /// Index of the completion.
        completion: usize,
        /// The id.
        token: u32,
        /// The policy's `vocab_size`.
        vocab_size: u32,
    },
    /// Prompt and completion have more tokens than the policy has positions.
    #[error(
        "{slot} has {found} tokens in prompt and completion: expected at most {expected} (max_position_embeddings of the \
         policy's config.json)"
    )]
    Positions {
        /// The slot.
        slot: Slot,
        /// Number of tokens of the prompt and its longest completion.
        found: usize,
        /// The policy's `max_position_embeddings`.
        expected: usize,
    },
    /// A sampled token cannot have this log-probability.
    #[error(
        "completion {completion} of {slot} has log-probability {logprob:e} at position {position}: expected at least \
         {LEAST_LOGPROB}, below which the probability is 0 in float32"
    )]
    Impossible {
        /// The slot.
        slot: Slot,
        /// Index of the completion.
        completion: usize,
        /// Position of the token.
        position: usize,
        /// Its log-probability.
        logprob: f32,
    },
    /// Tokens were restricted in a run without restrictions.
    #[error(
        "completion {completion} of {slot} was sampled from restricted sets of tokens: expected none, since \
         rollout.constrain_answers is false"
    )]
    Restricted {
        /// The slot.
        slot: Slot,
        /// Index of the completion.
        completion: usize,
    },
}

/// The checks of submitted results.
#[derive(Debug)]
pub struct Border {
    sampling: SamplingByWork,
    chat: Arc<Chat>,
    vocab_size: u32,
    max_positions: usize,
}

impl Border {
    /// Opens the checks of a run whose policy version 0, with its tokenizer and chat template, is in
    /// `folder`. All versions share its configuration and tokenizer.
    pub fn open(file: &RunFile, folder: &Path, chat: Arc<Chat>) -> Result<Self, config::Error> {
        let config = Config::load(folder)?;
        Ok(Self {
            sampling: SamplingByWork::of(file),
            chat,
            // Both were checked to be positive and far below the limits of these types.
            vocab_size: u32::try_from(config.vocab_size).unwrap_or(u32::MAX),
            max_positions: usize::try_from(config.max_position_embeddings).unwrap_or(usize::MAX),
        })
    }

    /// Returns the sampling parameters of the run.
    pub(super) const fn sampling(&self) -> &SamplingByWork {
        &self.sampling
    }

    /// Checks a result, and returns the case of its slot.
    ///
    /// The prompt is rendered again for each result instead of being stored with the lease. This takes about
    /// a millisecond on a blocking thread, compared with seconds of sampling, and results may arrive long
    /// after their lease, or after a restart.
    pub fn check(&self, curriculum: &Curriculum, result: &SlotResult) -> Result<Case, Error> {
        let slot = result.slot;
        self.check_counts(result)?;
        for (index, completion) in result.completions.iter().enumerate() {
            self.check_completion(slot, index, completion)?;
        }
        let case = curriculum.case(slot).map_err(|source| Error::Case { slot, source })?;
        self.check_choices(&case, result)?;
        self.check_prompt(&case, result)?;
        Ok(case)
    }

    fn check_counts(&self, result: &SlotResult) -> Result<(), Error> {
        let slot = result.slot;
        let sampling = self.sampling.for_work(Work::of(slot).0);
        let found = result.completions.len();
        if found != sampling.group_size as usize {
            return Err(Error::Count { slot, found, expected: sampling.group_size });
        }
        let longest = result.completions.iter().map(Completion::len).max().unwrap_or(0);
        let expected = sampling.max_new_tokens;
        if longest > expected as usize {
            return Err(Error::Length { slot, found: longest, expected });
        }
        let (found, expected) = (result.prompt_ids.len().saturating_add(longest), self.max_positions);
        if found > expected {
            return Err(Error::Positions { slot, found, expected });
        }
        Ok(())
    }

    fn check_completion(&self, slot: Slot, index: usize, completion: &Completion) -> Result<(), Error> {
        let vocab_size = self.vocab_size;
        let sets = completion.allowed.iter().flat_map(|allowed| &allowed.token_ids);
        let outside = completion.token_ids.iter().chain(sets).find(|&&token| token >= vocab_size);
        if let Some(&token) = outside {
            return Err(Error::Vocabulary { slot, completion: index, token, vocab_size });
        }
        if !(completion.allowed.is_empty() || self.sampling.for_work(Work::of(slot).0).constrain_answers) {
            return Err(Error::Restricted { slot, completion: index });
        }
        let is_impossible = |logprob: &f32| logprob.is_nan() || *logprob < LEAST_LOGPROB;
        let impossible = completion.logprobs.iter().position(is_impossible);
        match impossible {
            Some(position) => {
                let logprob = completion.logprobs[position];
                Err(Error::Impossible { slot, completion: index, position, logprob })
            }
            None => Ok(()),
        }
    }

    /// Checks that every candidate is scored if the run requires it, and none otherwise.
    fn check_choices(&self, case: &Case, result: &SlotResult) -> Result<(), Error> {
        let slot = result.slot;
        let asked = self.sampling.for_work(Work::of(slot).0).likelihood.is_some();
        let expected = if asked { case.candidates.len() } else { 0 };
        match result.choice_logprobs.iter().map(Vec::len).find(|found| *found != expected) {
            Some(found) => Err(Error::Choices { slot, found, expected }),
            None => Ok(()),
        }
    }

    fn check_prompt(&self, case: &Case, result: &SlotResult) -> Result<(), Error> {
        let slot = result.slot;
        let rendered = self.chat.encode(case.prompt.messages());
        let rendered = rendered.map_err(|source| Error::Render { slot, source })?;
        let found = &result.prompt_ids;
        if *found == rendered {
            return Ok(());
        }
        let same = found.iter().zip(&rendered).take_while(|(found, expected)| found == expected).count();
        Err(Error::Prompt { slot, found: found.len(), expected: rendered.len(), position: same })
    }
}

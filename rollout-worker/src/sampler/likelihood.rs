//! Probability of each choice of a prompt as the next listed item, which ranks all choices.
//!
//! The choices of a prompt are short continuations that share the keys and values of the text before the list.

use podium_grpo::Completion;
use podium_model::{Entropy, GroupTokens, Packed, Policy, memory};
use podium_proto::v1;
use podium_recsys::completion::ThinkingStart;

use super::catalogue::Opening;
use super::{Error, Sampler};
use crate::lease::{Choices, Lease};
use crate::metrics;

/// Maximum number of tokens per pass, unless a single prompt has more.
const TOKENS_A_PASS: usize = 8192;

/// A prompt with its reasoning, and the continuation of each choice.
struct Question {
    prefix: Vec<u32>,
    continuations: Vec<Vec<u32>>,
}

impl Question {
    fn tokens(&self) -> usize {
        self.prefix.len() + self.continuations.iter().map(Vec::len).sum::<usize>()
    }
}

impl Sampler {
    /// For each task and completion the log-probability of each of the task's choices, in nats at temperature 1;
    /// empty unless the lease requests it. `None` if `stop` returned true before the end.
    pub(super) fn choice_logprobs(
        &self,
        lease: &Lease,
        (prompts, starts): (&[Vec<u32>], &[ThinkingStart]),
        groups: &[Vec<Completion>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<Vec<Vec<f64>>>>, Error> {
        let Some(likelihood) = lease.likelihood else {
            return Ok(Some(vec![Vec::new(); groups.len()]));
        };
        let loaded = self.loaded.as_ref().ok_or(Error::Empty)?;
        let mut questions = Vec::new();
        let prompts = prompts.iter().zip(starts);
        for ((task, (prompt, start)), group) in lease.tasks.iter().zip(prompts).zip(groups) {
            let Some(choices) = &task.choices else { continue };
            for completion in group {
                let completion = (!likelihood.without_reasoning).then_some(completion);
                questions
                    .push(self.question(choices, (prompt, *start), completion, || task.slot.to_string())?);
            }
        }
        let mut logprobs = Vec::with_capacity(questions.len());
        let mut rest = questions.as_slice();
        while !rest.is_empty() {
            if stop() {
                return Ok(None);
            }
            let size = of_one_pass(rest).min(self.questions.get());
            let (pass, after) = rest.split_at(size);
            match memory::attempt(|| score(loaded.policy(), pass, likelihood)) {
                Ok(scores) => logprobs.extend(scores?),
                Err(memory::UsedUp(reason)) if size == 1 => return Err(Error::Memory { reason }),
                Err(memory::UsedUp(reason)) => {
                    tracing::warn!(
                        "{size} answers at once do not fit into the memory of the device ({reason})"
                    );
                    metrics::out_of_memory();
                    self.questions.set(size / 2);
                    continue;
                }
            }
            rest = after;
        }
        let mut logprobs = logprobs.into_iter();
        Ok(Some(groups.iter().map(|group| logprobs.by_ref().take(group.len()).collect()).collect()))
    }

    /// Returns the prefix and the tokens of the choices, with the tokens before the first listed item of
    /// [`Self::opening`].
    fn question(
        &self,
        choices: &Choices,
        (prompt, start): (&[u32], ThinkingStart),
        completion: Option<&Completion>,
        what: impl Fn() -> String,
    ) -> Result<Question, Error> {
        let loaded = self.loaded.as_ref().ok_or(Error::Empty)?;
        let Opening { prefix, gap } = self.opening(choices, (prompt, start), completion, &what)?;
        let continuation = |choice: &String| {
            let tokens = loaded.tokenizer.encode(&format!("{gap}{choice}"));
            match tokens.map_err(|source| Error::Prompt { what: what(), source }) {
                Ok(tokens) if tokens.is_empty() => {
                    Err(Error::NoTokens { what: what(), choice: choice.clone() })
                }
                tokens => tokens,
            }
        };
        let continuations = choices.items.iter().map(continuation).collect::<Result<_, _>>()?;
        Ok(Question { prefix, continuations })
    }
}

/// Returns the number of leading questions for one pass: with equal numbers of continuations, within the token limit.
fn of_one_pass(questions: &[Question]) -> usize {
    let mut tokens = 0;
    let fits = |question: &&Question| {
        tokens += question.tokens();
        tokens <= TOKENS_A_PASS && question.continuations.len() == questions[0].continuations.len()
    };
    questions.iter().take_while(fits).count().max(1)
}

fn score(
    policy: &Policy,
    questions: &[Question],
    likelihood: v1::Likelihood,
) -> Result<Vec<Vec<f64>>, podium_model::packed::Error> {
    let mut groups = Vec::with_capacity(questions.len());
    for Question { prefix, continuations } in questions {
        groups.push(GroupTokens {
            prompt: prefix,
            completions: continuations.iter().map(Vec::as_slice).collect(),
        });
    }
    let packed = Packed::new(&groups)?;
    let scores = policy.score(&packed, 1.0, Entropy::Skipped)?;
    let logprobs = Vec::<f32>::try_from(scores.logprobs.to_device(tch::Device::Cpu));
    let mut logprobs = logprobs.expect("a vector of floats").into_iter();
    let mut of_continuation = |tokens: &Vec<u32>| {
        let sum: f64 = logprobs.by_ref().take(tokens.len()).map(f64::from).sum();
        if likelihood.per_token { sum / tokens.len() as f64 } else { sum }
    };
    Ok(questions.iter().map(|one| one.continuations.iter().map(&mut of_continuation).collect()).collect())
}

#[cfg(test)]
mod tests;

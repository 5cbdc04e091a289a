//! Completions, with the sets that their tokens were sampled from.

use podium_grpo::group::Allowed;
use podium_grpo::{Completion, FinishReason};

use super::{Error, TryFromMessage};
use crate::v1;

impl TryFromMessage<v1::Completion> for Completion {
    fn try_from_message(message: v1::Completion) -> Result<Self, Error> {
        let tokens = message.token_ids.len();
        let check = |field, logprobs: &[f32]| {
            if logprobs.len() != tokens {
                return Err(Error::Length { field, found: logprobs.len(), expected: tokens, of: "token id" });
            }
            match logprobs.iter().find(|value| !value.is_finite() || **value > 1e-3) {
                Some(value) => Err(Error::invalid(field, value, "a finite log-probability of at most 0")),
                None => Ok(()),
            }
        };
        check("Completion.logprobs", &message.logprobs)?;
        if !message.sampled_logprobs.is_empty() {
            check("Completion.sampled_logprobs", &message.sampled_logprobs)?;
        }
        let finish_reason = match message.finish_reason() {
            v1::FinishReason::Stop => FinishReason::Stop,
            v1::FinishReason::Length => FinishReason::Length,
            v1::FinishReason::Unspecified => {
                return Err(Error::invalid(
                    "Completion.finish_reason",
                    &message.finish_reason,
                    "STOP or LENGTH",
                ));
            }
        };
        check_text_ends(&message.text_ends, tokens, &message.text)?;
        let allowed = allowed(message.allowed, &message.token_ids)?;
        let sampled = message.sampled_logprobs;
        Ok(Self {
            token_ids: message.token_ids,
            text: message.text,
            text_ends: message.text_ends,
            logprobs: message.logprobs,
            sampled_logprobs: (!sampled.is_empty()).then_some(sampled),
            allowed,
            finish_reason,
        })
    }
}

/// One end for each token, ascending to the end of the text.
fn check_text_ends(ends: &[u32], tokens: usize, text: &str) -> Result<(), Error> {
    let field = "Completion.text_ends";
    if ends.len() != tokens {
        return Err(Error::Length { field, found: ends.len(), expected: tokens, of: "token id" });
    }
    if let Some((before, end)) = ends.iter().zip(ends.iter().skip(1)).find(|(before, end)| end < before) {
        return Err(Error::invalid(field, &format!("{end} after {before}"), "ascending"));
    }
    match ends.last() {
        Some(&last) if last as usize != text.len() => {
            Err(Error::invalid(field, &last, "the length of the text at the last token"))
        }
        _ => Ok(()),
    }
}

/// Checks the sets that tokens of a completion were sampled from.
fn allowed(messages: Vec<v1::Allowed>, token_ids: &[u32]) -> Result<Vec<Allowed>, Error> {
    let mut next = 0;
    let mut allowed = Vec::with_capacity(messages.len());
    for v1::Allowed { position, token_ids: set } in messages {
        let sampled = token_ids.get(position as usize).filter(|_| position >= next);
        let Some(sampled) = sampled else {
            let expected = "ascending positions of the completion's tokens";
            return Err(Error::invalid("Allowed.position", &position, expected));
        };
        if !set.windows(2).all(|pair| pair[0] < pair[1]) || set.binary_search(sampled).is_err() {
            let expected = "ascending, with the sampled token";
            return Err(Error::invalid("Allowed.token_ids", &format!("{set:?} for {sampled}"), expected));
        }
        next = position.saturating_add(1);
        allowed.push(Allowed { position, token_ids: set });
    }
    Ok(allowed)
}

impl From<Completion> for v1::Completion {
    fn from(completion: Completion) -> Self {
        let finish_reason = match completion.finish_reason {
            FinishReason::Stop => v1::FinishReason::Stop,
            FinishReason::Length => v1::FinishReason::Length,
        };
        Self {
            token_ids: completion.token_ids,
            text: completion.text,
            text_ends: completion.text_ends,
            logprobs: completion.logprobs,
            sampled_logprobs: completion.sampled_logprobs.unwrap_or_default(),
            finish_reason: finish_reason.into(),
            allowed: completion
                .allowed
                .into_iter()
                .map(|Allowed { position, token_ids }| v1::Allowed { position, token_ids })
                .collect(),
            choice_logprobs: Vec::new(),
        }
    }
}

//! Log-probabilities of all items of a catalogue as the next listed item, which rank the catalogue for each prompt.

use std::collections::BTreeMap;

use podium_constraint::reasoning_end;
use podium_grpo::Completion;
use podium_model::Continuations;
use podium_recsys::completion::ThinkingStart;

use super::{Error, Loaded, Sampler};
use crate::lease::Choices;

/// The texts of all items, and their tokens after each separator.
#[derive(Debug)]
pub(crate) struct CatalogueTexts {
    items: Vec<String>,
    after: BTreeMap<&'static str, Continuations>,
}

/// A prompt with its reasoning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opening {
    /// The tokens before the first listed item.
    pub(crate) prefix: Vec<u32>,
    /// The separator between them and the item.
    pub(crate) gap: &'static str,
}

impl CatalogueTexts {
    /// Creates it from the text of each item, as an answer lists it.
    pub(crate) fn new(items: Vec<String>) -> Self {
        Self { items, after: BTreeMap::new() }
    }

    /// Returns the tokens after a separator.
    fn after(&mut self, gap: &'static str, loaded: &Loaded) -> Result<&Continuations, Error> {
        if !self.after.contains_key(gap) {
            let what = || "the catalogue".to_owned();
            let encode = |item: &String| {
                let tokens = loaded.tokenizer.encode(&format!("{gap}{item}"));
                let tokens = tokens.map_err(|source| Error::Prompt { what: what(), source })?;
                let empty = || Error::NoTokens { what: what(), choice: item.clone() };
                if tokens.is_empty() { Err(empty()) } else { Ok(tokens) }
            };
            let tokens = self.items.iter().map(encode).collect::<Result<_, _>>()?;
            self.after.insert(gap, Continuations::new(tokens).ok_or(Error::NoItems)?);
        }
        Ok(&self.after[gap])
    }
}

impl Sampler {
    /// Returns the tokens before the first listed item, without a completion whose reasoning ends with empty reasoning.
    /// `start`: state of the think block at the end of the prompt.
    pub(crate) fn opening(
        &self,
        choices: &Choices,
        (prompt, start): (&[u32], ThinkingStart),
        completion: Option<&Completion>,
        what: impl Fn() -> String,
    ) -> Result<Opening, Error> {
        let loaded = self.loaded.as_ref().ok_or(Error::Empty)?;
        let reasoning = match completion {
            Some(completion) => reasoning(loaded, choices, start, completion, &what)?,
            None => None,
        };
        let layout = choices.layout();
        let (_, gap) = podium_recsys::completion::white_space(layout);
        let (head, gap) = match (reasoning, start) {
            (Some(reasoning), _) => (reasoning.to_vec(), gap),
            (None, ThinkingStart::Absent) if !choices.after_thinking => (Vec::new(), ""),
            (None, ThinkingStart::Closed { spaced: true }) => (Vec::new(), ""),
            (None, start) => {
                let block = podium_recsys::completion::empty_block(start, layout);
                let tokens = loaded.tokenizer.encode(&block);
                (tokens.map_err(|source| Error::Prompt { what: what(), source })?, gap)
            }
        };
        Ok(Opening { prefix: [prompt, &head].concat(), gap })
    }

    /// Returns the log-probability of each item of the catalogue after each opening, in nats at temperature 1;
    /// `per_token`: divided by its number of tokens.
    pub(crate) fn catalogue_logprobs(
        &self,
        openings: &[Opening],
        texts: &mut CatalogueTexts,
        per_token: bool,
    ) -> Result<Vec<Vec<f64>>, Error> {
        let loaded = self.loaded.as_ref().ok_or(Error::Empty)?;
        let mut all = vec![Vec::new(); openings.len()];
        let mut by_gap: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
        for (index, opening) in openings.iter().enumerate() {
            by_gap.entry(opening.gap).or_default().push(index);
        }
        for (gap, indices) in by_gap {
            let prefixes: Vec<Vec<u32>> =
                indices.iter().map(|&index| openings[index].prefix.clone()).collect();
            let continuations = texts.after(gap, loaded)?;
            let policy = loaded.policy();
            let scores = podium_model::memory::attempt(|| {
                policy.continuation_logprobs(&prefixes, continuations, self.prefill_tokens)
            });
            let mut scores =
                scores.map_err(|podium_model::memory::UsedUp(reason)| Error::Prompts { reason })??;
            if per_token {
                for scores in &mut scores {
                    scores.iter_mut().zip(continuations.lengths()).for_each(|(score, n)| *score /= n as f64);
                }
            }
            indices.into_iter().zip(scores).for_each(|(index, scores)| all[index] = scores);
        }
        Ok(all)
    }
}

/// Returns the tokens of a completion's reasoning, if it ends.
fn reasoning<'a>(
    loaded: &Loaded,
    choices: &Choices,
    start: ThinkingStart,
    completion: &'a Completion,
    what: impl Fn() -> String,
) -> Result<Option<&'a [u32]>, Error> {
    let answer = choices.answer(start).map_err(|source| Error::Choices { what: what(), source })?;
    let end = reasoning_end(&*loaded.vocabulary()?, &answer, &completion.token_ids);
    Ok(end.map(|end| &completion.token_ids[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::tests::loaded;

    #[test]
    fn items_score_the_same_as_separately() {
        let sampler = loaded(1);
        let items = ["a b", "c", "d e f", "g"];
        let tokens: [&[u32]; 4] = [&[5, 6], &[7], &[8, 9, 10], &[11]];
        let mut texts = CatalogueTexts::new(items.map(str::to_owned).into());
        let openings = [
            Opening { prefix: vec![2, 4, 5, 6, 3, 4], gap: "" },
            Opening { prefix: vec![2, 4, 7, 12, 5, 13], gap: " " },
            Opening { prefix: vec![2, 4, 7], gap: "" },
        ];
        for per_token in [false, true] {
            let scores = sampler.catalogue_logprobs(&openings, &mut texts, per_token).unwrap();
            for (opening, scores) in openings.iter().zip(scores) {
                for (found, tokens) in scores.iter().zip(tokens) {
                    let sequence = [&opening.prefix[..], tokens].concat();
                    let policy = &sampler.loaded.as_ref().unwrap().policy;
                    let logprobs = policy.plain_logprobs(&sequence).unwrap();
                    let sum: f64 = logprobs[opening.prefix.len() - 1..].iter().copied().map(f64::from).sum();
                    let expected = if per_token { sum / tokens.len() as f64 } else { sum };
                    assert!((found - expected).abs() < 1e-5, "{opening:?}: {found}, expected {expected}");
                }
            }
        }
    }

    #[test]
    fn a_catalogue_without_usable_items_is_refused() {
        let opening = [Opening { prefix: vec![2], gap: "" }];
        let error = |items: &[&str]| {
            let mut texts = CatalogueTexts::new(items.iter().map(|item| (*item).to_owned()).collect());
            loaded(1).catalogue_logprobs(&opening, &mut texts, false).unwrap_err().to_string()
        };
        assert!(error(&[]).contains("no items"));
        assert!(error(&["a", " "]).contains("no tokens for the choice \" \" of the catalogue"));
    }
}

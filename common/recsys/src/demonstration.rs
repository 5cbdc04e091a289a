//! Completions for the policy to imitate in supervised fine-tuning.
//!
//! Reasoning goes where a policy would write it, into the completion's think block; it never becomes part of a prompt.

use std::collections::BTreeSet;

use podium_grpo::rng::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::completion;
use crate::dataset::Catalogue;
use crate::ids::ItemId;
use crate::prompt::Prompt;
use crate::task::{Case, Error, Task};

/// What the policy imitates: `[demonstration]` of the run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Share of the training users whose reasoning is shown, drawn with the run's seed; the others are answered without
    /// reasoning, or left out where `answer.require_thinking` holds. Between 0 and 1. No reasoning is shown where the chat
    /// template closes the think block in the prompt.
    pub reasoning_share: f64,
    /// What is ranked first.
    pub ranking: Ranking,
}

impl Default for Options {
    fn default() -> Self {
        Self { reasoning_share: 1.0, ranking: Ranking::TargetFirst }
    }
}

/// What a demonstration ranks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ranking {
    /// The target, and then candidates in the order of the prompt.
    TargetFirst,
    /// The candidates whose captions (or titles, where there is no caption) share most words with the reasoning, ties
    /// in the order of the prompt. The target has no part in it. Without reasoning: the target first.
    ByReasoning,
}

/// A prompt with the completion to imitate. Loss belongs on the completion and the end token after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demonstration {
    /// What the policy reads.
    pub prompt: Prompt,
    /// What it should write after the chat template's end of the prompt.
    pub completion: String,
}

/// The demonstration for the `index`-th training case in an epoch; `None` if there is nothing to imitate.
pub fn demonstrate(
    task: &Task,
    options: &Options,
    index: usize,
    epoch: u64,
) -> Result<Option<Demonstration>, Error> {
    let case = task.training_case(index, epoch)?;
    let drawn = Stream::new(task.seed(), "demonstration/reasoning", &[case.user.0]).uniform();
    let shown = drawn < options.reasoning_share && !case.thinking_start.is_closed();
    let reasoning = task.reasoning(index)?.filter(|_| shown);
    if reasoning.is_none() && task.answer().require_thinking {
        return Ok(None);
    }
    let catalogue = &task.dataset().catalogue;
    let mut ranking = match (options.ranking, reasoning) {
        (Ranking::ByReasoning, Some(reasoning)) => by_reasoning(reasoning, &case.candidates, catalogue),
        _ => target_first(&case),
    };
    ranking.truncate(task.answer().list_length);
    let layout = task.answer().layout;
    let whole = completion::write(reasoning, &ranking, catalogue, layout);
    let completion = completion::after(case.thinking_start, &whole, layout)?;
    Ok(Some(Demonstration { prompt: case.prompt, completion }))
}

fn target_first(case: &Case) -> Vec<ItemId> {
    let others = case.candidates.iter().copied().filter(|&item| item != case.target);
    std::iter::once(case.target).chain(others).collect()
}

fn by_reasoning(reasoning: &str, candidates: &[ItemId], catalogue: &Catalogue) -> Vec<ItemId> {
    let named = words(reasoning);
    let shared = |id: &ItemId| {
        let description =
            catalogue.get(*id).map_or("", |item| item.caption.as_deref().unwrap_or(&item.title));
        words(description).intersection(&named).count()
    };
    let mut ranking = candidates.to_vec();
    ranking.sort_by_cached_key(|id| std::cmp::Reverse(shared(id)));
    ranking
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

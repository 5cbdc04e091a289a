//! Completions for the policy to imitate in supervised fine-tuning.
//!
//! Reasoning is part of the completion's think block and never of a prompt.

use std::collections::BTreeSet;

use podium_grpo::rng::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::completion;
use crate::dataset::Catalogue;
use crate::ids::ItemId;
use crate::prompt::Prompt;
use crate::task::{Case, Error, Task};

/// Completions to imitate: `[demonstration]` of the run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Fraction of the training users, sampled with the run's seed, whose demonstrations contain reasoning. Other
    /// demonstrations have no reasoning, or are omitted if `answer.require_thinking` is set. Between 0 and 1. No
    /// reasoning is included if the chat template closes the think block in the prompt.
    pub reasoning_share: f64,
    /// Ranking of a demonstration.
    pub ranking: Ranking,
}

impl Default for Options {
    fn default() -> Self {
        Self { reasoning_share: 1.0, ranking: Ranking::TargetFirst }
    }
}

/// Ranking of a demonstration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ranking {
    /// The target, then candidates in the order of the prompt.
    TargetFirst,
    /// The candidates whose captions (or titles, without a caption) share most words with the reasoning, ties in the
    /// order of the prompt. The target does not affect this ranking. Without reasoning: the target first.
    ByReasoning,
}

/// A prompt with the completion to imitate. The loss covers the completion and the following end token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demonstration {
    /// The prompt.
    pub prompt: Prompt,
    /// The completion, after the chat template's end of the prompt.
    pub completion: String,
}

/// Returns the demonstration of the `index`-th training case in an epoch; `None` if it has none.
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

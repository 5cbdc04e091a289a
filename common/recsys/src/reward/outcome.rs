//! Properties of a completion and its question that the reward depends on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::completion::{Form, ListedStatus, Parsed};
use crate::dataset::Catalogue;
use crate::ids::ItemId;
use crate::ranking::{Metric, by_popularity};

/// Properties of a completion that its reward depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The completion's format.
    pub form: Form,
    /// Rank of the target in the list, from 1, also in a malformed answer.
    pub target_rank: Option<usize>,
    /// Number of listed items.
    pub listed: usize,
    /// Fraction of the listed items with the correct title, 0 to 1.
    pub titles: f64,
    /// Characters (Unicode scalar values) of the text, including reasoning.
    pub characters: usize,
    /// Hard negatives above the target, or anywhere if the target is not listed: Σ 1 / log₂(j + 1) over their ranks j,
    /// as a fraction of that sum over the whole list. 0 to 1.
    pub hard_negatives: f64,
    /// Values of the external terms, in the order of `reward.external`; empty to reward the completion by the built-in
    /// terms alone.
    pub external: Vec<f64>,
    /// Properties shared by all completions of the same prompt.
    pub setting: Setting,
}

/// Properties of a question that the reward of its completions depends on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Position of the target among the candidates in the prompt, from 1.
    pub given_rank: usize,
    /// Fraction of the catalogue's other items with fewer interactions of training users than the target, 0 to 1.
    pub popularity: f64,
}

/// The question that a completion answers.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The target.
    pub target: ItemId,
    /// The candidates, in the order of the prompt.
    pub candidates: &'a [ItemId],
    /// Titles and popularity of items.
    pub catalogue: &'a Catalogue,
    /// Popularity of items relative to the catalogue.
    pub popularity: &'a Popularity,
}

impl Outcome {
    /// Computes the outcome of a completion with this `text`. `list_length`: the required number of items; `hard`: the
    /// number of most popular candidates that are hard negatives.
    pub(super) fn of(
        parsed: &Parsed<'_>,
        text: &str,
        question: &Question<'_>,
        list_length: usize,
        hard: usize,
    ) -> Self {
        let Question { target, candidates, catalogue, popularity } = *question;
        let target_rank = parsed
            .ranking
            .iter()
            .position(|listed| listed.item == target && listed.status == ListedStatus::Candidate)
            .map(|place| place + 1);
        let titled = parsed.ranking.iter().filter(|listed| {
            let title = catalogue.get(listed.item).map(|item| item.title.split_whitespace());
            title.is_some_and(|title| title.eq(listed.title.split_whitespace()))
        });
        let listed = parsed.ranking.len();
        let given_rank = candidates.iter().position(|&item| item == target).map_or(1, |place| place + 1);
        Self {
            form: parsed.form,
            target_rank,
            listed,
            titles: titled.count() as f64 / listed.max(1) as f64,
            characters: text.chars().count(),
            hard_negatives: hard_above(parsed, question, target_rank, list_length, hard),
            external: Vec::new(),
            setting: Setting {
                given_rank,
                popularity: popularity.below(catalogue.get(target).map_or(0, |item| item.interactions)),
            },
        }
    }

    /// Returns the rank for ranking metrics: `None` if the answer is malformed.
    pub fn scored_rank(&self) -> Option<usize> {
        self.target_rank.filter(|_| self.form.is_well_formed())
    }
}

/// Returns the weight of the hard negatives above the target: see [`Outcome::hard_negatives`].
fn hard_above(
    parsed: &Parsed<'_>,
    question: &Question<'_>,
    target_rank: Option<usize>,
    list_length: usize,
    hard: usize,
) -> f64 {
    if hard == 0 {
        return 0.0;
    }
    let mut negatives = by_popularity(question.candidates, question.catalogue);
    negatives.retain(|&item| item != question.target);
    negatives.truncate(hard);
    let above = parsed.ranking.iter().take(target_rank.map_or(list_length, |rank| rank - 1).min(list_length));
    let ranks = above.enumerate().filter(|(_, listed)| negatives.contains(&listed.item));
    share_of_ranks(ranks.map(|(place, _)| place + 1), list_length)
}

/// Returns Σ 1 / log₂(j + 1) over `ranks`, as a fraction of that sum over ranks 1 to `list_length`.
pub(super) fn share_of_ranks(ranks: impl Iterator<Item = usize>, list_length: usize) -> f64 {
    let gain = |rank| Metric::Ndcg(list_length).value(Some(rank));
    let all: f64 = (1..=list_length).map(gain).sum();
    ranks.map(gain).sum::<f64>() / all
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let article = if self.form.name().starts_with(['e', 'i', 'u']) { "an" } else { "a" };
        write!(f, "{article} {} answer ", self.form)?;
        match self.target_rank {
            Some(rank) => write!(f, "with the target at rank {rank}")?,
            None => write!(f, "without the target")?,
        }
        // The check uses these values for properties that no term depends on.
        if self.titles < 1.0 {
            write!(f, ", {:.0} % of its titles right", 100.0 * self.titles)?;
        }
        if self.characters > 0 {
            write!(f, ", {} characters", self.characters)?;
        }
        if self.hard_negatives > 0.0 {
            write!(f, ", hard negatives above the target")?;
        }
        if !self.external.is_empty() && self.form.is_well_formed() {
            let values: Vec<String> = self.external.iter().map(f64::to_string).collect();
            write!(f, ", external terms of {}", values.join(" and "))?;
        }
        let Setting { given_rank, popularity } = self.setting;
        if given_rank > 1 {
            write!(f, ", the target given at rank {given_rank}")?;
        }
        if popularity > 0.0 {
            write!(f, ", the target more popular than {:.0} % of the items", 100.0 * popularity)?;
        }
        Ok(())
    }
}

/// Sorted interaction counts of a catalogue, for comparisons of popularity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Popularity {
    /// In ascending order.
    interactions: Vec<u64>,
}

impl Popularity {
    /// Computes the popularity of a catalogue's items.
    pub fn of(catalogue: &Catalogue) -> Self {
        let mut interactions: Vec<u64> = catalogue.items().iter().map(|item| item.interactions).collect();
        interactions.sort_unstable();
        Self { interactions }
    }

    /// Returns the fraction of the other items with fewer interactions than this many: 0 to 1.
    pub fn below(&self, interactions: u64) -> f64 {
        let others = self.interactions.len().saturating_sub(1).max(1);
        let below = self.interactions.partition_point(|&taken| taken < interactions);
        (below as f64 / others as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::{Expected, Layout, Options, ThinkingStart, parse};
    use crate::dataset::Item;

    /// Outcome of an answer to four candidates of a catalogue of ten, where item 9 is the most popular; item 4 is the
    /// target.
    fn outcome(text: &str, hard: usize) -> Outcome {
        let catalogue = Catalogue::new((1..=10).map(|id| Item {
            id: ItemId(id),
            title: format!("The  Title {id}"),
            caption: None,
            interactions: id * id,
        }));
        let options = Options { list_length: 3, layout: Layout::Titled, require_thinking: false };
        let candidates = [9, 2, 4, 7].map(ItemId);
        let thinking_start = ThinkingStart::Absent;
        let expected =
            Expected { options: &options, candidates: &candidates, catalogue: &catalogue, thinking_start };
        let popularity = Popularity::of(&catalogue);
        let question = Question {
            target: ItemId(4),
            candidates: &candidates,
            catalogue: &catalogue,
            popularity: &popularity,
        };
        Outcome::of(&parse(text, &expected), text, &question, 3, hard)
    }

    #[test]
    fn outcomes_are_computed_from_completions() {
        let outcome = outcome("[ITEM_9] The Title 9\n[ITEM_4] The Title\n[ITEM_7] Die Ümläute", 1);
        assert_eq!((outcome.form, outcome.target_rank, outcome.listed), (Form::WellFormed, Some(2), 3));
        assert!((outcome.titles - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(outcome.characters, 20 + 1 + 18 + 1 + 20);
        assert_eq!(outcome.setting.given_rank, 3);
        assert!((outcome.setting.popularity - 3.0 / 9.0).abs() < 1e-12, "items 1 to 3 of the nine others");
    }

    #[test]
    fn hard_negatives_count_only_above_the_target() {
        let all = 1.0 + 0.630_929_753_571 + 0.5;
        for (answer, hard, expected) in [
            ("[ITEM_9]\n[ITEM_4]\n[ITEM_7]", 0, 0.0),
            ("[ITEM_9]\n[ITEM_4]\n[ITEM_7]", 2, 1.0 / all),
            ("[ITEM_2]\n[ITEM_9]\n[ITEM_4]", 1, 0.630_929_753_571 / all),
            ("[ITEM_4]\n[ITEM_9]\n[ITEM_7]", 2, 0.0),
            ("[ITEM_9]\n[ITEM_7]\n[ITEM_2]", 3, 1.0),
            ("[ITEM_9]\n[ITEM_7]\n[ITEM_2]", 9, 1.0),
        ] {
            let found = outcome(answer, hard).hard_negatives;
            assert!((found - expected).abs() < 1e-9, "{answer:?}: {found} instead of {expected}");
        }
    }

    #[test]
    fn popularity_is_a_fraction_of_the_other_items() {
        let counts = |counts: &[u64]| {
            Popularity::of(&Catalogue::new(counts.iter().zip(0..).map(|(&interactions, id)| Item {
                id: ItemId(id),
                title: "x".into(),
                caption: None,
                interactions,
            })))
        };
        let popularity = counts(&[3, 1, 1, 7, 0]);
        for (interactions, below) in [(0, 0.0), (1, 0.25), (3, 0.75), (7, 1.0)] {
            assert!((popularity.below(interactions) - below).abs() < 1e-12);
        }
        assert!(counts(&[5]).below(5).abs() < 1e-12);
        assert!(counts(&[]).below(5).abs() < 1e-12);
    }
}

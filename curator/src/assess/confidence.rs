//! Confidence in a reasoning, between 0 and 1.
//!
//! Confidence combines two scores. *Agreement* compares reasoning from pictures with reasoning from captions. It
//! is the mean over the four steps of Dice's coefficient of their words, `2 |A ∩ B| / (|A| + |B|)` (Dice 1945),
//! without the most common words. *Prediction* is the result of a judge that knows the reasoning and not the
//! target. The judge ranks the candidates several times with different candidate samples; the score is the mean of
//! `1 / log2(1 + rank)` of the target, which is NDCG with one relevant item. Confidence is their weighted
//! geometric mean,
//!
//! ```text
//! confidence = agreement^w · prediction^(1 − w)
//! ```
//!
//! so that a low score in one part is not compensated by the other.

use std::collections::BTreeSet;

use podium_recsys::ranking::Metric;
use serde::{Deserialize, Serialize};

use crate::reasoning::steps::Steps;
use crate::wording::words;

/// Common English words that do not count in comparisons. They hardly affect texts in other languages.
const COMMON: [&str; 61] = [
    "a", "about", "all", "also", "an", "and", "are", "as", "at", "be", "both", "but", "by", "can", "for",
    "from", "has", "have", "in", "into", "is", "it", "item", "items", "its", "likely", "may", "more", "most",
    "next", "no", "not", "of", "on", "one", "or", "other", "over", "rather", "so", "such", "than", "that",
    "the", "their", "them", "these", "they", "this", "those", "to", "toward", "towards", "user", "users",
    "was", "which", "who", "will", "with", "would",
];

/// Scores of a reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scores {
    /// The weighted geometric mean of the two.
    pub(crate) confidence: f64,
    /// Agreement between reasoning from pictures and from captions.
    pub(crate) agreement: f64,
    /// Quality of a judge's rankings based on the reasoning.
    pub(crate) prediction: f64,
}

impl Scores {
    /// Combines the two scores; `weight` is that of the agreement, between 0 and 1.
    pub(super) fn new(agreement: f64, prediction: f64, weight: f64) -> Self {
        let confidence = agreement.powf(weight) * prediction.powf(1.0 - weight);
        Self { confidence, agreement, prediction }
    }
}

/// Returns the agreement of two reasonings.
pub(super) fn agreement(one: &Steps<'_>, other: &Steps<'_>) -> f64 {
    let each = one.0.iter().zip(other.0).map(|(one, other)| dice(one, other));
    each.sum::<f64>() / one.0.len() as f64
}

/// Returns the mean quality of a judge's rankings; `None` stands for a target that was not listed.
pub(super) fn prediction(ranks: &[Option<usize>]) -> f64 {
    let listed = Metric::Ndcg(usize::MAX);
    ranks.iter().map(|&rank| listed.value(rank)).sum::<f64>() / ranks.len().max(1) as f64
}

fn dice(one: &str, other: &str) -> f64 {
    let content = |text: &str| -> BTreeSet<String> {
        words(text).into_iter().filter(|word| !COMMON.contains(&word.as_str())).collect()
    };
    let (one, other) = (content(one), content(other));
    let all = one.len() + other.len();
    if all == 0 { 0.0 } else { 2.0 * one.intersection(&other).count() as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn agreement_compares_content_words_step_by_step() {
        let one = Steps(["dark films", "a dark one", "- rain", "It is dark."]);
        assert!((agreement(&one, &one) - 1.0).abs() < 1e-12);
        // The first steps share one of three words: "a" and "one" are common, "dark" is not.
        let other = Steps(["the dark", "bright", "- RAIN", "light"]);
        assert!((agreement(&one, &other) - (2.0 / 3.0 + 0.0 + 1.0 + 0.0) / 4.0).abs() < 1e-12);
        assert!(dice("the of", "and").abs() < 1e-12, "texts without content words share nothing");
    }

    #[test]
    fn agreement_compares_words_in_every_script() {
        for (one, same, other, unlike) in [
            ("it’s a dark film", "IT'S DARK, a ＦＩＬＭ", "a dark comedy", "bright songs"),
            ("Straße & Café", "strasse café", "eine strasse", "ein fluss"),
            ("喜欢黑暗的电影", "黑暗的电影，喜欢！", "喜欢黑暗的音乐", "明亮城市"),
            ("暗い映画を好む", "好む、暗い映画を", "暗い音楽を好む", "明るい町"),
            ("ชอบหนังมืด", "หนังมืด ชอบ", "ชอบเพลงมืด", "เมืองสว่าง"),
        ] {
            assert!((dice(one, same) - 1.0).abs() < 1e-12, "{one} {same}: {}", dice(one, same));
            let half = dice(one, other);
            assert!(0.3 < half && half < 0.9, "{one} {other}: {half}");
            assert!(dice(one, unlike) < 1e-12, "{one} {unlike}");
        }
    }

    #[test]
    fn prediction_is_the_ndcg_of_the_target() {
        assert!((prediction(&[Some(1), Some(3), None]) - (1.0 + 0.5 + 0.0) / 3.0).abs() < 1e-12);
        assert!(prediction(&[]).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn confidence_lies_between_its_parts(agreement in 0.0..=1.0, prediction in 0.0..=1.0, weight in 0.0..=1.0) {
            let found = Scores::new(agreement, prediction, weight).confidence;
            let (low, high) = (f64::min(agreement, prediction), f64::max(agreement, prediction));
            prop_assert!(low - 1e-12 <= found && found <= high + 1e-12);
        }
    }
}

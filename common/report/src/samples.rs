//! Sampled completions with their rewards: the same held-out users before and after training, and training groups.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};
use serde::Deserialize;

use crate::scale::format_value;

/// Number of held-out users shown before and after.
const PAIRS: usize = 6;
/// Number of training steps with shown groups, from the first to the latest.
const STEPS: usize = 5;
/// Number of shown groups per step.
const GROUPS: usize = 3;
/// Number of shown characters of a malformed completion.
const RAW_LETTERS: usize = 600;

/// A row of samples.jsonl.
#[derive(Debug, Deserialize)]
pub(crate) struct Sample {
    purpose: Purpose,
    policy_version: u64,
    step: u64,
    index: u64,
    user: String,
    history: Vec<Item>,
    candidates: Vec<Item>,
    target: u64,
    /// State of the think block at the end of the prompt: `absent`, `opened` or `closed`.
    #[serde(default)]
    thinking_start: String,
    completions: Vec<Completion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Purpose {
    Training,
    Evaluation,
}

#[derive(Debug, Deserialize)]
struct Item {
    id: u64,
    title: Option<String>,
    #[serde(default)]
    caption: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Completion {
    text: String,
    reward: Option<f64>,
    #[serde(default)]
    terms: BTreeMap<String, f64>,
    form: String,
    rank: Option<u64>,
    #[serde(default)]
    ranking: Vec<u64>,
    tokens: u64,
}

/// Returns the sections; empty without recorded completions.
pub(crate) fn render(samples: &[Sample]) -> Markup {
    let rewards =
        samples.iter().flat_map(|sample| &sample.completions).filter_map(|completion| completion.reward);
    let best = rewards.fold(f64::MIN_POSITIVE, f64::max);
    html! {
        (pairs(samples, best))
        (groups(samples, best))
    }
}

fn pairs(samples: &[Sample], best: f64) -> Markup {
    let evaluated = || samples.iter().filter(|sample| sample.purpose == Purpose::Evaluation);
    let versions: BTreeSet<u64> = evaluated().map(|sample| sample.policy_version).collect();
    let (Some(&first), Some(&last)) = (versions.first(), versions.last()) else { return html! {} };
    let of = |version: u64| evaluated().filter(move |sample| sample.policy_version == version);
    let before = |index: u64| of(first).find(|other| other.index == index).filter(|_| first != last);
    html! {
        h2 { "The same users, before and after" }
        p.about {
            "Evaluated users, which are not trained on. Their next item is marked among the candidates; the policy does not \
             see the mark."
        }
        @for sample in of(last).take(PAIRS) {
            article.case {
                header { h3 { "User " (sample.user) } }
                (items(sample))
                div.answers.pair {
                    @for side in before(sample.index).into_iter().chain([sample]) {
                        @for completion in &side.completions {
                            (answer(side, completion, best, &version_label(side.policy_version)))
                        }
                    }
                }
            }
        }
    }
}

fn version_label(version: u64) -> String {
    if version == 0 { "start".into() } else { format!("version {version}") }
}

fn groups(samples: &[Sample], best: f64) -> Markup {
    let trained = || samples.iter().filter(|sample| sample.purpose == Purpose::Training);
    let steps: Vec<u64> = trained().map(|sample| sample.step).collect::<BTreeSet<_>>().into_iter().collect();
    if steps.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Training groups" }
        p.about {
            "Several completions of one prompt. The difference of each reward from the group's mean determines the gradient."
        }
        @for step in spread(&steps, STEPS) {
            @let samples: Vec<&Sample> = trained().filter(|sample| sample.step == step).collect();
            @let mean = mean_reward(samples.iter().flat_map(|sample| &sample.completions));
            details.card open[Some(&step) == steps.last()] {
                summary {
                    "Step " (step + 1)
                    small { "mean reward of the shown prompts " (format_value(mean)) }
                }
                div.inside { @for sample in samples.iter().take(GROUPS) { (group(sample, best)) } }
            }
        }
    }
}

fn group(sample: &Sample, best: f64) -> Markup {
    let mean = mean_reward(&sample.completions);
    let against = |reward: f64| format!("{:+.2} from the mean", reward - mean);
    html! {
        article.case {
            header {
                h3 { "User " (sample.user) }
                p { "group mean " (format_value(mean)) }
            }
            (items(sample))
            div.answers {
                @for completion in &sample.completions {
                    (answer(sample, completion, best, &completion.reward.map_or_else(String::new, against)))
                }
            }
        }
    }
}

/// Returns the mean of the known rewards; 0 without any.
fn mean_reward<'a>(completions: impl IntoIterator<Item = &'a Completion>) -> f64 {
    let rewards: Vec<f64> = completions.into_iter().filter_map(|completion| completion.reward).collect();
    rewards.iter().sum::<f64>() / rewards.len().max(1) as f64
}

fn items(sample: &Sample) -> Markup {
    html! {
        dl.items {
            dt { "history" }
            dd { @for item in &sample.history { (chip(item, false)) } }
            dt { "candidates" }
            dd { @for item in &sample.candidates { (chip(item, item.id == sample.target)) } }
        }
    }
}

fn answer(sample: &Sample, completion: &Completion, best: f64, label: &str) -> Markup {
    let well_formed = completion.form == "well_formed";
    let (class, verdict) = match completion.rank {
        _ if !well_formed => ("malformed", completion.form.replace('_', " ")),
        Some(1) => ("hit", "hit".into()),
        Some(rank) => ("listed", format!("rank {rank}")),
        None => ("miss", "missed".into()),
    };
    let terms: Vec<String> =
        completion.terms.iter().map(|(name, value)| format!("{name} {}", format_value(*value))).collect();
    let reward = completion.reward.map_or("–".into(), |reward| format!("{reward:.2}"));
    let share = (completion.reward.unwrap_or(0.0) / best).clamp(0.0, 1.0) * 100.0;
    html! {
        section.answer.(class) {
            header title=(terms.join(", ")) {
                b { (reward) }
                span.verdict { (verdict) }
                span { (label) }
                span { (completion.tokens) " tokens" }
            }
            div.bar { i style=(format!("width:{share:.0}%")) {} }
            @if well_formed {
                p.think { (thinking(&completion.text)) }
                ol {
                    @for id in &completion.ranking {
                        li class=[(*id == sample.target).then_some("target")] { (title(sample, *id)) }
                    }
                }
            } @else {
                p.raw {
                    (given(&sample.thinking_start))
                    (completion.text.chars().take(RAW_LETTERS).collect::<String>())
                }
            }
        }
    }
}

/// The title of a listed item, which need not be a candidate.
fn title(sample: &Sample, id: u64) -> String {
    let item = sample.candidates.iter().find(|item| item.id == id);
    item.map_or_else(|| format!("item {id}"), name)
}

/// An item by its title, with its caption in small type; the tooltip has its number and the full caption.
fn chip(item: &Item, is_target: bool) -> Markup {
    let caption = item.caption.as_deref().unwrap_or_default();
    html! {
        span.chip.target[is_target] title={ "item " (item.id) " " (caption) } {
            (name(item))
            small { (caption) }
        }
    }
}

fn name(item: &Item) -> String {
    item.title.clone().unwrap_or_else(|| format!("item {}", item.id))
}

/// The think tags of the prompt, which precede the text of a completion.
fn given(thinking_start: &str) -> Markup {
    let tags = match thinking_start {
        "opened" => "<think>",
        "closed" => "<think></think>",
        _ => return html! {},
    };
    html! {
        span.given title="written by the chat template" { (tags) }
    }
}

/// The content of the think block of a well-formed completion, opened by the completion or the prompt.
fn thinking(text: &str) -> &str {
    let inside = text.split_once("</think>").map_or("", |(before, _)| before);
    inside.split_once("<think>").map_or(inside, |(_, after)| after).trim()
}

/// At most `wanted` of the values, including the first and the last.
fn spread(values: &[u64], wanted: usize) -> Vec<u64> {
    if values.len() <= wanted {
        return values.to_vec();
    }
    (0..wanted).map(|index| values[index * (values.len() - 1) / (wanted - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(purpose: &str, version: u64, text: &str, form: &str, rank: Option<u64>) -> Sample {
        serde_json::from_value(serde_json::json!({
            "purpose": purpose, "policy_version": version, "step": version, "index": 0, "user": "u<1>",
            "system": null, "prompt": "…", "history": [{"id": 3, "title": "Three", "caption": "a \"red\" <boat>"}],
            "candidates": [{"id": 1, "title": "One & only"}, {"id": 2, "title": null}], "target": 1,
            "completions": [{"text": text, "reward": 0.5, "terms": {"form": 1.0}, "form": form, "rank": rank,
                             "ranking": [2, 1], "tokens": 9}],
        }))
        .unwrap()
    }

    #[test]
    fn users_are_shown_before_and_after() {
        let after = "<think>likes <ones></think> [ITEM_2] [ITEM_1]";
        let html = render(&[
            sample("evaluation", 0, "<b>junk", "no_thinking", None),
            sample("evaluation", 9, after, "well_formed", Some(2)),
        ])
        .into_string();
        for part in [
            "User u&lt;1&gt;",
            "no thinking",
            "&lt;b&gt;junk",
            "likes &lt;ones&gt;",
            "rank 2",
            "version 9",
            "<li class=\"target\">One &amp; only</li>",
            "One &amp; only<small>",
            "title=\"item 3 a &quot;red&quot; &lt;boat&gt;\"",
            "item 2",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }

    #[test]
    fn thinking_is_shown_if_the_prompt_opens_the_block() {
        let after = |start: &str, text: &str, form: &str| {
            let sample = sample("evaluation", 0, text, form, None);
            render(&[Sample { thinking_start: start.to_owned(), ..sample }]).into_string()
        };
        let html = after("opened", "likes boats</think> [ITEM_2]", "well_formed");
        assert!(html.contains("<p class=\"think\">likes boats</p>"), "{html}");
        let html = after("opened", "likes boats", "unclosed_thinking");
        assert!(html.contains(">&lt;think&gt;</span>likes boats"), "{html}");
        let html = after("closed", "<think>", "repeated_thinking");
        assert!(html.contains(">&lt;think&gt;&lt;/think&gt;</span>&lt;think&gt;"), "{html}");
        let html = after("absent", "likes boats", "no_thinking");
        assert!(html.contains("<p class=\"raw\">likes boats</p>"), "{html}");
    }

    #[test]
    fn groups_are_shown_by_step() {
        let html = render(&[sample("training", 0, "<think>a</think>", "well_formed", Some(1))]).into_string();
        assert!(html.contains("Step 1<small>") && html.contains("+0.00 from the mean"), "{html}");
        assert_eq!(render(&[]).into_string(), "");
    }

    #[test]
    fn steps_are_spread_evenly() {
        assert_eq!(spread(&[0, 10, 20, 30, 40, 50, 59], 3), [0, 30, 59]);
        assert_eq!(spread(&[4], 3), [4]);
    }
}

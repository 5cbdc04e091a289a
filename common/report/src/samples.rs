//! Sampled completions with their rewards: the same held-out users before and after training, and training groups.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Deserialize;

use crate::html::Escaped;
use crate::scale::figure;

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

/// Returns the section; empty without recorded completions.
pub(crate) fn render(samples: &[Sample]) -> String {
    let rewards =
        samples.iter().flat_map(|sample| &sample.completions).filter_map(|completion| completion.reward);
    let best = rewards.fold(f64::MIN_POSITIVE, f64::max);
    let mut html = String::new();
    pairs(&mut html, samples, best);
    groups(&mut html, samples, best);
    html
}

fn pairs(html: &mut String, samples: &[Sample], best: f64) {
    let evaluated = || samples.iter().filter(|sample| sample.purpose == Purpose::Evaluation);
    let versions: BTreeSet<u64> = evaluated().map(|sample| sample.policy_version).collect();
    let (Some(&first), Some(&last)) = (versions.first(), versions.last()) else { return };
    let of = |version: u64| evaluated().filter(move |sample| sample.policy_version == version);
    html.push_str(
        "<h2>The same users, before and after</h2><p class=\"about\">Held-out users that are not in \
        training. Their next item is marked among the candidates; the policy does not see the mark.</p>",
    );
    for sample in of(last).take(PAIRS) {
        let before = of(first).find(|other| other.index == sample.index).filter(|_| first != last);
        let _ =
            write!(html, "<article class=\"case\"><header><h3>User {}</h3></header>", Escaped(&sample.user));
        items(html, sample);
        html.push_str("<div class=\"answers pair\">");
        for side in before.into_iter().chain([sample]) {
            for completion in &side.completions {
                let label = if side.policy_version == 0 {
                    "start".into()
                } else {
                    format!("version {}", side.policy_version)
                };
                answer(html, side, completion, best, &label);
            }
        }
        html.push_str("</div></article>\n");
    }
}

fn groups(html: &mut String, samples: &[Sample], best: f64) {
    let trained = || samples.iter().filter(|sample| sample.purpose == Purpose::Training);
    let steps: Vec<u64> = trained().map(|sample| sample.step).collect::<BTreeSet<_>>().into_iter().collect();
    if steps.is_empty() {
        return;
    }
    html.push_str(
        "<h2>Training groups</h2><p class=\"about\">Several completions of one prompt. The \
        difference of each reward from the group's mean determines the gradient.</p>",
    );
    for step in spread(&steps, STEPS) {
        let of_step = || trained().filter(move |sample| sample.step == step);
        let rewards: Vec<f64> =
            of_step().flat_map(|sample| &sample.completions).filter_map(|one| one.reward).collect();
        let mean = rewards.iter().sum::<f64>() / rewards.len().max(1) as f64;
        let open = if Some(&step) == steps.last() { " open" } else { "" };
        let _ = write!(
            html,
            "<details class=\"card\"{open}><summary>Step {}<small>mean reward of the shown prompts {}</small></summary><div class=\"inside\">",
            step + 1,
            figure(mean),
        );
        for sample in of_step().take(GROUPS) {
            group(html, sample, best);
        }
        html.push_str("</div></details>\n");
    }
}

fn group(html: &mut String, sample: &Sample, best: f64) {
    let rewards: Vec<f64> = sample.completions.iter().filter_map(|completion| completion.reward).collect();
    let mean = rewards.iter().sum::<f64>() / rewards.len().max(1) as f64;
    let _ = write!(
        html,
        "<article class=\"case\"><header><h3>User {}</h3><p>group mean {}</p></header>",
        Escaped(&sample.user),
        figure(mean),
    );
    items(html, sample);
    html.push_str("<div class=\"answers\">");
    for completion in &sample.completions {
        let against =
            completion.reward.map_or(String::new(), |reward| format!("{:+.2} from the mean", reward - mean));
        answer(html, sample, completion, best, &against);
    }
    html.push_str("</div></article>\n");
}

fn items(html: &mut String, sample: &Sample) {
    html.push_str("<dl class=\"items\"><dt>history</dt><dd>");
    for item in &sample.history {
        chip(html, "chip", item);
    }
    html.push_str("</dd><dt>candidates</dt><dd>");
    for item in &sample.candidates {
        chip(html, if item.id == sample.target { "chip target" } else { "chip" }, item);
    }
    html.push_str("</dd></dl>");
}

fn answer(html: &mut String, sample: &Sample, completion: &Completion, best: f64, label: &str) {
    let well_formed = completion.form == "well_formed";
    let (class, verdict) = match completion.rank {
        _ if !well_formed => ("malformed", completion.form.replace('_', " ")),
        Some(1) => ("hit", "hit".into()),
        Some(rank) => ("listed", format!("rank {rank}")),
        None => ("miss", "missed".into()),
    };
    let terms: Vec<String> =
        completion.terms.iter().map(|(name, value)| format!("{name} {}", figure(*value))).collect();
    let reward = completion.reward.map_or("–".into(), |reward| format!("{reward:.2}"));
    let share = (completion.reward.unwrap_or(0.0) / best).clamp(0.0, 1.0) * 100.0;
    let _ = write!(
        html,
        "<section class=\"answer {class}\"><header title=\"{}\"><b>{reward}</b><span class=\"verdict\">{}</span>\
         <span>{}</span><span>{} tokens</span></header><div class=\"bar\"><i style=\"width:{share:.0}%\"></i></div>",
        Escaped(terms.join(", ")),
        Escaped(verdict),
        Escaped(label),
        completion.tokens,
    );
    if well_formed {
        let _ = write!(html, "<p class=\"think\">{}</p><ol>", Escaped(thinking(&completion.text)));
        for id in &completion.ranking {
            let item = sample.candidates.iter().find(|item| item.id == *id);
            let class = if *id == sample.target { " class=\"target\"" } else { "" };
            let title = item.map_or_else(|| format!("item {id}"), name);
            let _ = write!(html, "<li{class}>{}</li>", Escaped(title));
        }
        html.push_str("</ol>");
    } else {
        let shown: String = completion.text.chars().take(RAW_LETTERS).collect();
        let _ = write!(html, "<p class=\"raw\">{}{}</p>", given(&sample.thinking_start), Escaped(shown));
    }
    html.push_str("</section>");
}

/// An item by its title, with its caption in small type; the tooltip has its number and the full caption.
fn chip(html: &mut String, class: &str, item: &Item) {
    let caption = item.caption.as_deref().unwrap_or_default();
    let _ = write!(
        html,
        "<span class=\"{class}\" title=\"item {} {}\">{}<small>{}</small></span>",
        item.id,
        Escaped(caption),
        Escaped(name(item)),
        Escaped(caption),
    );
}

fn name(item: &Item) -> String {
    item.title.clone().unwrap_or_else(|| format!("item {}", item.id))
}

/// The think tags of the prompt, which precede the text of a completion.
fn given(thinking_start: &str) -> &'static str {
    match thinking_start {
        "opened" => "<span class=\"given\" title=\"written by the chat template\">&lt;think&gt;</span>",
        "closed" => {
            "<span class=\"given\" title=\"written by the chat template\">&lt;think&gt;&lt;/think&gt;</span>"
        }
        _ => "",
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
    (0..wanted).map(|place| values[place * (values.len() - 1) / (wanted - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(purpose: &str, version: u64, text: &str, form: &str, rank: Option<u64>) -> Sample {
        serde_json::from_value(serde_json::json!({
            "purpose": purpose, "policy_version": version, "step": version, "index": 0, "user": "u<1>",
            "system": null, "prompt": "…", "history": [{"id": 3, "title": "Three", "caption": "a red <boat>"}],
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
        ]);
        for part in [
            "User u&lt;1&gt;",
            "no thinking",
            "&lt;b&gt;junk",
            "likes &lt;ones&gt;",
            "rank 2",
            "version 9",
            "<li class=\"target\">One &amp; only</li>",
            "One &amp; only<small>",
            "a red &lt;boat&gt;",
            "item 2",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }

    #[test]
    fn thinking_is_shown_if_the_prompt_opens_the_block() {
        let after = |start: &str, text: &str, form: &str| {
            let sample = sample("evaluation", 0, text, form, None);
            render(&[Sample { thinking_start: start.to_owned(), ..sample }])
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
        let html = render(&[sample("training", 0, "<think>a</think>", "well_formed", Some(1))]);
        assert!(html.contains("Step 1<small>") && html.contains("+0.00 from the mean"), "{html}");
        assert_eq!(render(&[]), "");
    }

    #[test]
    fn steps_are_spread_evenly() {
        assert_eq!(spread(&[0, 10, 20, 30, 40, 50, 59], 3), [0, 30, 59]);
        assert_eq!(spread(&[4], 3), [4]);
    }
}

//! The page of an evaluation: metrics of policies, their differences, user slices, and probes.

use std::fmt::Write as _;

use crate::html::{self, Escaped};
use crate::series::{Series, SeriesChart};
use crate::standing::{self, Row};
use podium_evaluation::{Evaluation, MetricValue, Ranking};

/// The metrics of one number of negatives.
struct Section<'a> {
    negatives: usize,
    values: Vec<&'a MetricValue>,
}

type Who<'a> = (&'a str, Ranking);

/// Renders the page.
pub(crate) fn render(evaluation: &Evaluation) -> String {
    let plan = &evaluation.plan;
    let mut main = String::new();
    for table in &evaluation.tables {
        let values = evaluation.find(|value| value.negatives == table.negatives).collect();
        main.push_str(&Section { negatives: table.negatives, values }.render());
    }
    let folders = plan.policies.iter().map(|policy| {
        format!("<tr><td>{}</td><td>{}</td></tr>", Escaped(&policy.name), Escaped(policy.folder.display()))
    });
    let _ = write!(
        main,
        "<h2>Evaluated policies</h2><details class=\"card\"><summary>policies<small>key {}</small></summary>\
         <div class=\"scroll\"><table>{}</table></div></details>",
        plan.key(),
        folders.collect::<String>(),
    );
    let header = format!(
        "<header><div class=\"brand\">Podium</div><h1>{}</h1><p class=\"lead\">{} held-out users, {} candidate lists each, \
         and {} of them also in reverse order. All rankers rank the same lists. 95 % intervals and p-values are over \
         users.</p></header>\n",
        Escaped(&plan.dataset.name),
        plan.users().len(),
        plan.asked.draws,
        plan.asked.reversed.min(plan.asked.draws),
    );
    let footer = "All values are in figures.csv and evaluation.json in the same folder, the individual lists in \
                  lists.jsonl; docs/guides/evaluation.md defines the metrics.";
    html::document(&format!("Evaluation on {}", plan.dataset.name), &header, &main, footer)
}

impl<'a> Section<'a> {
    fn render(&self) -> String {
        let mut html = format!(
            "<h2>{} negatives</h2><p class=\"about\">The user's next item among {} candidates.</p>",
            self.negatives,
            self.negatives + 1
        );
        self.standings(&mut html);
        self.metrics(&mut html);
        self.comparisons(&mut html);
        self.slices(&mut html);
        self.probes(&mut html);
        html
    }

    /// Renders HR@1 and the largest NDCG that every ranker has, one picture each.
    fn standings(&self, html: &mut String) {
        html.push_str("<div class=\"standings\">");
        for name in ["HR@1".to_owned()].into_iter().chain(self.widest_ndcg()) {
            html.push_str(&standing::picture(&name, &self.rows(&name, "all")));
        }
        html.push_str("</div>");
    }

    fn rows(&self, name: &str, slice: &str) -> Vec<Row> {
        let row = |value: &&MetricValue| Row {
            who: label((&value.policy, value.ranking)),
            mean: value.estimate,
            interval: value.low.zip(value.high),
            dot: if value.ranking == Ranking::Baseline { "quiet" } else { "solid" },
        };
        let is_shown =
            |value: &&&MetricValue| value.against.is_none() && value.slice == slice && value.name() == name;
        self.values.iter().filter(is_shown).map(row).collect()
    }

    /// Returns the largest NDCG that all rankers have.
    fn widest_ndcg(&self) -> Option<String> {
        let rankers = self.rankers();
        let mut cuts: Vec<usize> =
            self.plain().filter(|value| value.metric == "NDCG").filter_map(|value| value.k).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let has = |who: &Who<'_>, k: usize| {
            self.plain().any(|value| {
                (value.policy.as_str(), value.ranking) == *who && value.metric == "NDCG" && value.k == Some(k)
            })
        };
        let k = cuts.into_iter().rev().find(|&k| rankers.iter().all(|who| has(who, k)))?;
        Some(format!("NDCG@{k}"))
    }

    /// Returns the metrics of all users, without differences.
    fn plain(&self) -> impl Iterator<Item = &'a MetricValue> {
        self.values.iter().copied().filter(|value| value.against.is_none() && value.slice == "all")
    }

    fn rankers(&self) -> Vec<Who<'a>> {
        let mut found = Vec::new();
        for value in self.plain() {
            let who = (value.policy.as_str(), value.ranking);
            if !found.contains(&who) {
                found.push(who);
            }
        }
        found
    }

    fn metrics(&self, html: &mut String) {
        let is_metric = |value: &&MetricValue| matches!(value.metric.as_str(), "HR" | "NDCG" | "MRR");
        let kind = |value: &MetricValue| ["HR", "NDCG", "MRR"].iter().position(|kind| *kind == value.metric);
        let mut names: Vec<(Option<usize>, usize, String)> = self
            .plain()
            .filter(is_metric)
            .map(|value| (kind(value), value.k.unwrap_or(usize::MAX), value.name()))
            .collect();
        names.sort();
        names.dedup();
        let cell = |who: &Who<'_>, name: &str| {
            let value = self
                .plain()
                .find(|value| (value.policy.as_str(), value.ranking) == *who && value.name() == name);
            value.map_or_else(|| "–".to_owned(), value_and_interval)
        };
        let rankers = self.rankers();
        let mut rows = String::new();
        for (_, _, name) in &names {
            let _ = write!(rows, "<tr><td>{name}</td>");
            for who in &rankers {
                let _ = write!(rows, "<td>{}</td>", cell(who, name));
            }
            rows.push_str("</tr>");
        }
        let mut header = "<th></th>".to_owned();
        for who in rankers {
            let _ = write!(header, "<th>{}</th>", Escaped(label(who)));
        }
        table(html, "All metrics", &format!("<tr>{header}</tr>{rows}"), true);
    }

    /// Renders the first policy's main differences, and all others in a collapsed table.
    fn comparisons(&self, html: &mut String) {
        let all: Vec<&MetricValue> =
            self.values.iter().copied().filter(|value| value.against.is_some()).collect();
        let first = all.first().map(|value| value.policy.as_str());
        let widest = |of: &MetricValue| {
            let same = all.iter().filter(|value| value.metric == "NDCG" && value.ranking == of.ranking);
            same.filter_map(|value| value.k).max()
        };
        let is_headline = |value: &&&MetricValue| {
            Some(value.policy.as_str()) == first
                && match value.metric.as_str() {
                    "HR" => value.k == Some(1),
                    "NDCG" => value.k == widest(value),
                    _ => false,
                }
        };
        let header = "<tr><th></th><th>metric</th><th>paired difference</th><th>p</th></tr>";
        let headlines: String = all.iter().filter(is_headline).map(|value| difference(value)).collect();
        table(html, "Paired differences", &format!("{header}{headlines}"), true);
        let everything: String = all.iter().map(|value| difference(value)).collect();
        table(html, "All paired differences", &format!("{header}{everything}"), false);
    }

    /// Renders the largest NDCG of every slice.
    fn slices(&self, html: &mut String) {
        let Some(name) = self.widest_ndcg() else { return };
        let mut slices: Vec<&str> = Vec::new();
        for value in &self.values {
            if value.slice != "all" && !slices.contains(&value.slice.as_str()) {
                slices.push(&value.slice);
            }
        }
        let _ = write!(
            html,
            "<h3>User slices</h3><p class=\"about\">{name} by the target's number of training interactions, and by the length \
             of the user's history.</p><div class=\"standings\">"
        );
        for slice in slices {
            html.push_str(&standing::picture(&slice.replace('_', " "), &self.rows(&name, slice)));
        }
        html.push_str("</div>");
    }

    fn probes(&self, html: &mut String) {
        html.push_str(
            "<h3>Position and popularity bias</h3><p class=\"about\">Lists are shuffled: a ranker that ignores the order \
             chooses every position equally often, and makes the same choice in the reversed list. Popularity is the \
             fraction of the catalogue with fewer interactions.</p><div class=\"charts\">",
        );
        let places = |who: &Who<'_>| Series {
            label: label(*who),
            points: self
                .plain()
                .filter(|value| (value.policy.as_str(), value.ranking) == *who && value.metric == "first_at")
                .filter_map(|value| Some((value.k? as f64, value.estimate)))
                .collect(),
            marked: self.negatives < 24,
        };
        let chart = SeriesChart {
            title: "Position of the first choice",
            note: "fraction of first choices by position in the prompt's list",
            series: self.rankers().iter().map(places).collect(),
            reference: Some(("uniform", 1.0 / (self.negatives + 1) as f64)),
        };
        html.push_str(&chart.render());
        html.push_str("</div>");
        let mut rows = String::new();
        for value in self.plain() {
            if matches!(value.metric.as_str(), "HR" | "NDCG" | "MRR" | "first_at") {
                continue;
            }
            let p_value = value.p_value.map_or(String::new(), |p| format!("{p:.4}"));
            let _ = write!(
                rows,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{p_value}</td></tr>",
                Escaped(label((&value.policy, value.ranking))),
                value.metric,
                value_and_interval(value),
            );
        }
        let header = "<tr><th></th><th>metric</th><th>value</th><th>p</th></tr>";
        table(html, "Format, positions and popularity", &format!("{header}{rows}"), false);
    }
}

/// A row of the table of differences.
fn difference(value: &MetricValue) -> String {
    let direction = match (value.low, value.high) {
        (Some(low), _) if low > 0.0 => " up",
        (_, Some(high)) if high < 0.0 => " down",
        _ => "",
    };
    format!(
        "<tr><td>{} less {}</td><td>{}</td><td><span class=\"change{direction}\">{}</span></td><td>{}</td></tr>",
        Escaped(label((&value.policy, value.ranking))),
        Escaped(value.against.as_deref().unwrap_or_default()),
        value.name(),
        value.text(),
        value.p_value.map_or(String::new(), |p| format!("{p:.4}")),
    )
}

fn table(html: &mut String, title: &str, rows: &str, open: bool) {
    let open = if open { " open" } else { "" };
    let _ = writeln!(
        html,
        "<details class=\"card\"{open}><summary>{title}</summary><div class=\"scroll\"><table>{rows}</table></div></details>"
    );
}

fn value_and_interval(value: &MetricValue) -> String {
    match (value.low, value.high) {
        (Some(low), Some(high)) => format!("{:.3} <small>[{low:.3}, {high:.3}]</small>", value.estimate),
        _ => format!("{:.3}", value.estimate),
    }
}

fn label((policy, ranking): Who<'_>) -> String {
    if ranking == Ranking::Baseline { policy.to_owned() } else { format!("{policy}, {ranking}") }
}

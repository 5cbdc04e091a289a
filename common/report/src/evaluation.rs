//! The page of an evaluation: metrics of policies, their differences, user slices, and probes.

use maud::{Markup, html};
use podium_evaluation::{Evaluation, Lists, MetricValue, Ranking};

use crate::document;
use crate::dot_plot::{self, Row};
use crate::series::{Series, SeriesChart};

/// The metrics of one kind of candidate lists.
struct Section<'a> {
    lists: Lists,
    /// Name of the evaluated part of the data set.
    part: String,
    values: Vec<&'a MetricValue>,
}

type Who<'a> = (&'a str, Ranking);

/// Renders the page.
pub(crate) fn render(evaluation: &Evaluation) -> Markup {
    let plan = &evaluation.plan;
    let section = |lists: Lists| {
        let values = evaluation.find(|value| value.negatives == lists).collect();
        Section { lists, part: plan.asked.part.to_string(), values }.render()
    };
    let main = html! {
        @for table in &evaluation.tables { (section(table.lists)) }
        h2 { "Evaluated policies" }
        details.card {
            summary { "policies" small { "key " (plan.key()) } }
            div.scroll {
                table {
                    @for policy in &plan.policies {
                        tr { td { (policy.name) } td { (policy.folder.display()) } }
                    }
                }
            }
        }
    };
    let header = html! {
        header {
            div.brand { "Podium" }
            h1 { (plan.dataset.name) }
            p.lead {
                (plan.users().len()) " " (plan.asked.part) " users, " (plan.asked.draws) " candidate lists each, and "
                (plan.asked.reversed.min(plan.asked.draws)) " of them also in reverse order. All rankers rank the same \
                lists. 95 % intervals and p-values are over users."
            }
        }
    };
    let footer = "All values are in metrics.csv and evaluation.json in the same folder, the individual lists in \
                  lists.jsonl; docs/guides/evaluation.md defines the metrics.";
    document::render(&format!("Evaluation on {}", plan.dataset.name), &header, &main, footer)
}

impl<'a> Section<'a> {
    fn render(&self) -> Markup {
        html! {
            h2 { (self.lists) ", " (self.part) " users" }
            p.about {
                "The user's next item among "
                @match self.lists.candidates() {
                    Some(candidates) => { (candidates) " candidates." }
                    None => { "all items outside the history." }
                }
            }
            (self.headlines())
            (self.metrics())
            (self.comparisons())
            @if let Some(name) = self.widest_ndcg() { (self.slices(&name)) }
            (self.probes())
        }
    }

    /// Renders HR@1 and the largest NDCG that every ranker has, one picture each.
    fn headlines(&self) -> Markup {
        let names = ["HR@1".to_owned()].into_iter().chain(self.widest_ndcg());
        html! {
            div.dot-plots {
                @for plot in names.filter_map(|name| dot_plot::render(&name, &self.rows(&name, "all"))) { (plot) }
            }
        }
    }

    fn rows(&self, name: &str, slice: &str) -> Vec<Row> {
        let row = |value: &&MetricValue| Row {
            who: label(who(value)),
            mean: value.estimate,
            interval: value.low.zip(value.high),
            dot: Some(if value.ranking == Ranking::Baseline { "quiet" } else { "solid" }),
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
            self.plain().any(|value| self::who(value) == *who && value.metric == "NDCG" && value.k == Some(k))
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
            let who = who(value);
            if !found.contains(&who) {
                found.push(who);
            }
        }
        found
    }

    fn metrics(&self) -> Markup {
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
            let value = self.plain().find(|value| self::who(value) == *who && value.name() == name);
            value.map_or_else(|| html! { "–" }, with_small_interval)
        };
        let rankers = self.rankers();
        let rows = html! {
            tr {
                th {}
                @for who in &rankers { th { (label(*who)) } }
            }
            @for (_, _, name) in &names {
                tr {
                    td { (name) }
                    @for who in &rankers { td { (cell(who, name)) } }
                }
            }
        };
        table("All metrics", &rows, true)
    }

    /// Renders the first policy's main differences, and all others in a collapsed table.
    fn comparisons(&self) -> Markup {
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
        let header = html! {
            tr { th {} th { "metric" } th { "paired difference" } th { "p" } }
        };
        html! {
            (table("Paired differences", &html! {
                (header)
                @for value in all.iter().filter(is_headline) { (difference(value)) }
            }, true))
            (table("All paired differences", &html! {
                (header)
                @for value in &all { (difference(value)) }
            }, false))
        }
    }

    /// Renders the metric `name` of every slice.
    fn slices(&self, name: &str) -> Markup {
        let mut slices: Vec<&str> = Vec::new();
        for value in &self.values {
            if value.slice != "all" && !slices.contains(&value.slice.as_str()) {
                slices.push(&value.slice);
            }
        }
        let plot = |slice: &str| dot_plot::render(&slice.replace('_', " "), &self.rows(name, slice));
        html! {
            h3 { "User slices" }
            p.about {
                (name) " by the target's number of training interactions, and by the length of the user's history."
            }
            div.dot-plots { @for plot in slices.into_iter().filter_map(plot) { (plot) } }
        }
    }

    fn probes(&self) -> Markup {
        let series = |who: &Who<'_>| Series {
            label: label(*who),
            points: self
                .plain()
                .filter(|value| self::who(value) == *who && value.metric == "first_at")
                .filter_map(|value| Some((value.k? as f64, value.estimate)))
                .collect(),
            marked: self.lists.candidates().is_some_and(|candidates| candidates < 25),
        };
        let chart = SeriesChart {
            title: "Position of the first choice",
            note: "fraction of first choices by position in the prompt's list",
            series: self.rankers().iter().map(series).collect(),
            reference: self.lists.candidates().map(|candidates| ("uniform", 1.0 / candidates as f64)),
        };
        let others =
            self.plain().filter(|value| !matches!(value.metric.as_str(), "HR" | "NDCG" | "MRR" | "first_at"));
        let rows = html! {
            tr { th {} th { "metric" } th { "value" } th { "p" } }
            @for value in others {
                tr {
                    td { (label(who(value))) }
                    td { (value.name()) }
                    td { (with_small_interval(value)) }
                    td { (p_value(value)) }
                }
            }
        };
        html! {
            h3 { "Position and popularity bias" }
            p.about {
                "Lists are shuffled: a ranker that ignores the order chooses every position equally often, and makes the \
                 same choice in the reversed list. Popularity is the fraction of the catalogue with fewer interactions."
            }
            div.charts { @if let Some(chart) = chart.render() { (chart) } }
            (table("Format, positions, popularity, and metrics beyond accuracy", &rows, false))
        }
    }
}

/// A row of the table of differences.
fn difference(value: &MetricValue) -> Markup {
    let up = value.low.is_some_and(|low| low > 0.0);
    let down = value.high.is_some_and(|high| high < 0.0);
    html! {
        tr {
            td { (label(who(value))) " less " (value.against.as_deref().unwrap_or_default()) }
            td { (value.name()) }
            td { span.change.up[up].down[down] { (value.text()) } }
            td { (p_value(value)) }
        }
    }
}

fn table(title: &str, rows: &Markup, open: bool) -> Markup {
    html! {
        details.card open[open] {
            summary { (title) }
            div.scroll { table { (rows) } }
        }
    }
}

fn with_small_interval(value: &MetricValue) -> Markup {
    html! {
        (format!("{:.3}", value.estimate))
        @if let (Some(low), Some(high)) = (value.low, value.high) {
            " " small { (format!("[{low:.3}, {high:.3}]")) }
        }
    }
}

fn p_value(value: &MetricValue) -> String {
    value.p_value.map_or_else(String::new, |p| format!("{p:.4}"))
}

fn who(value: &MetricValue) -> Who<'_> {
    (&value.policy, value.ranking)
}

fn label((policy, ranking): Who<'_>) -> String {
    if ranking == Ranking::Baseline { policy.to_owned() } else { format!("{policy}, {ranking}") }
}

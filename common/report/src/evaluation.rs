//! The page of an evaluation: metrics of policies, their differences, user slices, and probes.

use std::fmt::Write as _;

use crate::html::{self, Escaped};
use crate::series::{Series, SeriesChart};
use crate::standing::{self, Row};
use podium_evaluation::{Evaluation, Figure, Ranking};

/// The metrics of one number of negatives.
struct Section<'a> {
    negatives: usize,
    figures: Vec<&'a Figure>,
}

type Who<'a> = (&'a str, Ranking);

/// Renders the page.
pub(crate) fn render(evaluation: &Evaluation) -> String {
    let plan = &evaluation.plan;
    let mut main = String::new();
    for table in &evaluation.tables {
        let figures = evaluation.find(|figure| figure.negatives == table.negatives).collect();
        main.push_str(&Section { negatives: table.negatives, figures }.render());
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
        let row = |figure: &&Figure| Row {
            who: label((&figure.policy, figure.ranking)),
            mean: figure.estimate,
            interval: figure.low.zip(figure.high),
            dot: if figure.ranking == Ranking::Baseline { "quiet" } else { "solid" },
        };
        let is_shown =
            |figure: &&&Figure| figure.against.is_none() && figure.slice == slice && figure.name() == name;
        self.figures.iter().filter(is_shown).map(row).collect()
    }

    /// Returns the largest NDCG that all rankers have.
    fn widest_ndcg(&self) -> Option<String> {
        let rankers = self.rankers();
        let mut cuts: Vec<usize> =
            self.plain().filter(|figure| figure.metric == "NDCG").filter_map(|figure| figure.k).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let has = |who: &Who<'_>, k: usize| {
            self.plain().any(|figure| {
                (figure.policy.as_str(), figure.ranking) == *who
                    && figure.metric == "NDCG"
                    && figure.k == Some(k)
            })
        };
        let k = cuts.into_iter().rev().find(|&k| rankers.iter().all(|who| has(who, k)))?;
        Some(format!("NDCG@{k}"))
    }

    /// Returns the metrics of all users, without differences.
    fn plain(&self) -> impl Iterator<Item = &'a Figure> {
        self.figures.iter().copied().filter(|figure| figure.against.is_none() && figure.slice == "all")
    }

    fn rankers(&self) -> Vec<Who<'a>> {
        let mut found = Vec::new();
        for figure in self.plain() {
            let who = (figure.policy.as_str(), figure.ranking);
            if !found.contains(&who) {
                found.push(who);
            }
        }
        found
    }

    fn metrics(&self, html: &mut String) {
        let is_metric = |figure: &&Figure| matches!(figure.metric.as_str(), "HR" | "NDCG" | "MRR");
        let kind = |figure: &Figure| ["HR", "NDCG", "MRR"].iter().position(|kind| *kind == figure.metric);
        let mut names: Vec<(Option<usize>, usize, String)> = self
            .plain()
            .filter(is_metric)
            .map(|figure| (kind(figure), figure.k.unwrap_or(usize::MAX), figure.name()))
            .collect();
        names.sort();
        names.dedup();
        let cell = |who: &Who<'_>, name: &str| {
            let figure = self
                .plain()
                .find(|figure| (figure.policy.as_str(), figure.ranking) == *who && figure.name() == name);
            figure.map_or_else(|| "–".to_owned(), value)
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
        let all: Vec<&Figure> =
            self.figures.iter().copied().filter(|figure| figure.against.is_some()).collect();
        let first = all.first().map(|figure| figure.policy.as_str());
        let widest = |of: &Figure| {
            let same = all.iter().filter(|figure| figure.metric == "NDCG" && figure.ranking == of.ranking);
            same.filter_map(|figure| figure.k).max()
        };
        let is_headline = |figure: &&&Figure| {
            Some(figure.policy.as_str()) == first
                && match figure.metric.as_str() {
                    "HR" => figure.k == Some(1),
                    "NDCG" => figure.k == widest(figure),
                    _ => false,
                }
        };
        let header = "<tr><th></th><th>metric</th><th>paired difference</th><th>p</th></tr>";
        let headlines: String = all.iter().filter(is_headline).map(|figure| difference(figure)).collect();
        table(html, "Paired differences", &format!("{header}{headlines}"), true);
        let everything: String = all.iter().map(|figure| difference(figure)).collect();
        table(html, "All paired differences", &format!("{header}{everything}"), false);
    }

    /// Renders the largest NDCG of every slice.
    fn slices(&self, html: &mut String) {
        let Some(name) = self.widest_ndcg() else { return };
        let mut slices: Vec<&str> = Vec::new();
        for figure in &self.figures {
            if figure.slice != "all" && !slices.contains(&figure.slice.as_str()) {
                slices.push(&figure.slice);
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
                .filter(|figure| {
                    (figure.policy.as_str(), figure.ranking) == *who && figure.metric == "first_at"
                })
                .filter_map(|figure| Some((figure.k? as f64, figure.estimate)))
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
        for figure in self.plain() {
            if matches!(figure.metric.as_str(), "HR" | "NDCG" | "MRR" | "first_at") {
                continue;
            }
            let p_value = figure.p_value.map_or(String::new(), |p| format!("{p:.4}"));
            let _ = write!(
                rows,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{p_value}</td></tr>",
                Escaped(label((&figure.policy, figure.ranking))),
                figure.metric,
                value(figure),
            );
        }
        let header = "<tr><th></th><th>metric</th><th>value</th><th>p</th></tr>";
        table(html, "Format, positions and popularity", &format!("{header}{rows}"), false);
    }
}

/// A row of the table of differences.
fn difference(figure: &Figure) -> String {
    let direction = match (figure.low, figure.high) {
        (Some(low), _) if low > 0.0 => " up",
        (_, Some(high)) if high < 0.0 => " down",
        _ => "",
    };
    format!(
        "<tr><td>{} less {}</td><td>{}</td><td><span class=\"change{direction}\">{}</span></td><td>{}</td></tr>",
        Escaped(label((&figure.policy, figure.ranking))),
        Escaped(figure.against.as_deref().unwrap_or_default()),
        figure.name(),
        figure.text(),
        figure.p_value.map_or(String::new(), |p| format!("{p:.4}")),
    )
}

fn table(html: &mut String, title: &str, rows: &str, open: bool) {
    let open = if open { " open" } else { "" };
    let _ = writeln!(
        html,
        "<details class=\"card\"{open}><summary>{title}</summary><div class=\"scroll\"><table>{rows}</table></div></details>"
    );
}

fn value(figure: &Figure) -> String {
    match (figure.low, figure.high) {
        (Some(low), Some(high)) => format!("{:.3} <small>[{low:.3}, {high:.3}]</small>", figure.estimate),
        _ => format!("{:.3}", figure.estimate),
    }
}

fn label((policy, ranking): Who<'_>) -> String {
    if ranking == Ranking::Baseline { policy.to_owned() } else { format!("{policy}, {ranking}") }
}

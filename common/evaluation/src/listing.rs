//! Files for further analysis: metrics.csv, one row per metric, and lists.jsonl, one line per candidate list.

use std::io::{self, Write};

use podium_recsys::dataset::HeldOut;
use podium_recsys::ranking::probes::Placed;
use serde::Serialize;
use serde_json::{Value, json};

use crate::evaluation::Evaluation;
use crate::metric_value::MetricValue;
use crate::ranked::{Answers, Ranked, Ranking, Table};

/// Writes the metrics of a part of the data set as CSV, with a header.
pub fn csv(values: &[MetricValue], part: HeldOut, file: impl Write) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(file);
    for value in values {
        writer.serialize((value, Of { part }))?;
    }
    writer.flush()
}

/// The last column of metrics.csv.
#[derive(Serialize)]
struct Of {
    part: HeldOut,
}

/// Writes one line for each evaluated list: its user, its candidates in order, and every ranker's result.
pub fn lists(evaluation: &Evaluation, mut file: impl Write) -> io::Result<()> {
    for table in &evaluation.tables {
        for reversed in [false, true] {
            let draws = table.ranked.first().map_or(0, |ranked| rankings(ranked, reversed).len());
            for draw in 0..draws {
                for user in 0..evaluation.plan.users().len() {
                    writeln!(file, "{}", line(evaluation, table, (draw, reversed), user))?;
                }
            }
        }
    }
    file.flush()
}

fn rankings(ranked: &Ranked, reversed: bool) -> &[Vec<Placed>] {
    if reversed { &ranked.reversed } else { &ranked.draws }
}

fn line(evaluation: &Evaluation, table: &Table, (draw, reversed): (usize, bool), user: usize) -> Value {
    let plan = &evaluation.plan;
    let whom = &plan.users()[user];
    let asked = |answers: &Answers| {
        let draws = if reversed { &answers.reversed } else { &answers.draws };
        draws[draw][user].clone()
    };
    let candidates = table.answers.first().map(|answers| asked(answers).candidates);
    let item = plan.dataset.catalogue.get(whom.target());
    let mut rankers: Vec<Value> = Vec::new();
    for ranked in &table.ranked {
        let Some(Placed { rank, first, top }) = rankings(ranked, reversed).get(draw).map(|draw| &draw[user])
        else {
            continue;
        };
        let mut ranker = json!({
            "policy": ranked.policy,
            "ranking": ranked.ranking,
            "rank": rank,
            "first": first.map(|first| first.item),
            "top": top,
        });
        let policy = plan.policies.iter().position(|policy| policy.name == ranked.policy);
        if let (Ranking::Generated, Some(policy)) = (ranked.ranking, policy) {
            let answer = asked(&table.answers[policy]);
            ranker["form"] = json!(answer.form);
            ranker["named"] = json!(answer.named_candidate());
        }
        rankers.push(ranker);
    }
    json!({
        "part": plan.asked.part,
        "negatives": table.lists,
        "draw": draw,
        "reversed": reversed,
        "user": whom.id,
        "target": whom.target(),
        "target_interactions": item.map(|item| item.interactions),
        "history_length": whom.items.len() - 1,
        "candidates": candidates,
        "rankers": rankers,
    })
}

#[cfg(test)]
mod tests {
    use podium_recsys::ranking::Estimate;

    use super::*;
    use crate::lists::Lists;

    #[test]
    fn a_metric_is_a_row() {
        let estimate = Estimate { mean: 0.5, low: 0.25, high: 0.75, count: 9 };
        let value = MetricValue::new(
            ("runs/a, \"b\"", Ranking::Generated),
            Lists::Sampled(99),
            "HR",
            Some(1),
            estimate,
        );
        let mut file = Vec::new();
        let plain = MetricValue { k: None, negatives: Lists::Catalogue, ..value.clone().plain() };
        csv(&[value, plain], HeldOut::Test, &mut file).unwrap();
        assert_eq!(
            String::from_utf8(file).unwrap(),
            "policy,against,negatives,ranking,slice,metric,k,estimate,low,high,n,p_value,part\n\
             \"runs/a, \"\"b\"\"\",,99,generated,all,HR,1,0.5,0.25,0.75,9,,test\n\
             \"runs/a, \"\"b\"\"\",,catalogue,generated,all,HR,,0.5,,,9,,test\n"
        );
    }
}

//! `podium-curator assess`: computes the confidence in each reasoning; see [`confidence`] for the formula.

mod confidence;
mod judge;
mod report;
mod row;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use podium_files::durable;
use podium_recsys::task::Case;
use podium_recsys::{Dataset, UserId};
use podium_service::{output, output_line};
use serde::{Deserialize, Serialize};

use crate::flags;
use crate::reasoning::{Modality, file, steps};
use crate::session::{self, Failure, Outcome, Question, Session};
use crate::source;
use confidence::Scores;
use row::Row;

/// Suffix of the file of scores.
pub(crate) const ASSESSMENT: &str = "assessment.json";
/// Token budget of a list with some reasoning before it.
const MAX_TOKENS: u64 = 4096;

/// Computes the confidence in each reasoning.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::Arguments,
    #[command(flatten)]
    session: session::Arguments,
    /// The reasoning to assess. Default: the rewritten reasoning in the data folder.
    #[arg(long, value_name = "FILE")]
    reasoning: Option<PathBuf>,
    /// Number of rankings by the judge, each with a different candidate sample.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rankings: u64,
    /// Weight of the agreement between pictures and captions, from 0 to 1; the prediction has the remaining weight.
    /// With 0 the reasoning from pictures and captions is not read.
    #[arg(long, value_name = "W", default_value_t = 0.5, value_parser = flags::share)]
    agreement_weight: f64,
}

/// The file of scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Assessment {
    /// Formula of the confidence.
    formula: String,
    /// Weight of the agreement.
    agreement_weight: f64,
    /// Number of rankings by the judge.
    rankings: u64,
    /// One row per user, in the order of the training file.
    pub(crate) rows: Vec<Row>,
}

impl Assessment {
    /// Reads a file of scores.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {} (written by podium-curator assess)", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{}: expected scores written by podium-curator assess", path.display()))
    }
}

/// A reasoning that is being assessed.
struct Judged<'a> {
    user: UserId,
    reasoning: &'a str,
    agreement: f64,
    /// One case per ranking.
    cases: Vec<Case>,
}

impl Arguments {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let source = self.source.load()?;
        let path = self.reasoning.clone().unwrap_or_else(|| source.file(file::REFINED));
        let reasoning = file::read(&path, &source.dataset)?;
        let modality = |modality: Modality| {
            if self.agreement_weight == 0.0 {
                return Ok(BTreeMap::new());
            }
            file::read(&source.file(&file::ending(modality)), &source.dataset)
        };
        let (images, captions) = (modality(Modality::Images)?, modality(Modality::Captions)?);
        let task = source.task(source.dataset.clone())?;

        let (mut judged, mut apart) = (Vec::new(), 0);
        for (index, user) in source.dataset.train.iter().enumerate() {
            let Some(reasoning) = reasoning.get(&user.id) else { continue };
            let both = images.get(&user.id).zip(captions.get(&user.id));
            let agreement = both.and_then(|(one, other)| {
                Some(confidence::agreement(&steps::read(one).ok()?, &steps::read(other).ok()?))
            });
            if agreement.is_none() && self.agreement_weight > 0.0 {
                apart += 1;
                continue;
            }
            // The epoch selects the candidate sample; the judge uses the first ones.
            let cases: Result<Vec<Case>, _> =
                (0..self.rankings).map(|draw| task.training_case(index, draw)).collect();
            judged.push(Judged {
                user: user.id,
                reasoning,
                agreement: agreement.unwrap_or(0.0),
                cases: cases?,
            });
        }
        output_line!("judging the reasoning about {} training users", judged.len());
        if apart > 0 {
            output_line!("skipped: {apart} users without reasoning both from images and from captions");
        }
        let session = self.session.session("assess", &source.folder, MAX_TOKENS)?;
        let results =
            session.each(&judged, async |index| ranks(&session, &judged[index], &source.dataset).await).await;
        let mut outcome = Outcome::default();
        let ranked = outcome.sort(&judged, results, |judged| judged.user.to_string());
        let rows: Vec<Row> = judged
            .iter()
            .zip(ranked)
            .filter_map(|(judged, ranks)| {
                let ranks = ranks?;
                let prediction = confidence::prediction(&ranks);
                Some(Row {
                    user_id: judged.user,
                    score: Scores::new(judged.agreement, prediction, self.agreement_weight),
                    ranks,
                    reasoning: judged.reasoning.to_owned(),
                })
            })
            .collect();
        let output = source.file(ASSESSMENT);
        outcome.finish(&session, &output, || {
            output!("{}", report::distribution(&rows));
            let assessment = Assessment {
                formula: "agreement^w * prediction^(1 - w)".to_owned(),
                agreement_weight: self.agreement_weight,
                rankings: self.rankings,
                rows,
            };
            let text = serde_json::to_string_pretty(&assessment)? + "\n";
            durable::write(&output, text.as_bytes())?;
            Ok(true)
        })
    }
}

/// Returns the ranks of the target in the judge's rankings, one per case.
async fn ranks(
    session: &Session,
    judged: &Judged<'_>,
    dataset: &Dataset,
) -> Result<Vec<Option<usize>>, Failure> {
    let mut ranks = Vec::with_capacity(judged.cases.len());
    for (sample, case) in (0..).zip(&judged.cases) {
        let messages = judge::question(case, judged.reasoning, &dataset.catalogue);
        let question = Question { messages, sample: Some(sample) };
        ranks.push(session.ask(&question, |answer| judge::rank(answer, case, &dataset.catalogue)).await?);
    }
    Ok(ranks)
}

//! `podium-curator check`: checks training texts for leaks, repetitions and malformed rows. Exits with code 1 if there
//! are findings.

mod balance;
mod findings;
mod rows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use podium_files::durable;
use podium_recsys::{Dataset, UserId, mixed};
use podium_service::output;

use crate::assess::{ASSESSMENT, Assessment};
use crate::flags;
use crate::mix::MIXED;
use crate::naming::names;
use crate::reasoning::{Modality, file, users};
use crate::source;
use crate::wording::folded;
use findings::{Findings, Kind};
use podium_recsys::dataset::RowPolicy;
use rows::Rows;

/// Checks the texts of a data set and its training file.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::Arguments,
    /// The training file. Default: the file in the data folder, if it exists.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Maximum fraction of reasoning that names its own target, which guessing can explain.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = flags::share)]
    named_targets_at_most: f64,
    /// Also write the findings to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let source = self.source.load()?;
        let mut findings = Findings::default();
        let reasoning_files = [
            "reasoning.json",
            "deepseek_cot.json",
            &file::ending(Modality::Images),
            &file::ending(Modality::Captions),
            file::REFINED,
        ]
        .map(|ending| source.file(ending));
        for path in reasoning_files.iter().filter(|path| path.exists()) {
            let (reasoning, report) = source.dataset.read_reasoning(path, RowPolicy::Skip)?;
            others(path, report.reasoning_not_of_training_users, &mut findings);
            for (rows, skipped) in &report.skipped {
                findings.add_many(Kind::Malformed, skipped.count, || rows.clone());
            }
            let texts = reasoning.iter().map(|(user, text)| (*user, text.as_str()));
            self.named_targets(path, &source.dataset, texts, &mut findings);
        }
        let scores = source.file(ASSESSMENT);
        if scores.exists() {
            let assessment = Assessment::read(&scores)?;
            let trained: Vec<UserId> =
                users::training(&source.dataset, None, 0).iter().map(|user| user.id).collect();
            let strangers = assessment.rows.iter().filter(|row| !trained.contains(&row.user_id)).count();
            others(&scores, strangers, &mut findings);
            let texts = assessment.rows.iter().map(|row| (row.user_id, row.reasoning.as_str()));
            self.named_targets(&scores, &source.dataset, texts, &mut findings);
        }
        let path = self.file.clone().unwrap_or_else(|| source.file(MIXED));
        if self.file.is_some() || path.exists() {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {} as UTF-8 text", path.display()))?;
            let task = source.rendered_task(source.dataset.clone())?;
            let mut rows = Rows::new(&task, source.split());
            for (line, row) in mixed::read(&text, &path) {
                match row {
                    Ok(row) => rows.look(&row, line, &mut findings)?,
                    Err(error) => findings.add(Kind::Malformed, || error.to_string()),
                }
            }
        }
        if balance::is_uneven(&findings.positions) {
            findings.add(Kind::UnevenPositions, || "chi-squared test, p < 0.001".to_owned());
        }
        output!("{findings}");
        if let Some(path) = &self.json {
            durable::write(path, (serde_json::to_string_pretty(&findings)? + "\n").as_bytes())?;
        }
        Ok(if findings.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Finds reasoning that names its target more often than reasoning generated without knowledge of the target.
    fn named_targets<'a>(
        &self,
        path: &Path,
        dataset: &Dataset,
        texts: impl Iterator<Item = (UserId, &'a str)>,
        findings: &mut Findings,
    ) {
        let users: std::collections::BTreeMap<UserId, _> =
            dataset.train.iter().map(|user| (user.id, user)).collect();
        let (mut total, mut named) = (0_u64, 0_u64);
        for (user, text) in texts {
            let Some(user) = users.get(&user) else { continue };
            let Some(target) = dataset.catalogue.get(user.target()) else { continue };
            let known = dataset.history(user).iter().filter_map(|item| dataset.catalogue.get(*item));
            let named_in_history =
                known.map(|item| item.title.as_str()).any(|title| names(title, &target.title));
            total += 1;
            named += u64::from(
                folded(text).contains(&folded(&target.id.to_string()))
                    || (!named_in_history && names(text, &target.title)),
            );
        }
        findings.reasonings += total;
        if named as f64 > self.named_targets_at_most * total as f64 {
            findings.add_many(Kind::ReasoningNamesTarget, named, || {
                format!("{named} of {total} in {}", path.display())
            });
        }
    }
}

fn others(path: &Path, count: usize, findings: &mut Findings) {
    if count > 0 {
        findings.add_many(Kind::ReasoningOfOthers, count as u64, || path.display().to_string());
    }
}

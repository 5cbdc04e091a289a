//! report.html: the results of a run or an evaluation in one self-contained file without network access.
//!
//! The report of a run reads only its folder; missing parts are omitted.

// Printing macros panic on a closed output: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod anatomy;
mod answers;
mod chart;
mod document;
mod dot_plot;
mod evaluation;
mod page;
mod samples;
mod scale;
mod series;
mod watch;

use std::path::Path;

use podium_files::durable;

use podium_config::RunFile;
use podium_evaluation::Evaluation;
use podium_evaluation::results::{self, Results};

/// The reasons why a report cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Recorded results cannot be read.
    #[error(transparent)]
    Results(#[from] results::Error),
    /// The page cannot be written.
    #[error(transparent)]
    Write(#[from] durable::Error),
}

/// Writes the report of `run`, whose results are in `folder`, to `path`.
pub fn write(run: &RunFile, folder: &Path, finished: bool, path: &Path) -> Result<(), Error> {
    let page = page::Page {
        run,
        results: &Results::read(folder)?,
        samples: &results::rows(&folder.join("samples.jsonl"))?,
        finished,
    };
    Ok(durable::write(path, page.render().into_string().as_bytes())?)
}

/// Writes the report of an evaluation.
pub fn write_evaluation(evaluation: &Evaluation, path: &Path) -> Result<(), durable::Error> {
    durable::write(path, evaluation::render(evaluation).into_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn evaluation(version: u64, hits: f64) -> String {
        let estimate = |mean: f64| json!({"mean": mean, "low": mean - 0.04, "high": mean + 0.04});
        format!(
            "{}\n",
            json!({
                "policy_version": version, "step": version, "users": 600, "HR@1": estimate(hits),
                "HR@3": estimate(hits + 0.3), "MRR": estimate(hits + 0.1), "NDCG@3": estimate(hits + 0.2),
                "completions/well_formed": 0.97, "mean_length": 31.5,
                "change_from_start": if version > 0 { json!({"HR@1": estimate(0.1)}) } else { json!(null) },
            })
        )
    }

    #[test]
    fn a_report_shows_the_folders_content_and_is_self_contained() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, report) = (folder.path(), folder.path().join("report.html"));
        let write = || write(&RunFile::default(), folder, false, &report).unwrap();
        write();
        fs::write(folder.join("evaluations.jsonl"), evaluation(0, 0.3) + &evaluation(20, 0.4)).unwrap();
        let steps = (1..=20)
            .map(|step| format!("{}\n", json!({"step": step, "reward": 0.5, "reward_std": 0.1, "kl": 0.0, "step_time": 1.5, "time/computing": 0.5, "time/other": 0.1})));
        fs::write(folder.join("metrics.jsonl"), steps.collect::<String>()).unwrap();
        let baselines =
            json!({"random": {"HR@1": 0.1}, "popularity": {"HR@1": 0.12}, "best_possible": {"HR@1": 0.6}});
        fs::write(folder.join("baselines.json"), baselines.to_string()).unwrap();
        write();
        let html = fs::read_to_string(&report).unwrap();
        for part in [
            "<small>0.300 →</small> 0.400",
            "60 %",
            "best possible 0.600",
            "KL to the reference",
            "Anatomy",
            "run hash",
        ] {
            assert!(html.contains(part), "{part}");
        }
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }
}

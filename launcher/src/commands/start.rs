//! The initial policy of a run on the embedded data set whose run file names no policy.

use std::ffi::OsString;

use podium_config::RunFile;
use podium_service::notice;

use super::Error;
use super::stages::{self, Ingredients, Stages};
use crate::devices::Table;
use crate::embedded;

/// Provides the initial policy in the run's folder and sets its path in `run`. Returns `false` if a
/// signal arrived.
///
/// The program includes the initial policy of the demo's own run file; for another world it trains
/// one.
pub(super) async fn provide(run: &mut RunFile, stages: &Stages<'_>) -> Result<bool, Error> {
    if run.data.dir.is_some() {
        return Err(Error::NoStart);
    }
    let start = stages.folder.start_policy();
    if embedded::start_fits(run) {
        embedded::write_start(&start)?;
    } else if !start.exists() {
        stages.folder.store(run)?;
        notice!("training the initial policy: {} steps of supervised fine-tuning", run.sft.steps);
        let device = Table::of_stage(run)?.rank(0);
        let mut arguments: Vec<OsString> = vec!["sft".into()];
        arguments.extend(stages::random_embedded(run, stages.folder)?);
        arguments.extend(stages.of_run(&device));
        if !stages.make("sft", arguments, device.environment, &start, &Ingredients::new()).await? {
            return Ok(false);
        }
    }
    run.model.path = Some(stages::absolute(start)?);
    Ok(true)
}

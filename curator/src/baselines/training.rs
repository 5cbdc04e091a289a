//! Trains models with progress on the terminal. A signal ends the training after a checkpoint.

use std::ops::ControlFlow;
use std::path::Path;

use podium_baselines::{Model, Options, Progress, train};
use podium_recsys::Dataset;
use podium_service::progress;
use podium_service::shutdown;
use podium_service::startup::{self, Threads};

use super::arguments::Training;
use super::error::Error;

/// The progress of one choice of settings.
struct Shown {
    model: Model,
    trial: usize,
    best: f64,
    bar: progress::Progress,
}

/// Trains the requested models into `folder`; returns `false` if a signal arrived.
pub(super) fn run(dataset: &Dataset, arguments: &Training, folder: &Path) -> Result<bool, Error> {
    let options = Options {
        models: arguments.models.iter().copied().map(Model::from).collect(),
        seed: arguments.seed,
        threads: arguments.threads.into(),
        epochs: arguments.epochs,
        patience: arguments.patience as usize,
    };
    let runtime = startup::runtime(Threads::Some(1))?;
    let stop = runtime.block_on(async { shutdown::on_signal() }).map_err(Error::Signals)?;
    let mut shown: Option<Shown> = None;
    let finished = train(dataset, &options, folder, &mut |progress| {
        show(&mut shown, progress);
        if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(shown) = shown {
        shown.bar.finish();
    }
    Ok(finished.is_some())
}

fn show(shown: &mut Option<Shown>, progress: Progress) {
    let Progress { model, trial, trials, epoch, epochs, loss, ndcg } = progress;
    if shown.as_ref().is_none_or(|shown| (shown.model, shown.trial) != (model, trial)) {
        if let Some(shown) = shown {
            shown.bar.finish();
        }
        // A closed form is one step.
        let bar = progress::Progress::new(model.name(), epochs.max(1));
        *shown = Some(Shown { model, trial, best: ndcg, bar });
    }
    if let Some(shown) = shown {
        shown.best = shown.best.max(ndcg);
        let loss = loss.map_or(String::new(), |loss| format!("loss {loss:.4}  "));
        let best = shown.best;
        shown.bar.show(epoch.max(u64::from(epochs == 0)), || {
            format!("settings {trial}/{trials}  {loss}validation NDCG@10 {ndcg:.4} (best {best:.4})")
        });
    }
}

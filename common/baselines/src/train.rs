//! Trains models, chooses their settings, and writes their scores for the held-out users.

use std::ops::ControlFlow;
use std::path::Path;

use podium_checkpoint::TensorInfo;
use podium_evaluation::trained::{self, Entry, Manifest};
use podium_files::durable::{self, Durability};
use podium_model::{Precision, checkpoint, device};
use podium_recsys::Dataset;
use serde_json::json;

use crate::ease::{Cooccurrences, Ease};
use crate::error::Error;
use crate::folder;
use crate::grid::{Model, Settings, grid};
use crate::interactions::{Case, Interactions};
use crate::network::{Network, Scorer};
use crate::pairs::PairModel;
use crate::pairs::bpr::BprMf;
use crate::pairs::lightgcn::LightGcn;
use crate::sequences::SequenceModel;
use crate::sequences::gru4rec::Gru4Rec;
use crate::sequences::sasrec::SasRec;
use crate::trial::{Record, Schedule, Trial};
use crate::validation;

/// Name of the file of weights in the folder of a model.
const WEIGHTS: &str = podium_checkpoint::ONE_FILE;
/// Name of the file with the result of a model in its folder.
const RESULT: &str = "model.json";

/// What to train, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The models, in any order.
    pub models: Vec<Model>,
    /// Seed of weights, batches, negatives and dropout.
    pub seed: u64,
    /// Number of libtorch's threads, on which results depend in rounding.
    pub threads: usize,
    /// Maximum number of epochs of each trial, in place of the model's own.
    pub epochs: Option<u64>,
    /// Number of validations without a better value after which a trial ends.
    pub patience: usize,
}

/// A validation of a trial, for display.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The model.
    pub model: Model,
    /// The trial, from 1.
    pub trial: usize,
    /// Number of trials.
    pub trials: usize,
    /// The epoch, from 1.
    pub epoch: u64,
    /// Maximum number of epochs.
    pub epochs: u64,
    /// Mean loss of the epoch; `None` for a model in closed form.
    pub loss: Option<f64>,
    /// NDCG@10 on the validation part.
    pub ndcg: f64,
}

/// Trains the models of `options` on the training part of `dataset` and writes weights and scores into `folder`.
///
/// A folder with the same inputs is continued: finished models are skipped, and an interrupted trial continues after its
/// last validation. `observe` receives every validation; if it breaks, the training ends after a checkpoint and `None`
/// is returned.
pub fn train(
    dataset: &Dataset,
    options: &Options,
    folder: &Path,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Manifest>, Error> {
    if options.models.is_empty() {
        return Err(Error::NoModels);
    }
    device::set_threads(options.threads)?;
    let data = Interactions::of(dataset, options.seed);
    let interactions = trained::interactions(dataset);
    folder::open(
        folder,
        &json!({
            "version": env!("CARGO_PKG_VERSION"),
            "interactions": interactions,
            "seed": options.seed,
            "threads": options.threads,
            "epochs": options.epochs,
            "patience": options.patience,
        }),
    )?;
    for model in Model::ALL.into_iter().filter(|model| options.models.contains(model)) {
        let training = Training { model, options, data: &data, folder: &folder.join(model.id()) };
        if training.result()?.is_none() && training.run(observe)?.is_none() {
            return Ok(None);
        }
    }
    let mut models = Vec::new();
    for model in Model::ALL {
        let training = Training { model, options, data: &data, folder: &folder.join(model.id()) };
        models.extend(training.result()?);
    }
    let manifest = Manifest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data: dataset.name.clone(),
        interactions,
        seed: options.seed,
        threads: options.threads,
        models,
    };
    folder::write_json(&folder.join(trained::MANIFEST), &manifest)?;
    Ok(Some(manifest))
}

/// The training of one model.
struct Training<'a> {
    model: Model,
    options: &'a Options,
    data: &'a Interactions,
    folder: &'a Path,
}

impl Training<'_> {
    /// Returns the stored result.
    fn result(&self) -> Result<Option<Entry>, Error> {
        folder::read_json(&self.folder.join(RESULT), "the result of a model")
    }

    fn run(&self, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Option<()>, Error> {
        if self.data.validation.is_empty() || self.data.train.iter().all(|sequence| sequence.items.len() < 2)
        {
            let problem = "expected a validation part, and training users with at least two interactions";
            return Err(Error::Unusable { model: self.model.name(), problem });
        }
        durable::create_folder(self.folder)?;
        let settings = grid(self.model);
        if self.model == Model::Ease {
            return self.solve(&settings, observe).map(Some);
        }
        let mut best: Option<(usize, Record)> = None;
        for index in 0..settings.len() {
            let Some(record) = self.fit(&self.trial(&settings, index), observe)? else { return Ok(None) };
            if best.as_ref().is_none_or(|(_, best)| ndcg(&record) > ndcg(best)) {
                best = Some((index, record));
            }
        }
        let (index, record) = best.expect("a grid is not empty");
        let trial = self.trial(&settings, index);
        let network = self.network(trial.settings);
        // The trial has ended: this reads its best weights.
        trial.run(network.as_ref(), &[], self.schedule(), &mut |_| ControlFlow::Continue(()))?;
        let parameters = network.parameters();
        parameters.write(&self.folder.join(WEIGHTS), &[("", &parameters.copies())])?;
        self.finish(network.as_ref(), &record)?;
        for index in 0..settings.len() {
            self.trial(&settings, index).discard_state()?;
        }
        Ok(Some(()))
    }

    fn trial<'a>(&'a self, settings: &'a [Settings], index: usize) -> Trial<'a> {
        let (count, settings) = (settings.len(), &settings[index]);
        Trial { model: self.model, number: index + 1, count, settings, folder: self.folder }
    }

    fn schedule(&self) -> Schedule {
        let (epochs, every) = match self.model {
            Model::SasRec | Model::SasRecBinary | Model::Gru4Rec | Model::Ease => (200, 2),
            Model::BprMf | Model::LightGcn => (400, 5),
        };
        Schedule { epochs: self.options.epochs.unwrap_or(epochs), every, patience: self.options.patience }
    }

    /// Trains a network with the settings of a trial; `None` if `observe` broke.
    fn fit(
        &self,
        trial: &Trial<'_>,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Option<Record>, Error> {
        let network = self.network(trial.settings);
        let schedule = self.schedule();
        trial.run(network.as_ref(), &self.data.validation, schedule, &mut |validation| {
            observe(Progress {
                model: self.model,
                trial: trial.number,
                trials: trial.count,
                epoch: validation.epoch,
                epochs: schedule.epochs,
                loss: validation.loss,
                ndcg: validation.ndcg,
            })
        })
    }

    fn network(&self, settings: &Settings) -> Box<dyn Network + '_> {
        let (data, seed) = (self.data, self.options.seed);
        let (users, items) = (data.train.len(), data.items);
        match settings {
            Settings::SasRec(settings) => {
                Box::new(SequenceModel::new(SasRec::new(items, settings, seed), settings.options(seed), data))
            }
            Settings::Gru4Rec(settings) => Box::new(SequenceModel::new(
                Gru4Rec::new(items, settings, seed),
                settings.options(seed),
                data,
            )),
            Settings::BprMf(settings) => Box::new(PairModel::new(
                BprMf::new(users, items, settings, seed),
                settings.options(seed),
                data,
            )),
            Settings::LightGcn(settings) => {
                let factors = LightGcn::new(items, &data.distinct(), settings, seed);
                Box::new(PairModel::new(factors, settings.options(seed), data))
            }
            Settings::Ease(_) => unreachable!("EASE has a closed form"),
        }
    }

    /// Computes EASE for each regularization.
    fn solve(
        &self,
        settings: &[Settings],
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let cooccurrences = Cooccurrences::of(self.data)?;
        let mut best: Option<(Ease, Record)> = None;
        for index in 0..settings.len() {
            let trial = self.trial(settings, index);
            let Settings::Ease(own) = trial.settings else { unreachable!("settings of EASE") };
            let ease = cooccurrences.weights(own)?;
            let record = trial.save_closed_form(validation::ndcg(&ease, &self.data.validation))?;
            // A closed form takes little time and is not interrupted.
            let _ = observe(Progress {
                model: self.model,
                trial: trial.number,
                trials: trial.count,
                epoch: 0,
                epochs: 0,
                loss: None,
                ndcg: ndcg(&record),
            });
            if best.as_ref().is_none_or(|(_, best)| ndcg(&record) > ndcg(best)) {
                best = Some((ease, record));
            }
        }
        let (ease, record) = best.expect("a grid is not empty");
        let weights = [("weights".to_owned(), ease.weights.shallow_clone())];
        checkpoint::write_file(
            &self.folder.join(WEIGHTS),
            &weights,
            Precision::Float32,
            Durability::Durable,
        )?;
        self.finish(&ease, &record)
    }

    /// Writes the scores for the held-out users, and then the result.
    fn finish(&self, scorer: &dyn Scorer, record: &Record) -> Result<(), Error> {
        let scores = self.folder.join("test.safetensors");
        write_scores(&scores, scorer, &self.data.test, self.data.items)?;
        let best = record.best.as_ref();
        let entry = Entry {
            name: self.model.name().to_owned(),
            settings: serde_json::to_value(&record.settings).expect("plain data"),
            epoch: best.map(|best| best.epoch),
            validation_ndcg: ndcg(record),
            sha256: durable::hex(&durable::sha256(&scores)?),
            scores: format!("{}/test.safetensors", self.model.id()),
        };
        folder::write_json(&self.folder.join(RESULT), &entry)
    }
}

fn ndcg(record: &Record) -> f64 {
    record.best.map_or(0.0, |best| best.ndcg)
}

/// Writes the scores of all items for each case, in tensors of consecutive cases that are computed one at a time.
fn write_scores(path: &Path, scorer: &dyn Scorer, cases: &[Case], items: usize) -> Result<(), Error> {
    let chunks: Vec<&[Case]> = cases.chunks(trained::ROWS).collect();
    let infos: Vec<TensorInfo> = chunks
        .iter()
        .enumerate()
        .map(|(number, chunk)| TensorInfo {
            name: trained::tensor(number),
            dtype: podium_checkpoint::Dtype::F32,
            shape: vec![chunk.len() as i64, items as i64],
        })
        .collect();
    // The writer asks in the order of the names, which is that of the chunks.
    let mut next = chunks.iter();
    podium_checkpoint::write_file(path, &infos, Durability::Durable, |_| {
        let chunk = next.next().expect("one chunk for each tensor");
        let scores = scorer.scores(chunk);
        Ok(checkpoint::bytes(&scores))
    })?;
    Ok(())
}

//! Training with one choice of settings: epochs, early stopping, checkpoints.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::adam::Adam;
use crate::error::Error;
use crate::folder;
use crate::grid::{Model, Settings};
use crate::interactions::Case;
use crate::network::Network;
use crate::validation;

/// When training ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Maximum number of epochs.
    pub(crate) epochs: u64,
    /// Epochs from one validation and checkpoint to the next.
    pub(crate) every: u64,
    /// Number of validations without a better value after which training ends.
    pub(crate) patience: usize,
}

/// A validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Validation {
    /// The epoch, from 1; 0 for a model in closed form.
    pub(crate) epoch: u64,
    /// Mean loss of the epoch; absent for a model in closed form.
    pub(crate) loss: Option<f64>,
    /// NDCG@10 on the validation part.
    pub(crate) ndcg: f64,
}

/// The record of a trial: `trial-<n>.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The settings.
    pub(crate) settings: Settings,
    /// Whether training has ended.
    pub(crate) finished: bool,
    /// Steps of the optimizer.
    pub(crate) steps: u64,
    /// The best validation.
    pub(crate) best: Option<Validation>,
    /// All validations.
    pub(crate) validations: Vec<Validation>,
}

/// A trial: its place among those of its model, and its files.
#[derive(Debug, Clone)]
pub(crate) struct Trial<'a> {
    pub(crate) model: Model,
    /// From 1.
    pub(crate) number: usize,
    pub(crate) count: usize,
    pub(crate) settings: &'a Settings,
    /// The folder of the model.
    pub(crate) folder: &'a Path,
}

/// Prefixes of the sets of tensors of a checkpoint.
const SETS: [&str; 4] = ["weights.", "first_moment.", "second_moment.", "best."];

impl Trial<'_> {
    fn path(&self) -> PathBuf {
        self.folder.join(format!("trial-{}.json", self.number))
    }

    fn state_prefix(&self) -> String {
        format!("trial-{}-", self.number)
    }

    fn state(&self, epoch: u64) -> PathBuf {
        self.folder.join(format!("{}{epoch}.safetensors", self.state_prefix()))
    }

    /// Returns the stored record of these settings.
    pub(crate) fn stored(&self) -> Result<Option<Record>, Error> {
        let record = folder::read_json::<Record>(&self.path(), "the record of a trial")?;
        Ok(record.filter(|record| record.settings == *self.settings))
    }

    /// Trains until the schedule ends or `observe` breaks, and leaves the best weights in the network. Continues from the
    /// last checkpoint. Returns `None` after a break.
    pub(crate) fn run(
        &self,
        network: &dyn Network,
        cases: &[Case],
        schedule: Schedule,
        observe: &mut dyn FnMut(&Validation) -> ControlFlow<()>,
    ) -> Result<Option<Record>, Error> {
        let parameters = network.parameters();
        let tensors = || parameters.tensors().iter().map(|(_, tensor)| tensor);
        let mut adam = Adam::new(tensors(), network.learning_rate());
        let mut best: Vec<Tensor> = parameters.copies();
        let mut record = match self.stored()? {
            Some(record) => {
                let epoch = record.validations.last().map_or(0, |last| last.epoch);
                let sets = parameters.read(&self.state(epoch), &SETS)?;
                let [weights, first, second, stored]: [Vec<Tensor>; 4] =
                    sets.try_into().expect("one set for each prefix");
                parameters.assign(&weights);
                (adam.first, adam.second, adam.steps) = (first, second, record.steps);
                best = stored;
                record
            }
            None => Record {
                settings: self.settings.clone(),
                finished: false,
                steps: 0,
                best: None,
                validations: Vec::new(),
            },
        };
        while !record.finished {
            let begin = record.validations.last().map_or(0, |last| last.epoch);
            let end = (begin + schedule.every).min(schedule.epochs);
            let mut loss = 0.0;
            for epoch in begin + 1..=end {
                loss = network.epoch(epoch, &mut || adam.step());
                if !loss.is_finite() {
                    let Self { model, number, count, .. } = *self;
                    return Err(Error::Diverged {
                        model: model.name(),
                        trial: number,
                        trials: count,
                        epoch,
                        loss,
                    });
                }
            }
            let validation =
                Validation { epoch: end, loss: Some(loss), ndcg: validation::ndcg(network, cases) };
            if record.best.is_none_or(|best| validation.ndcg > best.ndcg) {
                record.best = Some(validation);
                best = parameters.copies();
            }
            record.steps = adam.steps;
            record.validations.push(validation);
            let since = record.validations.iter().rev();
            let since = since.take_while(|one| Some(one.epoch) != record.best.map(|best| best.epoch)).count();
            record.finished = end >= schedule.epochs || since >= schedule.patience;
            self.save(network, &adam, &best, &record)?;
            if observe(&validation).is_break() && !record.finished {
                return Ok(None);
            }
        }
        parameters.assign(&best);
        Ok(Some(record))
    }

    /// Writes the tensors, then the record that names them, and removes earlier tensors.
    fn save(
        &self,
        network: &dyn Network,
        adam: &Adam,
        best: &[Tensor],
        record: &Record,
    ) -> Result<(), Error> {
        let parameters = network.parameters();
        let state = self.state(record.validations.last().map_or(0, |last| last.epoch));
        let weights = parameters.copies();
        let sets: [&[Tensor]; 4] = [&weights, &adam.first, &adam.second, best];
        let sets: Vec<(&str, &[Tensor])> = SETS.into_iter().zip(sets).collect();
        parameters.write(&state, &sets)?;
        folder::write_json(&self.path(), record)?;
        folder::remove_others(self.folder, &self.state_prefix(), Some(&state))
    }

    /// Stores the record of a model in closed form.
    pub(crate) fn save_closed_form(&self, ndcg: f64) -> Result<Record, Error> {
        let validation = Validation { epoch: 0, loss: None, ndcg };
        let record = Record {
            settings: self.settings.clone(),
            finished: true,
            steps: 0,
            best: Some(validation),
            validations: vec![validation],
        };
        folder::write_json(&self.path(), &record)?;
        Ok(record)
    }

    /// Removes the tensors of the trial. Its record remains.
    pub(crate) fn discard_state(&self) -> Result<(), Error> {
        folder::remove_others(self.folder, &self.state_prefix(), None)
    }
}

//! BPR-MF: matrix factorization with the pairwise loss (Rendle et al. 2009, arXiv:1205.2618).

use podium_checkpoint::parameters::Initial;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, with_grad};

use super::{Factors, Options};
use crate::adam::Adam;
use crate::parameters::{Parameters, parameter};

/// Standard deviation of initial vectors.
const STANDARD_DEVIATION: f64 = 0.1;
/// Steps that fit the vector of a user without training interactions, and their size.
const FOLD_IN: (usize, f64) = (100, 0.05);

/// The settings of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Width of the vectors.
    pub width: i64,
    /// Factor of the penalty.
    pub regularization: f64,
    /// Step size.
    pub learning_rate: f64,
    /// Number of triples in a batch.
    pub batch: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { width: 64, regularization: 1e-2, learning_rate: 2e-3, batch: 1024 }
    }
}

impl Settings {
    pub(crate) fn options(&self, seed: u64) -> Options {
        let Self { batch, learning_rate, regularization, .. } = *self;
        Options { seed, batch, learning_rate, regularization }
    }
}

/// A vector for each training user and item.
#[derive(Debug)]
pub(crate) struct BprMf {
    parameters: Parameters,
    users: Tensor,
    items: Tensor,
    regularization: f64,
}

impl BprMf {
    /// Creates random vectors.
    pub(crate) fn new(users: usize, items: usize, settings: &Settings, seed: u64) -> Self {
        let list = vec![
            parameter("users", &[users as i64, settings.width], Initial::Normal),
            parameter("items", &[items as i64, settings.width], Initial::Normal),
        ];
        let parameters = Parameters::new(list, seed, STANDARD_DEVIATION);
        Self {
            users: parameters.get("users"),
            items: parameters.get("items"),
            regularization: settings.regularization,
            parameters,
        }
    }
}

impl Factors for BprMf {
    fn trained(&self) -> (&Tensor, &Tensor) {
        (&self.users, &self.items)
    }

    fn scoring(&self) -> (Tensor, Tensor) {
        (self.users.shallow_clone(), self.items.shallow_clone())
    }

    /// Minimises the loss of each user's items against the mean item, with fixed items.
    fn fold_in(&self, histories: &[Vec<i64>]) -> Tensor {
        let (steps, size) = FOLD_IN;
        let items = self.items.detach();
        let mean = items.mean_dim(0, true, Kind::Float);
        let users: Vec<i64> =
            (0..).zip(histories).flat_map(|(user, history)| vec![user; history.len()]).collect();
        let users = Tensor::from_slice(&users);
        let margins = items.index_select(0, &Tensor::from_slice(&histories.concat())) - mean;
        let vectors =
            Tensor::zeros([histories.len() as i64, self.users.size()[1]], (Kind::Float, items.device()))
                .set_requires_grad(true);
        let mut adam = Adam::new(std::iter::once(&vectors), size);
        for _ in 0..steps {
            with_grad(|| {
                let of_item = vectors.index_select(0, &users);
                let loss = (-(&of_item * &margins).sum_dim_intlist(-1, false, Kind::Float)).softplus();
                let penalty = of_item.square().sum(Kind::Float) * (self.regularization / 2.0);
                (loss.sum(Kind::Float) + penalty).backward();
            });
            adam.step();
        }
        vectors.detach()
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}

#[cfg(test)]
mod tests {
    use podium_recsys::UserId;

    use super::*;
    use crate::interactions::{Case, Interactions, Sequence};
    use crate::network::{Network, Scorer};
    use crate::pairs::{PairModel, Triples};

    fn model() -> PairModel<BprMf> {
        let data = Interactions {
            items: 3,
            train: vec![Sequence { user: UserId(7), items: vec![0, 1] }],
            validation: Vec::new(),
            test: Vec::new(),
        };
        let settings = Settings { width: 2, regularization: 0.5, ..Settings::default() };
        let factors = BprMf::new(1, 3, &settings, 3);
        factors.parameters.assign(&[
            Tensor::from_slice(&[0.5_f32, -1.0]).view([1, 2]),
            Tensor::from_slice(&[1.0_f32, 0.5, -0.5, 2.0, 0.25, 0.75]).view([3, 2]),
        ]);
        PairModel::new(factors, settings.options(0), &data)
    }

    #[test]
    fn loss_and_gradients_match_a_computation_by_hand() {
        let model = model();
        let triple = Triples {
            users: Tensor::from_slice(&[0_i64]),
            positives: Tensor::from_slice(&[1_i64]),
            negatives: Tensor::from_slice(&[2_i64]),
        };
        let loss = model.loss(&triple);
        let (u, i, j) = ([0.5, -1.0], [-0.5, 2.0], [0.25, 0.75]);
        let margin: f64 = (0..2).map(|k| u[k] * (i[k] - j[k])).sum();
        let squares: f64 = [u, i, j].concat().iter().map(|x| x * x).sum();
        assert!((loss.double_value(&[]) - ((1.0 + (-margin).exp()).ln() + 0.25 * squares)).abs() < 1e-6);
        loss.backward();
        // The derivative of −log σ(x) is σ(x) − 1.
        let slope = 1.0 / (1.0 + (-margin).exp()) - 1.0;
        let (users, items) = model.factors.trained();
        for k in 0..2 {
            let at = |tensor: &Tensor, row: i64| tensor.grad().double_value(&[row, k as i64]);
            assert!((at(users, 0) - (slope * (i[k] - j[k]) + 0.5 * u[k])).abs() < 1e-6);
            assert!((at(items, 1) - (slope * u[k] + 0.5 * i[k])).abs() < 1e-6);
            assert!((at(items, 2) - (-slope * u[k] + 0.5 * j[k])).abs() < 1e-6);
            assert!(at(items, 0).abs() < 1e-12, "an item outside the triple has no gradient");
        }
    }

    #[test]
    fn an_epoch_trains_on_each_interaction_with_an_item_outside_the_sequence() {
        let model = model();
        let mut triples = model.triples(1);
        triples.sort_unstable();
        assert_eq!(triples, [[0, 0, 2], [0, 1, 2]]);
        let mut updates = 0;
        assert!(model.epoch(1, &mut || updates += 1) > 0.0);
        assert_eq!(updates, 1);
    }

    #[test]
    fn scores_are_products_and_new_users_prefer_their_items() {
        let model = model();
        let case = |user, history: &[i64]| Case { user: UserId(user), history: history.into(), target: 2 };
        let scores = model.scores(&[case(8, &[1]), case(7, &[0]), case(9, &[0])]);
        for (item, expected) in [(0, 0.0), (1, -2.25), (2, -0.625)] {
            assert!((scores.double_value(&[1, item]) - expected).abs() < 1e-6, "item {item}");
        }
        assert_eq!(scores.get(0).argmax(-1, false).int64_value(&[]), 1);
        assert_eq!(scores.get(2).argmax(-1, false).int64_value(&[]), 0);
    }
}

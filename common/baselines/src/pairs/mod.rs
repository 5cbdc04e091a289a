//! Recommenders whose scores are products of a user's and an item's vector: BPR-MF and LightGCN.
//!
//! Both are trained with Bayesian personalised ranking (Rendle et al. 2009, arXiv:1205.2618): for each interaction of a
//! user with an item, and a uniform item outside the user's training items, the loss is −log σ of the difference of
//! scores. The squares of the trained vectors of each triple are penalised.

pub(crate) mod bpr;
pub(crate) mod lightgcn;

use std::collections::BTreeMap;

use podium_grpo::rng::Stream;
use podium_recsys::UserId;
use tch::{Kind, Tensor, no_grad};

use crate::interactions::{Case, Interactions, distinct, other_item};
use crate::network::{Network, Scorer};
use crate::parameters::Parameters;

/// Settings that do not depend on the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// Number of triples in a batch.
    pub(crate) batch: usize,
    pub(crate) learning_rate: f64,
    /// Factor of the penalty.
    pub(crate) regularization: f64,
}

/// The vectors of a model.
pub(crate) trait Factors {
    /// Returns the trained vectors of users and of items, `[users, width]` and `[items, width]`.
    fn trained(&self) -> (&Tensor, &Tensor);

    /// Returns the vectors whose products are the scores.
    fn scoring(&self) -> (Tensor, Tensor);

    /// Returns the vectors of users without training interactions, `[users, width]`, from their distinct items.
    fn fold_in(&self, histories: &[Vec<i64>]) -> Tensor;

    /// Its parameters.
    fn parameters(&self) -> &Parameters;
}

/// A model with its training data.
#[derive(Debug)]
pub(crate) struct PairModel<F> {
    factors: F,
    options: Options,
    items: usize,
    users: BTreeMap<UserId, i64>,
    /// Sorted training items by user.
    taken: Vec<Vec<i64>>,
}

/// Users, their items, and items that are not theirs.
#[derive(Debug)]
pub(crate) struct Triples {
    pub(crate) users: Tensor,
    pub(crate) positives: Tensor,
    pub(crate) negatives: Tensor,
}

impl Triples {
    fn of(triples: &[[i64; 3]]) -> Self {
        let column = |column: usize| {
            Tensor::from_slice(&triples.iter().map(|triple| triple[column]).collect::<Vec<_>>())
        };
        Self { users: column(0), positives: column(1), negatives: column(2) }
    }
}

impl<F: Factors> PairModel<F> {
    pub(crate) fn new(factors: F, options: Options, data: &Interactions) -> Self {
        Self { factors, options, items: data.items, users: data.users(), taken: data.distinct() }
    }

    /// Returns each interaction of an epoch with a negative, in random order. Users of all items have none.
    fn triples(&self, epoch: u64) -> Vec<[i64; 3]> {
        let mut stream = Stream::new(self.options.seed, "baselines/triples", &[epoch]);
        let with_negatives = (0..).zip(&self.taken).filter(|(_, taken)| taken.len() < self.items);
        let mut triples: Vec<[i64; 3]> = with_negatives
            .flat_map(|(user, taken)| taken.iter().map(move |&item| (user, taken, item)))
            .map(|(user, taken, item)| [user, item, other_item(self.items, taken, &mut stream)])
            .collect();
        stream.shuffle(&mut triples);
        triples
    }

    /// Returns the loss of a batch: the mean over its triples.
    pub(crate) fn loss(&self, Triples { users, positives, negatives }: &Triples) -> Tensor {
        let (user_vectors, item_vectors) = self.factors.scoring();
        let user = user_vectors.index_select(0, users);
        let difference = item_vectors.index_select(0, positives) - item_vectors.index_select(0, negatives);
        let margin = (&user * difference).sum_dim_intlist(-1, false, Kind::Float);
        let (user_trained, item_trained) = self.factors.trained();
        let squares = [(user_trained, users), (item_trained, positives), (item_trained, negatives)]
            .map(|(vectors, rows)| vectors.index_select(0, rows).square().sum(Kind::Float));
        let [one, two, three] = squares;
        let penalty = (one + two + three) * (self.options.regularization / 2.0);
        ((-margin).softplus().sum(Kind::Float) + penalty) / users.size()[0] as f64
    }
}

impl<F: Factors> Scorer for PairModel<F> {
    fn scores(&self, cases: &[Case]) -> Tensor {
        let unknown: Vec<Vec<i64>> = cases
            .iter()
            .filter(|case| !self.users.contains_key(&case.user))
            .map(|case| distinct(&case.history))
            .collect();
        no_grad(|| {
            let (mut users, items) = self.factors.scoring();
            let mut next = users.size()[0];
            if !unknown.is_empty() {
                users = Tensor::cat(&[users, self.factors.fold_in(&unknown)], 0);
            }
            let rows: Vec<i64> = cases
                .iter()
                .map(|case| {
                    self.users.get(&case.user).copied().unwrap_or_else(|| {
                        next += 1;
                        next - 1
                    })
                })
                .collect();
            users.index_select(0, &Tensor::from_slice(&rows)).matmul(&items.tr())
        })
    }
}

impl<F: Factors> Network for PairModel<F> {
    fn parameters(&self) -> &Parameters {
        self.factors.parameters()
    }

    fn learning_rate(&self) -> f64 {
        self.options.learning_rate
    }

    fn epoch(&self, epoch: u64, update: &mut dyn FnMut()) -> f64 {
        let triples = self.triples(epoch);
        let mut total = 0.0;
        for batch in triples.chunks(self.options.batch) {
            let loss = self.loss(&Triples::of(batch));
            total += loss.double_value(&[]) * batch.len() as f64;
            loss.backward();
            update();
        }
        total / triples.len().max(1) as f64
    }
}

//! Recommenders that read a history as a sequence: SASRec and GRU4Rec.
//!
//! An encoder maps the items so far to a vector, whose products with the item embeddings are the scores of the next
//! item. Every position of a training sequence has a target: the item that follows.

pub(crate) mod gru4rec;
pub(crate) mod sasrec;
mod windows;

use podium_grpo::rng::Stream;
use podium_model::random::mix;
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor, no_grad};

use crate::dropout::Dropout;
use crate::interactions::{Case, Interactions};
use crate::network::{Network, Scorer};
use crate::parameters::Parameters;
use windows::{Batch, NO_TARGET, Window, pad};

/// Maximum number of scores that are in memory at once in training: 128 MB.
const MOST_SCORES: usize = 1 << 25;

/// The loss of each target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Softmax cross-entropy over the whole catalogue.
    CrossEntropy,
    /// Binary cross-entropy of the target and of one uniform item outside the user's training items.
    Binary,
}

/// Settings that do not depend on the encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// Maximum number of items that the encoder reads.
    pub(crate) length: usize,
    /// Number of windows in a batch.
    pub(crate) batch: usize,
    pub(crate) dropout: f64,
    pub(crate) learning_rate: f64,
    pub(crate) loss: Loss,
}

/// Maps sequences of items to vectors.
pub(crate) trait Encoder {
    /// Returns the vector at each position of `items`, `[sequences, length]`, as `[sequences, length, width]`. A position
    /// depends on the items up to it alone.
    fn encode(&self, items: &Tensor, dropout: Option<&Dropout>) -> Tensor;

    /// Returns the item embeddings, `[items, width]`.
    fn embeddings(&self) -> &Tensor;

    /// Its parameters.
    fn parameters(&self) -> &Parameters;
}

/// An encoder with its training data.
#[derive(Debug)]
pub(crate) struct SequenceModel<'a, E> {
    encoder: E,
    options: Options,
    data: &'a Interactions,
    /// Sorted training items by user, for negatives.
    taken: Vec<Vec<i64>>,
}

impl<'a, E: Encoder> SequenceModel<'a, E> {
    pub(crate) fn new(encoder: E, options: Options, data: &'a Interactions) -> Self {
        let taken = match options.loss {
            Loss::Binary => data.distinct(),
            Loss::CrossEntropy => Vec::new(),
        };
        Self { encoder, options, data, taken }
    }

    /// Returns the loss of one batch: a sum over its targets.
    fn loss(&self, batch: &Batch, dropout: Option<&Dropout>) -> Tensor {
        let encoded = self.encoder.encode(&batch.items, dropout);
        let width = encoded.size()[2];
        let vectors = encoded.view([-1, width]).index_select(0, &batch.places);
        let embeddings = self.encoder.embeddings();
        match &batch.negatives {
            None => {
                let scores = vectors.matmul(&embeddings.tr());
                scores.cross_entropy_loss(&batch.targets, None::<&Tensor>, Reduction::Sum, NO_TARGET, 0.0)
            }
            Some(negatives) => {
                let score = |items: &Tensor| {
                    (&vectors * embeddings.index_select(0, items)).sum_dim_intlist(-1, false, Kind::Float)
                };
                // −log σ(x) = softplus(−x), and −log(1 − σ(x)) = softplus(x).
                ((-score(&batch.targets)).softplus() + score(negatives).softplus()).sum(Kind::Float)
            }
        }
    }
}

impl<E: Encoder> Scorer for SequenceModel<'_, E> {
    fn scores(&self, cases: &[Case]) -> Tensor {
        let histories: Vec<&[i64]> = cases
            .iter()
            .map(|case| &case.history[case.history.len().saturating_sub(self.options.length)..])
            .collect();
        let (items, length) = pad(&histories);
        let last: Vec<i64> =
            (0..).zip(&histories).map(|(row, history)| row * length + history.len() as i64 - 1).collect();
        no_grad(|| {
            let encoded = self.encoder.encode(&items, None);
            let width = encoded.size()[2];
            let vectors = encoded.view([-1, width]).index_select(0, &Tensor::from_slice(&last));
            vectors.matmul(&self.encoder.embeddings().tr())
        })
    }
}

impl<E: Encoder> Network for SequenceModel<'_, E> {
    fn parameters(&self) -> &Parameters {
        self.encoder.parameters()
    }

    fn learning_rate(&self) -> f64 {
        self.options.learning_rate
    }

    fn epoch(&self, epoch: u64, update: &mut dyn FnMut()) -> f64 {
        let Options { seed, length, batch, dropout, .. } = self.options;
        let mut stream = Stream::new(seed, "baselines/windows", &[epoch]);
        let mut windows = windows::cut(&self.data.train, length, &mut stream);
        stream.shuffle(&mut windows);
        // Gradients of a batch are accumulated over parts whose scores fit into memory.
        let part = (MOST_SCORES / (length * self.data.items).max(1)).clamp(1, batch);
        let (mut total, mut targets) = (0.0, 0);
        for (number, batch) in (0..).zip(windows.chunks(batch)) {
            let of_batch: usize = batch.iter().map(Window::targets).sum();
            for (index, part) in (0..).zip(batch.chunks(part)) {
                let key = [epoch, number, index].iter().fold(mix(seed), |key, part| mix(key ^ part));
                let dropout = Dropout::new(dropout, key);
                let mut negatives =
                    Stream::new(seed, "baselines/sequence negatives", &[epoch, number, index]);
                let sampled = (self.options.loss == Loss::Binary).then_some((
                    &self.taken,
                    self.data.items,
                    &mut negatives,
                ));
                let loss = self.loss(&Batch::new(&self.data.train, part, sampled), Some(&dropout));
                total += loss.double_value(&[]);
                (loss / of_batch as f64).backward();
            }
            targets += of_batch;
            update();
        }
        total / targets.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use podium_recsys::UserId;
    use tch::Device;

    use super::gru4rec::Gru4Rec;
    use super::sasrec::SasRec;
    use super::*;
    use crate::interactions::Sequence;

    const ITEMS: usize = 30;

    fn data() -> Interactions {
        let sequence = |user: u64| {
            let items = (0..5 + user as i64).map(|step| (7 * step + user as i64) % ITEMS as i64);
            Sequence { user: UserId(user), items: items.collect() }
        };
        Interactions {
            items: ITEMS,
            train: (0..6).map(sequence).collect(),
            validation: Vec::new(),
            test: Vec::new(),
        }
    }

    fn sasrec() -> SasRec {
        let sasrec = SasRec::new(ITEMS, &sasrec::Settings { length: 8, ..sasrec::Settings::default() }, 1);
        spread(&sasrec);
        sasrec
    }

    fn gru4rec() -> Gru4Rec {
        let gru4rec =
            Gru4Rec::new(ITEMS, &gru4rec::Settings { length: 8, ..gru4rec::Settings::default() }, 1);
        spread(&gru4rec);
        gru4rec
    }

    /// Enlarges the weights, so that every item matters.
    fn spread(encoder: &impl Encoder) {
        let larger: Vec<Tensor> = encoder.parameters().copies().iter().map(|tensor| tensor * 5.0).collect();
        encoder.parameters().assign(&larger);
    }

    fn options(loss: Loss) -> Options {
        Options { seed: 3, length: 8, batch: 4, dropout: 0.2, learning_rate: 1e-3, loss }
    }

    fn largest(difference: &Tensor) -> f64 {
        difference.abs().max().double_value(&[])
    }

    fn a_position_depends_on_the_items_up_to_it(encoder: &impl Encoder) {
        let rows = |items: [i64; 6]| Tensor::from_slice(&items).view([1, 6]);
        let usual = encoder.encode(&rows([3, 1, 4, 1, 5, 9]), None);
        let future = encoder.encode(&rows([3, 1, 4, 2, 6, 0]), None);
        let past = encoder.encode(&rows([8, 1, 4, 1, 5, 9]), None);
        let at = |encoded: &Tensor, position: i64| encoded.narrow(1, position, 1);
        for position in 0..6 {
            let by_future = largest(&(at(&usual, position) - at(&future, position)));
            assert!(
                if position < 3 { by_future < 1e-6 } else { by_future > 1e-3 },
                "{position}: {by_future}"
            );
            let by_past = largest(&(at(&usual, position) - at(&past, position)));
            assert!(by_past > 1e-4, "position {position} ignores the first item: {by_past}");
        }
    }

    #[test]
    fn future_items_do_not_change_a_position() {
        a_position_depends_on_the_items_up_to_it(&sasrec());
        a_position_depends_on_the_items_up_to_it(&gru4rec());
    }

    fn padding_and_old_items_do_not_change_scores(encoder: impl Encoder) {
        let data = data();
        let model = SequenceModel::new(encoder, options(Loss::CrossEntropy), &data);
        let case = |history: &[i64]| Case { user: UserId(0), history: history.into(), target: 0 };
        let long: Vec<i64> = (0..12).collect();
        let (short, long) = (case(&[4, 9]), case(&long));
        let together = model.scores(&[short.clone(), long.clone()]);
        assert_eq!(together.size(), [2, ITEMS as i64]);
        for (row, alone) in [(0, short), (1, case(&long.history[4..]))] {
            let difference = largest(&(together.get(row) - model.scores(&[alone]).get(0)));
            assert!(difference < 1e-5, "row {row}: {difference}");
        }
        assert!(largest(&(together.get(1) - model.scores(&[case(&[11])]).get(0))) > 1e-3);
    }

    #[test]
    fn scores_depend_on_the_last_items_alone() {
        padding_and_old_items_do_not_change_scores(sasrec());
        padding_and_old_items_do_not_change_scores(gru4rec());
    }

    #[test]
    fn losses_match_their_definitions() {
        let data = data();
        let windows = windows::cut(&data.train, 8, &mut Stream::new(0, "test", &[]));
        let taken = data.distinct();
        let mut negatives = Stream::new(1, "test", &[]);
        let batch = Batch::new(&data.train, &windows, Some((&taken, ITEMS, &mut negatives)));
        let model = SequenceModel::new(sasrec(), options(Loss::Binary), &data);
        let vectors = model.encoder.encode(&batch.items, None).view([-1, 64]).index_select(0, &batch.places);
        let scores = vectors.matmul(&model.encoder.embeddings().tr()).to_kind(Kind::Double);
        let numbers = |tensor: &Tensor| Vec::<i64>::try_from(tensor).unwrap();
        let sampled = numbers(batch.negatives.as_ref().unwrap());
        let (mut binary, mut entropy) = (0.0, 0.0);
        for (row, (&target, &negative)) in (0..).zip(numbers(&batch.targets).iter().zip(&sampled)) {
            let score = |item: i64| scores.double_value(&[row, item]);
            binary += (1.0 + (-score(target)).exp()).ln() + (1.0 + score(negative).exp()).ln();
            entropy += (0..ITEMS as i64).map(|item| score(item).exp()).sum::<f64>().ln() - score(target);
        }
        let found = model.loss(&batch, None).double_value(&[]);
        assert!((found / binary - 1.0).abs() < 1e-5, "{found}, expected {binary}");
        let batch = Batch::new(&data.train, &windows, None);
        let found = model.loss(&batch, None).double_value(&[]);
        assert!((found / entropy - 1.0).abs() < 1e-5, "{found}, expected {entropy}");
    }

    #[test]
    fn an_epoch_updates_every_parameter() {
        let data = data();
        let model = SequenceModel::new(sasrec(), options(Loss::CrossEntropy), &data);
        let mut updates = 0;
        let loss = model.epoch(1, &mut || {
            updates += 1;
            for (name, tensor) in model.parameters().tensors() {
                let gradient = tensor.grad();
                assert!(gradient.defined() && largest(&gradient) > 0.0, "{name}");
                assert_eq!(gradient.device(), Device::Cpu);
            }
        });
        assert_eq!(updates, 2, "7 windows, 4 in a batch: one sequence is longer than a window");
        assert!(loss > 0.0 && loss.is_finite());
    }
}

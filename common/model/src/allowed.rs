//! Rows whose next token is restricted to a few: their logits, without a mask over the whole vocabulary.
//!
//! Sampling and scoring share this code, so that both renormalise over the same logits.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::attention::MASKED;
use crate::packed::Error;

/// Sets of token ids, one for each restricted row, on the device.
#[derive(Debug)]
pub(crate) struct AllowedRows {
    /// \[rows, largest set\]; smaller sets repeat their last token.
    ids: Tensor,
    /// \[rows, largest set\]: hides the repetitions.
    bias: Tensor,
}

impl AllowedRows {
    /// `sets`: at least one, none empty.
    pub(crate) fn new(sets: &[&[u32]], device: Device) -> Self {
        let width = sets.iter().map(|set| set.len()).max().unwrap_or(0);
        let (mut ids, mut bias) = (Vec::new(), Vec::new());
        for set in sets {
            let last = set.last().map_or(0, |id| i64::from(*id));
            ids.extend(set.iter().map(|id| i64::from(*id)));
            ids.extend(std::iter::repeat_n(last, width - set.len()));
            bias.extend((0..width).map(|column| if column < set.len() { 0.0 } else { MASKED as f32 }));
        }
        let shape = [sets.len() as i64, width as i64];
        let on_device = |tensor: Tensor| tensor.view(shape).to_device(device);
        Self { ids: on_device(Tensor::from_slice(&ids)), bias: on_device(Tensor::from_slice(&bias)) }
    }

    /// Gathers the logits of the sets, \[rows, largest set\], from those of all tokens, \[rows, vocabulary\].
    pub(crate) fn logits(&self, logits: &Tensor) -> Tensor {
        logits.gather(-1, &self.ids, false) + &self.bias
    }
}

/// The completion tokens of a batch that were sampled from a set, in the order of the flat completion tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restrictions {
    /// Indices of the completion tokens, ascending.
    tokens: Vec<usize>,
    /// End of each token's set in `ids`.
    ends: Vec<usize>,
    ids: Vec<u32>,
    /// The token's position in its set.
    places: Vec<i64>,
}

impl Restrictions {
    /// Adds the set that completion token number `token` was sampled from. `chosen`: its id.
    pub(crate) fn push(&mut self, token: usize, chosen: u32, set: &[u32]) -> Result<(), Error> {
        let ascending = set.windows(2).all(|pair| pair[0] < pair[1]);
        let place = set.binary_search(&chosen).ok().filter(|_| ascending);
        let in_order = self.tokens.last().is_none_or(|last| *last < token);
        let Some(place) = place.filter(|_| in_order) else {
            return Err(Error::Restriction { token, chosen });
        };
        self.tokens.push(token);
        self.ids.extend_from_slice(set);
        self.ends.push(self.ids.len());
        self.places.push(place as i64);
        Ok(())
    }

    /// The largest id of each set.
    pub(crate) fn largest(&self) -> impl Iterator<Item = u32> {
        self.ends.iter().map(|end| self.ids[end - 1])
    }

    /// Returns the restrictions of `count` completion tokens from `first` on; `None` if none of them was restricted.
    pub(crate) fn part(&self, first: i64, count: i64, device: Device) -> Option<RestrictedRows> {
        let place = |token: i64| self.tokens.partition_point(|one| (*one as i64) < token);
        let range = place(first)..place(first + count);
        (!range.is_empty()).then(|| {
            let sets: Vec<&[u32]> = range.clone().map(|index| self.set(index)).collect();
            let rows: Vec<i64> = self.tokens[range.clone()].iter().map(|one| *one as i64 - first).collect();
            RestrictedRows {
                rows: Tensor::from_slice(&rows).to_device(device),
                sets: AllowedRows::new(&sets, device),
                places: Tensor::from_slice(&self.places[range]).to_device(device).unsqueeze(-1),
            }
        })
    }

    fn set(&self, index: usize) -> &[u32] {
        let range: Range<usize> =
            index.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[index];
        &self.ids[range]
    }
}

/// Rows of logits whose next token was sampled from a set.
#[derive(Debug)]
pub(crate) struct RestrictedRows {
    /// Indices of the rows.
    pub(crate) rows: Tensor,
    sets: AllowedRows,
    /// The sampled token's position in its set, \[restricted rows, 1\].
    pub(crate) places: Tensor,
}

impl RestrictedRows {
    /// Float32 log-probabilities over the sets, \[restricted rows, largest set\], of the logits of all rows.
    pub(crate) fn logprobs(&self, logits: &Tensor) -> Tensor {
        self.sets.logits(&logits.index_select(0, &self.rows)).log_softmax(-1, Kind::Float)
    }
}

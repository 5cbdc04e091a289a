//! EASE: a linear item-to-item model in closed form (Steck 2019, arXiv:1905.03375).
//!
//! With the matrix X of users and items, `P = (XᵀX + λI)⁻¹`, the weights are `B[i, j] = −P[i, j] / P[j, j]` with zero
//! diagonal. The scores of a history are the sums of its items' rows. Items without training interactions have no
//! weights, and score 0.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use crate::error::Error;
use crate::interactions::{Case, Interactions, distinct};
use crate::network::Scorer;

/// Maximum number of items with training interactions.
const MOST_ITEMS: usize = 12_000;
/// Matrices of float64 that are in memory at once.
const MATRICES: usize = 6;

/// The settings of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The constant λ that is added to the diagonal.
    pub regularization: f64,
}

/// Co-occurrences of items, from which the weights for any regularization follow.
#[derive(Debug)]
pub(crate) struct Cooccurrences {
    items: usize,
    /// Catalogue positions of the items with training interactions, ascending.
    touched: Vec<i64>,
    /// `XᵀX`, `[touched, touched]`, float64.
    counts: Tensor,
}

impl Cooccurrences {
    /// Counts the training users of each pair of items.
    pub(crate) fn of(data: &Interactions) -> Result<Self, Error> {
        let of_user = data.distinct();
        let touched = distinct(&of_user.concat());
        let size = touched.len();
        if size > MOST_ITEMS {
            let gigabytes = ((MATRICES * 8 * size * size) as u64).div_ceil(1_000_000_000);
            return Err(Error::Catalogue { items: size, gigabytes, limit: MOST_ITEMS });
        }
        let mut index = vec![0; data.items];
        for (position, &item) in touched.iter().enumerate() {
            index[item as usize] = position;
        }
        let mut counts = vec![0.0_f64; size * size];
        for items in &of_user {
            for &one in items {
                let row = index[one as usize] * size;
                for &other in items {
                    counts[row + index[other as usize]] += 1.0;
                }
            }
        }
        let counts = Tensor::from_slice(&counts).view([size as i64, size as i64]);
        Ok(Self { items: data.items, touched, counts })
    }

    /// Computes the weights, in float64, and rounds them to float32.
    pub(crate) fn weights(&self, Settings { regularization }: &Settings) -> Result<Ease, Error> {
        let size = self.touched.len() as i64;
        let identity = Tensor::eye(size, (Kind::Double, Device::Cpu));
        let gram = &self.counts + identity * *regularization;
        let (factor, failed) = gram.linalg_cholesky_ex(false, false);
        if failed.int64_value(&[]) != 0 {
            return Err(Error::Singular { regularization: *regularization });
        }
        let inverse = factor.cholesky_inverse(false);
        let mut weights = -(&inverse / inverse.diagonal(0, 0, 1));
        let _ = weights.fill_diagonal_(0.0, false);
        Ok(Ease { items: self.items, touched: self.touched.clone(), weights: weights.to_kind(Kind::Float) })
    }
}

/// The weights for one regularization.
#[derive(Debug)]
pub(crate) struct Ease {
    items: usize,
    touched: Vec<i64>,
    /// `[touched, touched]`
    pub(crate) weights: Tensor,
}

impl Scorer for Ease {
    fn scores(&self, cases: &[Case]) -> Tensor {
        let of_case = |case: &Case| {
            let rows: Vec<i64> = distinct(&case.history)
                .iter()
                .filter_map(|item| self.touched.binary_search(item).ok())
                .map(|row| row as i64)
                .collect();
            self.weights.index_select(0, &Tensor::from_slice(&rows)).sum_dim_intlist(0, false, Kind::Float)
        };
        no_grad(|| {
            let scores = Tensor::stack(&cases.iter().map(of_case).collect::<Vec<_>>(), 0);
            let all = Tensor::zeros([cases.len() as i64, self.items as i64], (Kind::Float, Device::Cpu));
            all.index_copy(1, &Tensor::from_slice(&self.touched), &scores)
        })
    }
}

#[cfg(test)]
mod tests {
    use podium_recsys::UserId;

    use super::*;
    use crate::interactions::Sequence;

    fn data() -> Interactions {
        let train = [&[0, 1][..], &[1, 0, 1], &[1, 3]].into_iter().zip(0..);
        Interactions {
            items: 4,
            train: train.map(|(items, user)| Sequence { user: UserId(user), items: items.into() }).collect(),
            validation: Vec::new(),
            test: Vec::new(),
        }
    }

    #[test]
    fn weights_match_the_closed_form() {
        // XᵀX + I over items 0, 1 and 3, whose inverse is [[8, −4, 1], [−4, 6, −2]…] / 15 up to the order.
        let gram = [[3.0, 2.0, 0.0], [2.0, 4.0, 1.0], [0.0, 1.0, 2.0]];
        let cooccurrences = Cooccurrences::of(&data()).unwrap();
        let ease = cooccurrences.weights(&Settings { regularization: 1.0 }).unwrap();
        let cofactor = |row: usize, column: usize| {
            let rest = |skip: usize| (0..3).filter(move |index| *index != skip).collect::<Vec<_>>();
            let (rows, columns) = (rest(row), rest(column));
            let at = |r: usize, c: usize| gram[rows[r]][columns[c]];
            let sign = if (row + column).is_multiple_of(2) { 1.0 } else { -1.0 };
            sign * (at(0, 0) * at(1, 1) - at(0, 1) * at(1, 0))
        };
        for row in 0..3 {
            for column in 0..3 {
                // The determinant cancels.
                let expected =
                    if row == column { 0.0 } else { -cofactor(row, column) / cofactor(column, column) };
                let found = ease.weights.double_value(&[row as i64, column as i64]);
                assert!((found - expected).abs() < 1e-7, "B[{row}, {column}] = {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn a_history_sums_its_rows_and_unknown_items_score_nothing() {
        let ease = Cooccurrences::of(&data()).unwrap().weights(&Settings { regularization: 1.0 }).unwrap();
        let case = |history: &[i64]| Case { user: UserId(9), history: history.into(), target: 2 };
        let scores = ease.scores(&[case(&[0, 3, 0]), case(&[2])]);
        assert_eq!(scores.size(), [2, 4]);
        let weight = |row: i64, column: i64| ease.weights.double_value(&[row, column]);
        for (item, expected) in
            [(0, weight(2, 0)), (1, weight(0, 1) + weight(2, 1)), (2, 0.0), (3, weight(0, 2))]
        {
            assert!((scores.double_value(&[0, item]) - expected).abs() < 1e-7, "item {item}");
        }
        assert_eq!(scores.get(1).count_nonzero(None).int64_value(&[]), 0);
    }

    #[test]
    fn a_large_catalogue_is_refused() {
        let items: Vec<i64> = (0..=MOST_ITEMS as i64).collect();
        let data = Interactions {
            items: items.len(),
            train: vec![Sequence { user: UserId(0), items }],
            validation: Vec::new(),
            test: Vec::new(),
        };
        let error = Cooccurrences::of(&data).unwrap_err().to_string();
        assert!(error.contains("12001 items") && error.contains("7 GB"), "{error}");
    }
}

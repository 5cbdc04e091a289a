//! LightGCN: vectors of users and items averaged over a graph (He et al. 2020, arXiv:2002.02126).
//!
//! Users and items are nodes, interactions are edges. A layer replaces each vector by the sum of its neighbours' vectors,
//! each divided by the root of the product of both degrees. Scores use the mean over the trained vectors and all layers.

use podium_checkpoint::parameters::Initial;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{Factors, Options};
use crate::parameters::{Parameters, parameter};

/// Standard deviation of initial vectors.
const STANDARD_DEVIATION: f64 = 0.1;

/// The settings of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Width of the vectors.
    pub width: i64,
    /// Number of layers.
    pub layers: usize,
    /// Factor of the penalty.
    pub regularization: f64,
    /// Step size.
    pub learning_rate: f64,
    /// Number of triples in a batch.
    pub batch: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { width: 64, layers: 3, regularization: 1e-4, learning_rate: 5e-3, batch: 8192 }
    }
}

impl Settings {
    pub(crate) fn options(&self, seed: u64) -> Options {
        let Self { batch, learning_rate, regularization, .. } = *self;
        Options { seed, batch, learning_rate, regularization }
    }
}

/// A vector for each training user and item, and the graph.
#[derive(Debug)]
pub(crate) struct LightGcn {
    parameters: Parameters,
    users: Tensor,
    items: Tensor,
    /// The normalised adjacency of users and items, `[users + items, users + items]`, sparse.
    adjacency: Tensor,
    /// Number of training users of each item.
    degrees: Vec<f64>,
    layers: usize,
}

impl LightGcn {
    /// Creates random vectors. `taken`: the distinct training items of each user.
    pub(crate) fn new(items: usize, taken: &[Vec<i64>], settings: &Settings, seed: u64) -> Self {
        let users = taken.len() as i64;
        let list = vec![
            parameter("users", &[users, settings.width], Initial::Normal),
            parameter("items", &[items as i64, settings.width], Initial::Normal),
        ];
        let parameters = Parameters::new(list, seed, STANDARD_DEVIATION);
        let mut degrees = vec![0.0; items];
        for &item in taken.iter().flatten() {
            degrees[item as usize] += 1.0;
        }
        Self {
            users: parameters.get("users"),
            items: parameters.get("items"),
            adjacency: adjacency(taken, &degrees),
            degrees,
            layers: settings.layers,
            parameters,
        }
    }

    /// Returns the vectors of all nodes in each layer, from the trained ones on.
    fn propagate(&self) -> Vec<Tensor> {
        let mut layers = vec![Tensor::cat(&[&self.users, &self.items], 0)];
        for layer in 0..self.layers {
            layers.push(self.adjacency.mm(&layers[layer]));
        }
        layers
    }

    /// Divides the mean of all layers into users and items.
    fn mean(&self, layers: &[Tensor]) -> (Tensor, Tensor) {
        let mean = Tensor::stack(layers, 0).mean_dim(0, false, Kind::Float);
        let users = self.users.size()[0];
        (mean.narrow(0, 0, users), mean.narrow(0, users, self.items.size()[0]))
    }
}

/// Returns the sparse adjacency, in which the edge of `user` and `item` has the value `1 / √(degree · degree)`.
fn adjacency(taken: &[Vec<i64>], degrees: &[f64]) -> Tensor {
    let users = taken.len() as i64;
    let nodes = users + degrees.len() as i64;
    let (mut rows, mut columns, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (user, items) in (0..).zip(taken) {
        for &item in items {
            let value = (items.len() as f64 * degrees[item as usize]).sqrt().recip() as f32;
            for (row, column) in [(user, users + item), (users + item, user)] {
                rows.push(row);
                columns.push(column);
                values.push(value);
            }
        }
    }
    let indices = Tensor::stack(&[Tensor::from_slice(&rows), Tensor::from_slice(&columns)], 0);
    let options = (Kind::Float, Device::Cpu);
    Tensor::sparse_coo_tensor_indices_size(
        &indices,
        &Tensor::from_slice(&values),
        [nodes, nodes],
        options,
        false,
    )
    .coalesce()
}

impl Factors for LightGcn {
    fn trained(&self) -> (&Tensor, &Tensor) {
        (&self.users, &self.items)
    }

    fn scoring(&self) -> (Tensor, Tensor) {
        self.mean(&self.propagate())
    }

    /// Propagates from the items to nodes of degree `|history|` whose trained vectors are zero, and leaves the other
    /// nodes unchanged.
    fn fold_in(&self, histories: &[Vec<i64>]) -> Tensor {
        let layers = self.propagate();
        let (users, count) = (self.users.size()[0], layers.len() as f64);
        let vector = |history: &Vec<i64>| {
            let known: Vec<i64> =
                history.iter().copied().filter(|&item| self.degrees[item as usize] > 0.0).collect();
            let weights: Vec<f32> = known
                .iter()
                .map(|&item| (known.len() as f64 * self.degrees[item as usize]).sqrt().recip() as f32)
                .collect();
            let (rows, weights) =
                (Tensor::from_slice(&known) + users, Tensor::from_slice(&weights).unsqueeze(1));
            let below = layers.iter().take(self.layers).map(|layer| {
                (layer.index_select(0, &rows) * &weights).sum_dim_intlist(0, false, Kind::Float)
            });
            below.fold(Tensor::zeros([layers[0].size()[1]], (Kind::Float, Device::Cpu)), |sum, layer| {
                sum + layer
            }) / count
        };
        Tensor::stack(&histories.iter().map(vector).collect::<Vec<_>>(), 0)
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three users, four items; the last item has no interaction.
    fn taken() -> Vec<Vec<i64>> {
        vec![vec![0, 1], vec![1], vec![0, 1, 2]]
    }

    fn model(layers: usize) -> LightGcn {
        let settings = Settings { width: 2, layers, ..Settings::default() };
        LightGcn::new(4, &taken(), &settings, 5)
    }

    /// The mean over layers by dense products.
    fn dense(model: &LightGcn) -> Tensor {
        let mut matrix = [[0.0_f64; 7]; 7];
        for (user, items) in taken().iter().enumerate() {
            for &item in items {
                let users = taken().iter().filter(|other| other.contains(&item)).count();
                let value = 1.0 / ((items.len() * users) as f64).sqrt();
                matrix[user][3 + item as usize] = value;
                matrix[3 + item as usize][user] = value;
            }
        }
        let matrix = Tensor::from_slice(matrix.as_flattened()).view([7, 7]);
        let mut layer = Tensor::cat(&[&model.users, &model.items], 0).detach().to_kind(Kind::Double);
        let mut sum = layer.copy();
        for _ in 0..model.layers {
            layer = matrix.matmul(&layer);
            sum += &layer;
        }
        sum / (model.layers + 1) as f64
    }

    #[test]
    fn propagation_matches_dense_products() {
        for layers in [0, 1, 3] {
            let model = model(layers);
            let (users, items) = model.scoring();
            let found = Tensor::cat(&[users, items], 0).to_kind(Kind::Double);
            let difference = (found - dense(&model)).abs().max().double_value(&[]);
            assert!(difference < 1e-7, "{layers} layers: {difference}");
        }
    }

    #[test]
    fn gradients_reach_nodes_through_the_graph() {
        let model = model(1);
        let (users, _) = model.scoring();
        users.get(1).sum(Kind::Float).backward();
        // The mean over two layers of item 1's vector, whose degree is 3.
        let expected = 0.5 / 3.0_f64.sqrt();
        let gradient = model.items.grad();
        assert!((gradient.double_value(&[1, 0]) - expected).abs() < 1e-7, "{gradient:?}");
        assert!(gradient.double_value(&[0, 0]).abs() < 1e-12);
        assert!((model.users.grad().double_value(&[1, 0]) - 0.5).abs() < 1e-7);
    }

    #[test]
    fn a_new_user_has_the_vector_of_a_node_without_influence() {
        let model = model(2);
        let folded = model.fold_in(&[vec![1, 2], vec![3]]);
        let layers = model.propagate();
        let at = |layer: usize, item: i64| layers[layer].double_value(&[3 + item, 0]);
        let edge = |degree: f64| 1.0 / (2.0 * degree).sqrt();
        let expected: f64 =
            (0..2).map(|layer| edge(3.0) * at(layer, 1) + edge(1.0) * at(layer, 2)).sum::<f64>() / 3.0;
        assert!((folded.double_value(&[0, 0]) - expected).abs() < 1e-7);
        assert_eq!(folded.get(1).count_nonzero(None).int64_value(&[]), 0, "no item is known");
    }
}

//! Activations of one layer, in bytes. The terms follow the order in which a layer computes.

use crate::model::Model;

/// Rows that the layers compute at once, and the keys that they attend to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rows {
    /// Number of rows.
    pub(crate) count: u64,
    /// Pairs of a row and a key, of all attention calls of a layer.
    pub(crate) pairs: u64,
    /// Those of the largest call.
    pub(crate) largest: u64,
    /// Whether rows also attend to keys outside of their own sequence.
    pub(crate) shared: bool,
    /// Pairs in the causal masks, of one sequence each.
    pub(crate) masked: u64,
}

impl Model {
    /// Size of a number of weights and activations.
    pub(crate) const fn width(&self) -> u64 {
        self.number.bytes()
    }

    /// Bytes of attention scores per pair and head: `float32`, or the first number, if computed in float32.
    const fn by_type(&self, float32: u64, bfloat16: u64) -> u64 {
        if self.width() == 4 { float32 } else { bfloat16 }
    }

    /// Rotations of the rows and causal masks, which all layers share.
    pub(crate) fn common(&self, rows: Rows) -> u64 {
        let repeats = self.queries / self.keys;
        self.width() * (2 * self.head * rows.count + repeats * rows.masked)
    }

    /// Peak of a layer without gradients, with its input.
    pub(crate) fn forward(&self, rows: Rows) -> u64 {
        let (w, h, q, k, f) = (self.width(), self.hidden, self.queries, self.keys, self.feed_forward);
        // Scores, their float32 copy and the softmax; beside shared keys also the joined scores. Later the weighted values.
        let pairs = self.heads * rows.largest;
        let scores = if rows.shared {
            12 * pairs
        } else {
            (self.by_type(8, 10) * pairs).max(8 * pairs + w * q * rows.count)
        };
        // Input and normed input; queries and keys before and after rotation, values; all of them by head.
        let attention = w * (2 * h + 3 * q + 5 * k) * rows.count + scores;
        // Inputs of both parts, normed input; gate, its activation, up, product.
        let feed_forward = w * (3 * h + 4 * f) * rows.count;
        self.common(rows) + attention.max(feed_forward)
    }

    /// Tensors that a layer stores for its backward pass.
    pub(crate) fn stored(&self, rows: Rows) -> u64 {
        self.stored_of_attention(rows) + (self.stored_of_norm() + self.stored_of_feed_forward()) * rows.count
    }

    fn stored_of_attention(&self, rows: Rows) -> u64 {
        let (w, q, k) = (self.width(), self.queries, self.keys);
        // Float32 inputs of both norms; their outputs if the weights are trained.
        let norms = if self.norms { (4 + self.if_trained(w)) * (q + k) } else { 0 };
        // Queries, keys and values by head, and the input of the output map.
        let heads = w * (2 * q + 2 * k);
        // The softmax in float32, and rounded.
        let scores = self.by_type(4, 6) * self.heads * rows.pairs;
        (self.stored_of_norm() + norms + heads + self.stored_of_adapter()) * rows.count + scores
    }

    /// Float32 input, output, and the input of the multiplication by a trained weight.
    const fn stored_of_norm(&self) -> u64 {
        (4 + self.width() + self.if_trained(self.width())) * self.hidden
    }

    /// Gate, its activation, up, product.
    const fn stored_of_feed_forward(&self) -> u64 {
        4 * self.width() * self.feed_forward
    }

    const fn if_trained(&self, bytes: u64) -> u64 {
        if self.adapter.is_none() { bytes } else { 0 }
    }

    /// The adapter's inner activations. Dropout stores masks and masked inputs instead of inputs.
    fn stored_of_adapter(&self) -> u64 {
        let Some(adapter) = self.adapter else { return 0 };
        let w = self.width();
        let inner = w * adapter.rank * adapter.maps;
        let inputs = 2 * self.hidden + self.queries + self.feed_forward;
        if adapter.drops { (inner + 2 * w * adapter.inputs).saturating_sub(w * inputs) } else { inner }
    }

    /// Peak of a layer's forward and backward pass, with what it stores.
    pub(crate) fn backward(&self, rows: Rows) -> u64 {
        let w = self.width();
        // The layer's output and its gradient, the input's gradient, and their product.
        let stream = 4 * w * self.hidden;
        // Gradients of the product's two factors.
        let feed_forward = self.stored(rows) + (stream + 2 * w * self.feed_forward) * rows.count;
        // Gradients of the softmax before and after.
        let scores = self.by_type(8, 6) * self.heads * rows.largest;
        let attention =
            self.stored_of_attention(rows) + scores + stream.saturating_sub(w * self.queries) * rows.count;
        // Temporary integers of dropout, at the end of the forward pass.
        let dropping = self.adapter.filter(|adapter| adapter.drops).map_or(0, |adapter| 40 * adapter.widest);
        let forward = self.stored(rows) + (dropping + 3 * w * self.hidden) * rows.count;
        feed_forward.max(attention).max(forward)
    }
}

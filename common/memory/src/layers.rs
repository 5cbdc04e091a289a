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
    /// Whether these keys are cached.
    pub(crate) cached: bool,
    /// Pairs in the causal masks, of one sequence each.
    pub(crate) masked: u64,
}

impl Model {
    /// Size of a number of weights and activations.
    pub(crate) const fn width(&self) -> u64 {
        self.number.bytes()
    }

    /// Rotations of the rows and causal masks, which all layers share.
    pub(crate) fn common(&self, rows: Rows) -> u64 {
        let repeats = self.queries / self.keys;
        let masks = if self.flash && !rows.cached { 0 } else { repeats * rows.masked };
        self.width() * (2 * self.head * rows.count + masks)
    }

    /// Peak of a layer without gradients, with its input.
    pub(crate) fn forward(&self, rows: Rows) -> u64 {
        let (w, h, q, k, f) = (self.width(), self.hidden, self.queries, self.keys, self.feed_forward);
        // Scores, their float32 copy and the softmax; beside shared keys also the joined scores. Later the weighted values.
        let pairs = self.heads * rows.largest;
        let scores = match (self.flash && !rows.cached, rows.shared) {
            (true, _) => 4 * self.heads * rows.count,
            (false, true) => 12 * pairs,
            (false, false) => 8 * pairs + w * q * rows.count,
        };
        // Input and normed input; queries and keys before and after rotation, values; the output, or all of them by head.
        let by_head = if self.flash && !rows.cached { 0 } else { 2 * k };
        let attention = w * (2 * h + 3 * q + 3 * k + by_head) * rows.count + scores;
        // Inputs of both parts, normed input; gate, up, product.
        let feed_forward = w * (3 * h + 3 * f) * rows.count;
        self.common(rows) + attention.max(feed_forward)
    }

    /// Tensors that a layer stores for its backward pass.
    pub(crate) fn stored(&self, rows: Rows) -> u64 {
        self.stored_of_attention(rows) + (self.stored_of_norm() + self.stored_of_feed_forward()) * rows.count
    }

    /// Tensors that the last layer stores, which computes queries, output map and feed-forward part of `outputs` rows alone.
    pub(crate) fn stored_of_last(&self, rows: Rows, outputs: u64) -> u64 {
        if !self.flash {
            return self.stored(rows);
        }
        let (w, k) = (self.width(), self.keys);
        // Of all rows input, normed input, keys and values; of the outputs also the selected inputs of both parts.
        let keys = w * if self.norms { 3 * k } else { 2 * k };
        let others = (self.stored_of_norm() + keys) * rows.count.saturating_sub(outputs);
        self.stored(Rows { count: outputs, ..rows }) + 2 * w * self.hidden * outputs + others
    }

    fn stored_of_attention(&self, rows: Rows) -> u64 {
        let (w, q, k) = (self.width(), self.queries, self.keys);
        // Inputs of both norms.
        let norms = if self.norms { w * (q + k) } else { 0 };
        // Queries, keys and values by head, and the input of the output map.
        let heads = w * (2 * q + 2 * k);
        // The softmax, or the logarithms of its sums.
        let scores = 4 * self.heads * if self.flash { rows.count } else { rows.pairs };
        (self.stored_of_norm() + norms + heads + self.stored_of_adapter()) * rows.count + scores
    }

    /// Input and output.
    const fn stored_of_norm(&self) -> u64 {
        2 * self.width() * self.hidden
    }

    /// Gate, up, product.
    const fn stored_of_feed_forward(&self) -> u64 {
        3 * self.width() * self.feed_forward
    }

    /// The adapter's inner activations. Dropout stores masks and masked inputs instead of inputs.
    fn stored_of_adapter(&self) -> u64 {
        let Some(adapter) = self.adapter else { return 0 };
        let w = self.width();
        let inner = w * adapter.rank * adapter.maps;
        let inputs = 2 * self.hidden + self.queries + self.feed_forward;
        if adapter.drops { (inner + 2 * w * adapter.inputs).saturating_sub(w * inputs) } else { inner }
    }

    /// Peak of the last layer's backward pass, with what it stores.
    pub(crate) fn backward_of_last(&self, rows: Rows, outputs: u64) -> u64 {
        if !self.flash {
            return self.backward(rows);
        }
        let w = self.width();
        let stream = 4 * w * self.hidden;
        let stored = self.stored_of_last(rows, outputs);
        let feed_forward = stored + (stream + 2 * w * self.feed_forward) * outputs;
        // Gradients of queries, keys and values in float32, and of the input.
        let of_heads = 4 * (self.queries * outputs + 2 * self.keys * rows.count);
        let released = (self.stored_of_norm() + self.stored_of_feed_forward()) * outputs;
        let attention = stored - released + of_heads + stream * rows.count;
        feed_forward.max(attention)
    }

    /// Peak of a layer's forward and backward pass, with what it stores.
    pub(crate) fn backward(&self, rows: Rows) -> u64 {
        let w = self.width();
        // The layer's output and its gradient, the input's gradient, and their product.
        let stream = 4 * w * self.hidden;
        // Gradients of the product's two factors.
        let feed_forward = self.stored(rows) + (stream + 2 * w * self.feed_forward) * rows.count;
        // Gradients of the softmax before and after, or of queries, keys and values in float32.
        let scores = if self.flash {
            4 * (self.queries + 2 * self.keys) * rows.count
        } else {
            8 * self.heads * rows.largest
        };
        let attention =
            self.stored_of_attention(rows) + scores + stream.saturating_sub(w * self.queries) * rows.count;
        // Temporary integers of dropout, at the end of the forward pass.
        let dropping = self.adapter.filter(|adapter| adapter.drops).map_or(0, |adapter| 40 * adapter.widest);
        let forward = self.stored(rows) + (dropping + 3 * w * self.hidden) * rows.count;
        feed_forward.max(attention).max(forward)
    }
}

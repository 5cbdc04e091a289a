//! Log-probabilities of given completions, without and with gradients.
//!
//! With a large vocabulary the logits are never in memory all at once: the head processes the rows in chunks, and
//! backward recomputes each chunk. With `recompute_layers`, backward also recomputes the blocks one by one.

use tch::{Device, Kind, Tensor, no_grad};

use crate::allowed::Restrictions;
use crate::layers::{Rows, select_rows};
use crate::lora::Dropout;
use crate::packed::{self, Packed, PackedArrangement};
use crate::policy::Policy;

/// Maximum number of logits in memory on a CPU.
const CHUNK_LOGITS: i64 = podium_memory::HEAD_LOGITS as i64;

/// Rows of logits in memory on a GPU.
const CHUNK_ROWS: i64 = podium_memory::HEAD_ROWS as i64;

/// Computation of each completion token's entropy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entropy {
    /// Not computed.
    #[default]
    Skipped,
    /// The value.
    Measured,
    /// The value and, in a training pass, the gradient.
    Differentiable,
}

/// Scores of the completion tokens of a batch, flat in (prompt, completion, token) order, float32, on the device of the
/// policy.
#[derive(Debug)]
pub struct Scores {
    /// Log-probability of each token under the temperature-scaled distribution over the full vocabulary, or, for a
    /// token with a set, renormalised over that set; in nats.
    pub logprobs: Tensor,
    /// Entropy of that distribution, in nats, if requested.
    pub entropy: Option<Tensor>,
}

/// Options of a training pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingOptions {
    /// Divisor of the logits, positive.
    pub temperature: f64,
    /// Computation of entropies.
    pub entropy: Entropy,
    /// Store only the inputs of the blocks and recompute each block in backward: a third more work, and memory for
    /// one block's activations instead of all.
    pub recompute_layers: bool,
    /// Dropout of the adapter's inputs.
    pub dropout: Option<AdapterDropout>,
}

/// Dropout of an adapter's inputs. The dropped inputs are a function of the seed, the tokens and the positions of the
/// weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterDropout {
    /// Share of the inputs that is dropped, at least 0 and below 1.
    pub share: f64,
    /// Must differ between steps.
    pub seed: u64,
}

impl Default for TrainingOptions {
    fn default() -> Self {
        Self { temperature: 1.0, entropy: Entropy::Skipped, recompute_layers: false, dropout: None }
    }
}

impl Policy {
    /// Scores the completions of a batch, without gradients.
    pub fn score(&self, batch: &Packed, temperature: f64, entropy: Entropy) -> Result<Scores, packed::Error> {
        batch.check(self.config())?;
        Ok(no_grad(|| {
            let pass = Forward::new(self, batch, None);
            let x = self.trunk(&pass.tokens, &pass.rows, &mut batch.arrangement(self));
            pass.head(self, temperature, entropy).scores(&pass.predicting(self, &x))
        }))
    }

    /// Returns the log-probabilities of all tokens of one sequence except the first, by a plain forward at
    /// temperature 1: the reference for shared and cached computations.
    pub fn plain_logprobs(&self, token_ids: &[u32]) -> Result<Vec<f32>, packed::Error> {
        let batch = Packed::new(&[packed::GroupTokens { prompt: token_ids, completions: Vec::new() }])?;
        batch.check(self.config())?;
        Ok(no_grad(|| {
            let (tokens, positions) = (batch.tokens(self.device()), batch.positions(self.device()));
            let rows = self.training_rows(&positions, None);
            let x = self.trunk(&tokens, &rows, &mut batch.arrangement(self));
            let count = token_ids.len() as i64 - 1;
            let logprobs = self.target_logprobs(&x.narrow(0, 0, count), tokens.narrow(0, 1, count));
            Vec::try_from(logprobs.to_device(Device::Cpu)).expect("a vector of floats")
        }))
    }

    /// Returns the log-probability of the target after each row at temperature 1, without gradients. `x`: output of the
    /// last block, \[rows, hidden\]; `targets` and result \[rows\].
    pub(crate) fn target_logprobs(&self, x: &Tensor, targets: Tensor) -> Tensor {
        let restrictions = Restrictions::default();
        let head = Head { policy: self, targets, restrictions, temperature: 1.0, entropy: Entropy::Skipped };
        no_grad(|| head.scores(&self.final_norm(x)).logprobs)
    }

    /// Scores the completions of a batch with gradients to [`Self::trainable`].
    pub fn training_pass(
        &self,
        batch: &Packed,
        options: TrainingOptions,
    ) -> Result<TrainingPass<'_>, packed::Error> {
        batch.check(self.config())?;
        let forward = Forward::new(self, batch, options.dropout);
        let head = forward.head(self, options.temperature, options.entropy);
        let predictors = forward.predictors.shallow_clone();
        let mut arrangement = batch.arrangement(self);
        let trunk = if options.recompute_layers {
            Trunk::recomputed(self, forward, arrangement)
        } else {
            Trunk::Kept(self.trunk(&forward.tokens, &forward.rows, &mut arrangement))
        };
        let rows = self.final_norm(&select_rows(trunk.output(), &predictors));
        let kept = (head.chunks().len() <= 1).then(|| head.scores(&rows));
        let leaf = |x: &Tensor| x.detach().set_requires_grad(true);
        let scores = match &kept {
            Some(scores) => scores.map(leaf),
            None => no_grad(|| head.scores(&rows)).map(leaf),
        };
        Ok(TrainingPass { scores, kept, rows, head, trunk })
    }
}

/// The tensors that every forward over a batch needs.
struct Forward {
    tokens: Tensor,
    rows: Rows,
    predictors: Tensor,
    targets: Tensor,
    restrictions: Restrictions,
}

impl Forward {
    /// Scoring computes like training, so that a reference with the weights of the policy scores the same bits.
    fn new(policy: &Policy, batch: &Packed, dropout: Option<AdapterDropout>) -> Self {
        let device = policy.device();
        let dropout = dropout.filter(|dropout| dropout.share > 0.0);
        let dropout =
            dropout.map(|dropout| Dropout::new(&batch.row_numbers(dropout.seed), dropout.share, device));
        Self {
            tokens: batch.tokens(device),
            rows: policy.training_rows(&batch.positions(device), dropout).with_outputs(batch.outputs(device)),
            predictors: batch.predictors(device),
            targets: batch.targets(device),
            restrictions: batch.restrictions().clone(),
        }
    }

    /// The normed hidden states that predict the completion tokens. `x`: output of the last block.
    fn predicting(&self, policy: &Policy, x: &Tensor) -> Tensor {
        policy.final_norm(&select_rows(x, &self.predictors))
    }

    fn head<'a>(&self, policy: &'a Policy, temperature: f64, entropy: Entropy) -> Head<'a> {
        let restrictions = self.restrictions.clone();
        Head { policy, targets: self.targets.shallow_clone(), restrictions, temperature, entropy }
    }
}

/// The head over rows of hidden states, in chunks.
#[derive(Debug)]
struct Head<'a> {
    policy: &'a Policy,
    targets: Tensor,
    restrictions: Restrictions,
    temperature: f64,
    entropy: Entropy,
}

impl Head<'_> {
    /// Returns the first row and the number of rows of each chunk.
    fn chunks(&self) -> Vec<(i64, i64)> {
        let rows = self.targets.size()[0];
        let chunk = match self.policy.device() {
            Device::Cpu => (CHUNK_LOGITS / self.policy.config().vocab_size).max(1),
            _ => CHUNK_ROWS,
        };
        (0..rows).step_by(chunk as usize).map(|first| (first, chunk.min(rows - first))).collect()
    }

    fn scores(&self, rows: &Tensor) -> Scores {
        let chunks = self.chunks();
        let mut parts: Vec<_> =
            chunks.iter().map(|(first, count)| self.chunk(&rows.narrow(0, *first, *count), *first)).collect();
        if parts.len() == 1 {
            return parts.remove(0);
        }
        // libtorch cannot concatenate an empty list.
        let nothing = Tensor::zeros([0], (Kind::Float, rows.device()));
        let join = |parts: Vec<&Tensor>| Tensor::cat(&[vec![&nothing], parts].concat(), 0);
        Scores {
            logprobs: join(parts.iter().map(|part| &part.logprobs).collect()),
            entropy: (self.entropy != Entropy::Skipped)
                .then(|| join(parts.iter().filter_map(|part| part.entropy.as_ref()).collect())),
        }
    }

    /// Scores of the rows from `first` on.
    fn chunk(&self, rows: &Tensor, first: i64) -> Scores {
        let count = rows.size()[0];
        let targets = self.targets.narrow(0, first, count).unsqueeze(-1);
        let logits = self.policy.logits(rows, self.temperature);
        let all = self.chosen(&logits.log_softmax(-1, Kind::Float), &targets);
        let Some(part) = self.restrictions.part(first, count, logits.device()) else { return all };
        let restricted = self.chosen(&part.logprobs(&logits), &part.places);
        let replace = |all: &Tensor, restricted: &Tensor| all.index_copy(0, &part.rows, restricted);
        let entropy = all.entropy.as_ref().zip(restricted.entropy.as_ref());
        Scores {
            logprobs: replace(&all.logprobs, &restricted.logprobs),
            entropy: entropy.map(|(all, restricted)| replace(all, restricted)),
        }
    }

    /// Scores of the tokens in these columns, \[rows, 1\], of log-probabilities \[rows, tokens\].
    fn chosen(&self, logprobs: &Tensor, columns: &Tensor) -> Scores {
        let entropy_of = |logprobs: &Tensor| -(logprobs.exp() * logprobs).sum_dim_intlist(-1, false, None);
        let entropy = match self.entropy {
            Entropy::Skipped => None,
            Entropy::Measured => Some(no_grad(|| entropy_of(logprobs))),
            Entropy::Differentiable => Some(entropy_of(logprobs)),
        };
        Scores { logprobs: logprobs.gather(-1, columns, false).squeeze_dim(-1), entropy }
    }
}

impl Scores {
    fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        Self { logprobs: f(&self.logprobs), entropy: self.entropy.as_ref().map(f) }
    }

    /// Σ scores · gradients, with the gradients of `leaves`. `None` if no gradient arrived.
    fn product(&self, leaves: &Scores, first: i64, count: i64) -> Option<Tensor> {
        let one = |score: &Tensor, leaf: &Tensor| {
            let gradient = leaf.grad();
            (gradient.defined() && score.requires_grad())
                .then(|| (score * gradient.narrow(0, first, count)).sum(Kind::Float))
        };
        let logprobs = one(&self.logprobs, &leaves.logprobs);
        let entropy =
            self.entropy.as_ref().zip(leaves.entropy.as_ref()).and_then(|(own, leaf)| one(own, leaf));
        match (logprobs, entropy) {
            (Some(logprobs), Some(entropy)) => Some(logprobs + entropy),
            (one, other) => one.or(other),
        }
    }
}

/// A forward that awaits the gradients of its scores.
///
/// ```text
/// let pass = policy.training_pass(&batch, options)?;
/// let loss = objective(pass.scores());   // any tensor arithmetic on scores().logprobs
/// loss.backward();                       // as far as the scores, which are leaves
/// pass.backward();                       // on through head and blocks, adding to the parameters' gradients
/// ```
#[derive(Debug)]
#[must_use = "gradients reach the parameters only by backward()"]
pub struct TrainingPass<'a> {
    scores: Scores,
    /// The scores with their graph, if one chunk of logits was enough.
    kept: Option<Scores>,
    rows: Tensor,
    head: Head<'a>,
    trunk: Trunk<'a>,
}

impl TrainingPass<'_> {
    /// The scores, as leaves of the loss.
    pub fn scores(&self) -> &Scores {
        &self.scores
    }

    /// Propagates the gradients of the scores to the parameters, where they are added.
    pub fn backward(self) {
        if let Some(kept) = self.kept {
            let count = kept.logprobs.size()[0];
            if let Some(product) = kept.product(&self.scores, 0, count) {
                product.backward();
            }
        } else {
            let leaf = self.rows.detach().set_requires_grad(true);
            for (first, count) in self.head.chunks() {
                let chunk = self.head.chunk(&leaf.narrow(0, first, count), first);
                if let Some(product) = chunk.product(&self.scores, first, count) {
                    product.backward();
                    self.head.policy.collect_gradients();
                }
            }
            pull(&self.rows, &leaf.grad());
        }
        self.head.policy.collect_gradients();
        self.trunk.backward();
    }
}

/// Propagates `gradient` of `output` back to its leaves.
fn pull(output: &Tensor, gradient: &Tensor) {
    if gradient.defined() && output.requires_grad() {
        (output * gradient).sum(Kind::Float).backward();
    }
}

/// The blocks of a training pass.
#[derive(Debug)]
enum Trunk<'a> {
    /// The output with its whole graph.
    Kept(Tensor),
    /// The input of each block, and the data to recompute it.
    Recomputed {
        policy: &'a Policy,
        embedded: Tensor,
        inputs: Vec<Tensor>,
        output: Tensor,
        rows: Box<Rows>,
        arrangement: Box<PackedArrangement>,
    },
}

impl<'a> Trunk<'a> {
    fn recomputed(policy: &'a Policy, forward: Forward, mut arrangement: PackedArrangement) -> Self {
        let rows = Box::new(forward.rows);
        let embedded = policy.embed(&forward.tokens);
        let mut x = embedded.detach();
        let mut inputs = Vec::with_capacity(policy.layers());
        for layer in 0..policy.layers() {
            let output = no_grad(|| policy.block(layer, &x, &rows, &mut arrangement));
            inputs.push(std::mem::replace(&mut x, output));
        }
        let output = x.set_requires_grad(true);
        Self::Recomputed { policy, embedded, inputs, output, rows, arrangement: Box::new(arrangement) }
    }

    fn output(&self) -> &Tensor {
        match self {
            Self::Kept(output) | Self::Recomputed { output, .. } => output,
        }
    }

    /// Propagates the gradient of the output; with a stored graph that has already happened.
    fn backward(self) {
        let Self::Recomputed { policy, embedded, inputs, output, rows, mut arrangement } = self else {
            return;
        };
        let mut gradient = output.grad();
        for (layer, input) in inputs.into_iter().enumerate().rev() {
            let input = input.set_requires_grad(true);
            pull(&policy.block(layer, &input, &rows, &mut *arrangement), &gradient);
            gradient = input.grad();
            policy.collect_gradients();
        }
        pull(&embedded, &gradient);
        policy.collect_gradients();
    }
}

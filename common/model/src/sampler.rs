//! Samples one token for each row of logits, from one uniform number per row.
//!
//! The token is found by inverting the cumulative distribution over the token ids in ascending
//! order. Probabilities are summed as integers, so that the sum is exact: it depends on neither the order in which a
//! device adds nor the other rows of the batch, and libtorch's sums of floats on a GPU are not deterministic.
//! Filters are thresholds on the logits: tokens with equal logits are retained or dropped together.
//! For a row that is restricted to a set of tokens, all of this applies within the set.
//! On a CPU a kernel does all of this in one pass; on a GPU, operations of libtorch.

use std::sync::Arc;

use podium_grpo::Sampling;
use podium_torch_shim::Selection;
use tch::{Kind, Tensor};

use crate::allowed::AllowedRows;
use crate::shim::computed;

/// Number of candidates that are sorted first for `top_p`; the whole vocabulary is sorted only if they do not reach
/// it.
const FIRST_CANDIDATES: i64 = 256;

/// A probability of 1 as an integer: the sums of 2¹⁰ rows' worth of rounding still fit into int64 and float64.
const ONE: f64 = (1_u64 << 52) as f64;

/// Returns the lowest logit of each row that may be sampled, \[rows, 1\]; `None` if all may. `mass`: the probabilities of
/// the logits, int64 in units of 1 / [`ONE`].
fn threshold(sampling: &Sampling, logits: &Tensor, mass: &Tensor) -> Option<Tensor> {
    let vocab_size = logits.size()[1];
    if sampling.top_k > 0 {
        let candidates = logits.topk(vocab_size.min(sampling.top_k as i64), -1, true, true).0;
        if sampling.top_p < 1.0 {
            let normaliser = candidates.logsumexp(-1, true);
            return Some(nucleus(&candidates, &probabilities(&candidates, &normaliser), sampling.top_p));
        }
        return Some(candidates.narrow(1, candidates.size()[1] - 1, 1));
    }
    if sampling.top_p >= 1.0 {
        return None;
    }
    let (candidates, tokens) = logits.topk(vocab_size.min(FIRST_CANDIDATES), -1, true, true);
    let first_mass = mass.gather(-1, &tokens, false);
    let least = first_mass.sum_dim_intlist(-1, false, Kind::Int64).min().int64_value(&[]);
    if least >= units(sampling.top_p) || candidates.size()[1] == vocab_size {
        return Some(nucleus(&candidates, &first_mass, sampling.top_p));
    }
    let (candidates, tokens) = logits.sort(-1, true);
    Some(nucleus(&candidates, &mass.gather(-1, &tokens, false), sampling.top_p))
}

/// Returns the probabilities of logits, int64 in units of 1 / [`ONE`].
fn probabilities(logits: &Tensor, log_normaliser: &Tensor) -> Tensor {
    fixed_point(&(logits - log_normaliser).exp())
}

/// Converts float32 probabilities to int64 in units of 1 / [`ONE`]. Every float32 above 2⁻²⁹ is exact, and smaller ones
/// are rounded down.
fn fixed_point(probabilities: &Tensor) -> Tensor {
    (probabilities.to_kind(Kind::Double) * ONE).to_kind(Kind::Int64)
}

/// Returns a probability in units of 1 / [`ONE`].
fn units(probability: f64) -> i64 {
    (probability * ONE) as i64
}

/// Returns the lowest of the descending `candidates` that is necessary to reach `top_p`, \[rows,
/// 1\].
fn nucleus(candidates: &Tensor, mass: &Tensor, top_p: f64) -> Tensor {
    let before = mass.cumsum(-1, Kind::Int64) - mass;
    let needed = before.lt(units(top_p)).sum_dim_intlist(-1, true, Kind::Int64).clamp_min(1);
    candidates.gather(-1, &(needed - 1), false)
}

/// The sampled token of each row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SampledRows {
    pub(crate) token_ids: Vec<u32>,
    /// Log-probabilities under the full distribution; not finite if the logits are not.
    pub(crate) logprobs: Vec<f32>,
    /// Log-probabilities under the truncated distribution, if there is one.
    pub(crate) sampled_logprobs: Option<Vec<f32>>,
}

/// The allowed next tokens of a row.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    /// Any token.
    Any,
    /// One of these tokens, ascending, at least one.
    One(Arc<[u32]>),
    /// The row needs no token.
    None,
}

/// Samples a token for each row like [`sample`], from the row's allowed tokens. Rows that need no
/// token get token 0.
pub(crate) fn sample_next(
    logits: &Tensor,
    sampling: &Sampling,
    uniform: &[f64],
    next: &[Next],
    fused: bool,
) -> SampledRows {
    let sample = |logits: &Tensor, uniform: &[f64]| {
        if fused { draw(logits, sampling, uniform) } else { sample(logits, sampling, uniform) }
    };
    if !next.iter().any(|next| matches!(next, Next::One(_))) {
        return sample(logits, uniform);
    }
    let mut sampled = SampledRows {
        token_ids: vec![0; next.len()],
        logprobs: vec![0.0; next.len()],
        sampled_logprobs: sampling.is_truncated().then(|| vec![0.0; next.len()]),
    };
    let rows_that = |wanted: &dyn Fn(&Next) -> bool| -> Vec<usize> {
        (0..next.len()).filter(|row| wanted(&next[*row])).collect()
    };
    let mut fill = |rows: &[usize], choose: &dyn Fn(&Tensor, &[f64]) -> SampledRows| {
        let index: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        let index = Tensor::from_slice(&index).to_device(logits.device());
        let numbers: Vec<f64> = rows.iter().map(|row| uniform[*row]).collect();
        let part = choose(&logits.index_select(0, &index), &numbers);
        for (place, row) in rows.iter().enumerate() {
            sampled.token_ids[*row] = part.token_ids[place];
            sampled.logprobs[*row] = part.logprobs[place];
            if let (Some(all), Some(part)) = (&mut sampled.sampled_logprobs, &part.sampled_logprobs) {
                all[*row] = part[place];
            }
        }
    };
    let free = rows_that(&|next| matches!(next, Next::Any));
    if !free.is_empty() {
        fill(&free, &sample);
    }
    let restricted = rows_that(&|next| matches!(next, Next::One(_)));
    let sets: Vec<&[u32]> =
        next.iter().filter_map(|next| if let Next::One(set) = next { Some(&**set) } else { None }).collect();
    fill(&restricted, &|logits, numbers| {
        let among = AllowedRows::new(&sets, logits.device()).logits(logits);
        let mut sampled = sample(&among, numbers);
        for (token, set) in sampled.token_ids.iter_mut().zip(&sets) {
            // Rows with NaN may point beyond their set; their log-probability reports it.
            *token = set.get(*token as usize).or(set.last()).copied().unwrap_or(0);
        }
        sampled
    });
    sampled
}

/// The same as [`sample`], in one pass over the logits on a CPU.
fn draw(logits: &Tensor, sampling: &Sampling, uniform: &[f64]) -> SampledRows {
    let selection = Selection {
        greedy: sampling.is_greedy(),
        top_k: sampling.top_k as i64,
        least: if sampling.top_p < 1.0 { units(sampling.top_p).max(1) } else { 0 },
    };
    let drawn = computed(podium_torch_shim::draw(logits, selection, uniform));
    SampledRows {
        token_ids: drawn.iter().map(|drawn| drawn.token as u32).collect(),
        logprobs: drawn.iter().map(|drawn| drawn.logprob).collect(),
        sampled_logprobs: sampling
            .is_truncated()
            .then(|| drawn.iter().map(|drawn| drawn.sampled_logprob).collect()),
    }
}

/// Samples a token for each row, by operations of libtorch. `logits`: float32 \[rows, vocabulary\], divided by the
/// temperature; `uniform`: a number in \[0, 1) for each row.
pub(crate) fn sample(logits: &Tensor, sampling: &Sampling, uniform: &[f64]) -> SampledRows {
    let (rows, vocab_size) = (uniform.len(), logits.size()[1]);
    let logprobs = logits.log_softmax(-1, Kind::Float);
    let mut truncated_mass = None;
    let tokens = if sampling.is_greedy() {
        logits.argmax(-1, true)
    } else {
        let mut mass = fixed_point(&logprobs.exp());
        if let Some(threshold) = threshold(sampling, logits, &mass) {
            mass *= logits.ge_tensor(&threshold);
        }
        let cumulative = mass.cumsum_(-1, Kind::Int64);
        let total = cumulative.narrow(1, vocab_size - 1, 1).to_kind(Kind::Double);
        let target = Tensor::from_slice(uniform).to_device(logits.device()).unsqueeze(-1) * &total;
        // Below the total, which a product just below it may round to.
        let target = target.floor().minimum(&(&total - 1.0)).to_kind(Kind::Int64);
        if sampling.is_truncated() {
            truncated_mass = Some(total / ONE);
        }
        // Selects the first token whose cumulative mass exceeds the target; that token has a
        // positive mass. The clamp is for rows with NaN.
        target.searchsorted(&cumulative, false, true, "right", None::<Tensor>).clamp_max(vocab_size - 1)
    };
    let logprobs = logprobs.gather(-1, &tokens, false).to_kind(Kind::Double);
    let mut columns = vec![tokens.to_kind(Kind::Double), logprobs.shallow_clone()];
    columns.extend(truncated_mass.map(|mass| logprobs - mass.log()));

    // One transfer to the CPU per step.
    let columns = Tensor::cat(&columns, 1).transpose(0, 1).contiguous().to_device(tch::Device::Cpu);
    let numbers = Vec::<f64>::try_from(columns.view(-1)).expect("a vector of doubles");
    let column = |index: usize| numbers[index * rows..(index + 1) * rows].iter();
    SampledRows {
        token_ids: column(0).map(|token| *token as u32).collect(),
        logprobs: column(1).map(|logprob| *logprob as f32).collect(),
        sampled_logprobs: sampling.is_truncated().then(|| column(2).map(|logprob| *logprob as f32).collect()),
    }
}

//! Floating point operations of a policy by the usual convention: two for each multiplication with addition in matrix
//! products, for the work that the result requires. Recomputation, norms and activation functions do not count. All blocks
//! count alike, although the last one computes queries, output map and feed-forward part only of the rows that predict
//! completion tokens.

use std::iter::Sum;

use crate::config::Config;
use crate::parameters;

/// Number of positions that a forward pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Positions {
    /// Tokens that pass through the blocks.
    pub tokens: u64,
    /// Sum over the tokens of the tokens that each attends, itself included.
    pub attended: u64,
    /// Rows of logits.
    pub logits: u64,
}

impl Positions {
    /// Returns the positions of a prompt that is computed once, with one completion per length. The last token of a
    /// completion is predicted and never an input.
    pub fn of_group(prompt: u64, completions: impl IntoIterator<Item = u64>) -> Self {
        let mut all = Self { tokens: prompt, attended: triangle(prompt), logits: 0 };
        for length in completions {
            let inputs = length.saturating_sub(1);
            all.tokens += inputs;
            all.attended += inputs * prompt + triangle(inputs);
            all.logits += length;
        }
        all
    }
}

impl Sum for Positions {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            tokens: sum.tokens + one.tokens,
            attended: sum.attended + one.attended,
            logits: sum.logits + one.logits,
        })
    }
}

/// Operations of a forward pass.
pub fn forward(config: &Config, positions: Positions) -> u64 {
    by_weights(config, positions) + of_attention(config, positions)
}

/// Operations of a backward pass: gradients of both factors of each product. With an adapter the model's weights have
/// none, and those of the adapter are negligible.
pub fn backward(config: &Config, positions: Positions, adapter: bool) -> u64 {
    let factors = if adapter { 1 } else { 2 };
    factors * by_weights(config, positions) + 2 * of_attention(config, positions)
}

/// Products with weights.
fn by_weights(config: &Config, positions: Positions) -> u64 {
    2 * (block_weights(config) * positions.tokens + head_weights(config) * positions.logits)
}

/// Scores, and their products with values.
fn of_attention(config: &Config, positions: Positions) -> u64 {
    let queries = (config.num_hidden_layers * config.num_attention_heads * config.head_dim) as u64;
    4 * queries * positions.attended
}

/// Number of weights of the blocks' matrices.
fn block_weights(config: &Config) -> u64 {
    let matrices = parameters::list(config).into_iter();
    let matrices =
        matrices.filter(|parameter| parameter.shape.len() == 2 && parameter.name.contains(".layers."));
    matrices.map(|parameter| parameter.shape.iter().product::<i64>() as u64).sum()
}

fn head_weights(config: &Config) -> u64 {
    (config.vocab_size * config.hidden_size) as u64
}

/// 1 + 2 + … + `count`.
fn triangle(count: u64) -> u64 {
    count * (count + 1) / 2
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config() -> Config {
        let text = r#"{"model_type": "qwen3", "vocab_size": 100, "hidden_size": 8, "intermediate_size": 16,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 2,
            "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "tie_word_embeddings": true}"#;
        Config::parse(text, Path::new("config.json")).unwrap()
    }

    #[test]
    fn each_product_counts_twice() {
        // Per layer: queries and output 8 x 8, keys and values 8 x 4, three feed-forward matrices 8 x 16.
        let block = 3 * (2 * 64 + 2 * 32 + 3 * 128);
        let positions = Positions { tokens: 5, attended: 15, logits: 2 };
        let products = block * 5 + 3 * 2 * 8 * 15 + 800 * 2;
        assert_eq!(forward(&config(), positions), 2 * products);
        assert_eq!(backward(&config(), positions, false), 4 * products);
        assert_eq!(backward(&config(), positions, true), 2 * (products + 3 * 2 * 8 * 15));
    }

    #[test]
    fn a_prompt_counts_once_for_its_completions() {
        let positions = Positions::of_group(4, [2, 3]);
        let attended = (1 + 2 + 3 + 4) + 5 + (5 + 6);
        assert_eq!(positions, Positions { tokens: 7, attended, logits: 5 });
        assert_eq!(Positions::of_group(4, [1, 0]), Positions { tokens: 4, attended: 10, logits: 1 });
    }
}

//! Floating point operations of a policy by the usual convention: two for each multiplication with addition in matrix
//! products, for the work that the result requires. Recomputation, norms and activation functions do not count.

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
    /// Returns the positions of a prompt that is computed once, with one completion per length.
    pub fn of_group(prompt: u64, completions: impl IntoIterator<Item = u64>) -> Self {
        let mut all = Self { tokens: prompt, attended: triangle(prompt), logits: 0 };
        for length in completions {
            all.tokens += length;
            all.attended += length * prompt + triangle(length);
            all.logits += length;
        }
        all
    }
}

/// Operations of a forward pass.
pub fn forward(config: &Config, positions: Positions) -> u64 {
    let Positions { tokens, attended, logits } = positions;
    let queries = (config.num_hidden_layers * config.num_attention_heads * config.head_dim) as u64;
    // Scores and their sums of values are a multiplication each.
    2 * (block_weights(config) * tokens + 2 * queries * attended + head_weights(config) * logits)
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
    }

    #[test]
    fn a_prompt_counts_once_for_its_completions() {
        let positions = Positions::of_group(4, [2, 3]);
        let attended = (1 + 2 + 3 + 4) + (5 + 6) + (5 + 6 + 7);
        assert_eq!(positions, Positions { tokens: 9, attended, logits: 5 });
    }
}

//! The names and shapes of a policy's parameters, in model order, as in Hugging Face checkpoints.
//!
//! Loading, saving and random weights share this list. Holds no tensors.

use crate::config::Config;

/// Name of the embedding, which is also the head if the two are tied.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the last norm's weight.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Name of an untied head.
pub const HEAD: &str = "lm_head.weight";

/// Initial value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// Normal, with the configuration's `initializer_range`.
    Normal,
    /// Uniform within ±1/√inputs, like PEFT's initial `lora_A`.
    Uniform,
    /// One.
    Ones,
    /// Zero.
    Zeros,
}

/// One parameter of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in a checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its value before training.
    pub initial: Initial,
}

/// The prefix of names such as `.self_attn.q_proj.weight`.
pub fn block_prefix(layer: i64) -> String {
    format!("model.layers.{layer}")
}

/// All parameters of a policy of this configuration, in model order.
pub fn list(config: &Config) -> Vec<Parameter> {
    let mut list = List(Vec::new());
    let hidden = config.hidden_size;
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    list.push(EMBEDDING, &[config.vocab_size, hidden], Initial::Normal);
    for layer in 0..config.num_hidden_layers {
        let block = block_prefix(layer);
        list.push(&format!("{block}.input_layernorm.weight"), &[hidden], Initial::Ones);
        let attention = format!("{block}.self_attn");
        list.linear(&format!("{attention}.q_proj"), hidden, queries, config.qkv_bias);
        list.linear(&format!("{attention}.k_proj"), hidden, keys, config.qkv_bias);
        list.linear(&format!("{attention}.v_proj"), hidden, keys, config.qkv_bias);
        list.linear(&format!("{attention}.o_proj"), queries, hidden, config.output_bias);
        if config.has_query_key_norms() {
            list.push(&format!("{attention}.q_norm.weight"), &[config.head_dim], Initial::Ones);
            list.push(&format!("{attention}.k_norm.weight"), &[config.head_dim], Initial::Ones);
        }
        list.push(&format!("{block}.post_attention_layernorm.weight"), &[hidden], Initial::Ones);
        let mlp = format!("{block}.mlp");
        list.linear(&format!("{mlp}.gate_proj"), hidden, config.intermediate_size, config.mlp_bias);
        list.linear(&format!("{mlp}.up_proj"), hidden, config.intermediate_size, config.mlp_bias);
        list.linear(&format!("{mlp}.down_proj"), config.intermediate_size, hidden, config.mlp_bias);
    }
    list.push(FINAL_NORM, &[hidden], Initial::Ones);
    if !config.tie_word_embeddings {
        list.push(HEAD, &[config.vocab_size, hidden], Initial::Normal);
    }
    list.0
}

struct List(Vec<Parameter>);

impl List {
    fn push(&mut self, name: &str, shape: &[i64], initial: Initial) {
        self.0.push(Parameter { name: name.to_owned(), shape: shape.to_vec(), initial });
    }

    fn linear(&mut self, name: &str, inputs: i64, outputs: i64, bias: bool) {
        self.push(&format!("{name}.weight"), &[outputs, inputs], Initial::Normal);
        if bias {
            self.push(&format!("{name}.bias"), &[outputs], Initial::Zeros);
        }
    }
}

//! The sizes of a policy that memory depends on.

use podium_checkpoint::adapter::{self, AdapterConfig};
use podium_checkpoint::parameters::{self, Parameter};
use podium_checkpoint::{Config, FieldError};

/// The type of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Four bytes.
    Float32,
    /// Two bytes.
    Bfloat16,
}

impl Number {
    /// Returns the size of a number in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Float32 => 4,
            Self::Bfloat16 => 2,
        }
    }
}

/// The sizes of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adapter {
    /// Inner dimension.
    pub rank: u64,
    /// Number of its parameters.
    pub parameters: u64,
    /// Number of the weights that it changes.
    pub changed: u64,
    /// Number of numbers of its largest parameter.
    pub largest: u64,
    /// Number of adapted linear maps in a layer.
    pub maps: u64,
    /// Sum of the widths of their inputs.
    pub inputs: u64,
    /// Width of the widest input.
    pub widest: u64,
    /// Whether training drops inputs.
    pub drops: bool,
}

/// The sizes of a policy. Widths are in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// Type of weights and activations.
    pub number: Number,
    /// Number of parameters of the model, without the adapter.
    pub parameters: u64,
    /// Number of numbers of the largest parameter.
    pub largest: u64,
    /// Number of parameters of one layer.
    pub layer: u64,
    /// Rows of the head.
    pub vocabulary: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Width inside the feed-forward part.
    pub feed_forward: u64,
    /// Number of layers.
    pub layers: u64,
    /// Query heads.
    pub heads: u64,
    /// Width of all queries of a row.
    pub queries: u64,
    /// Width of all keys of a row, which is that of the values.
    pub keys: u64,
    /// Width of one head.
    pub head: u64,
    /// Whether queries and keys are normalised.
    pub norms: bool,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Whether attention over whole sequences has no scores in memory.
    pub flash: bool,
    /// The adapter, if one is trained.
    pub adapter: Option<Adapter>,
}

impl Model {
    /// Returns the sizes of a policy of this configuration, with the adapter that is trained, if any.
    pub fn new(config: &Config, number: Number, trained: Option<&AdapterConfig>) -> Result<Self, FieldError> {
        let list = parameters::list(config);
        let prefix = format!("{}.", parameters::block_prefix(0));
        let of_layer = list.iter().filter(|parameter| parameter.name.starts_with(&prefix)).map(numbers);
        let [layers, heads] =
            [config.num_hidden_layers, config.num_attention_heads].map(|number| number as u64);
        let head = config.head_dim as u64;
        Ok(Self {
            number,
            parameters: list.iter().map(numbers).sum(),
            largest: list.iter().map(numbers).max().unwrap_or(0),
            layer: of_layer.sum(),
            vocabulary: config.vocab_size as u64,
            hidden: config.hidden_size as u64,
            feed_forward: config.intermediate_size as u64,
            layers,
            heads,
            queries: heads * head,
            keys: config.num_key_value_heads as u64 * head,
            head,
            norms: config.has_query_key_norms(),
            tied: config.tie_word_embeddings,
            // The flash kernels of GPUs compute in bfloat16 alone, with heads of these sizes.
            flash: number == Number::Bfloat16 && head.is_multiple_of(8) && head <= 256,
            adapter: trained.map(|adapter| Adapter::new(config, adapter)).transpose()?,
        })
    }

    /// Returns the sizes of the same policy with all scores of attention in memory.
    #[must_use]
    pub const fn materialized(self) -> Self {
        Self { flash: false, ..self }
    }

    /// Number of trained parameters.
    pub(crate) fn trained(&self) -> u64 {
        self.adapter.map_or(self.parameters, |adapter| adapter.parameters)
    }

    /// Number of numbers of the largest trained parameter.
    pub(crate) fn largest_trained(&self) -> u64 {
        self.adapter.map_or(self.largest, |adapter| adapter.largest)
    }
}

impl Adapter {
    fn new(config: &Config, adapter: &AdapterConfig) -> Result<Self, FieldError> {
        let list = adapter::parameters(config, adapter)?;
        let modules = adapter.modules(config)?;
        let layers = config.num_hidden_layers as u64;
        let inputs = || modules.iter().map(|module| module.inputs as u64);
        Ok(Self {
            rank: adapter.rank as u64,
            parameters: list.iter().map(numbers).sum(),
            changed: modules.iter().map(|module| (module.inputs * module.outputs) as u64).sum(),
            largest: list.iter().map(numbers).max().unwrap_or(0),
            maps: (modules.len() as u64).div_ceil(layers),
            inputs: inputs().sum::<u64>().div_ceil(layers),
            widest: inputs().max().unwrap_or(0),
            drops: adapter.dropout > 0.0,
        })
    }
}

fn numbers(parameter: &Parameter) -> u64 {
    parameter.shape.iter().product::<i64>() as u64
}

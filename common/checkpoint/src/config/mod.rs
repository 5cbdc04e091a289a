//! Configuration of a policy: the checked content of `config.json` of a Hugging Face model folder.
//!
//! Reads the files of Transformers 4 (`rope_theta`, `torch_dtype`) and 5 (`rope_parameters`, `dtype`), and writes the
//! former, which both load. Refuses unsupported settings by name. Allocates no tensors.

mod arithmetic;
mod family;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub use family::Family;

use crate::FieldError;
use crate::fields::Fields;
use crate::lfs;
use crate::rope::{Rope, Scaling};

/// The reasons why a configuration of a model or an adapter is unusable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file is not the expected JSON.
    #[error("{path} is not a valid configuration")]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error with its position.
        source: serde_json::Error,
    },
    /// The file is a pointer to a file that was not downloaded.
    #[error(transparent)]
    Pointer(#[from] lfs::Pointer),
    /// A value is unusable.
    #[error("cannot use {path}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The value.
        source: FieldError,
    },
}

/// The shape of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The architecture.
    pub family: Family,
    /// Rows of the embedding and of the head.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width inside the feed-forward layers.
    pub intermediate_size: i64,
    /// Number of blocks.
    pub num_hidden_layers: i64,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: i64,
    /// Width of one head, even.
    pub head_dim: i64,
    /// Longest sequence (prompt and completion), in tokens.
    pub max_position_embeddings: i64,
    /// Epsilon of the root-mean-square norms.
    pub rms_norm_eps: f64,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Biases on the query, key and value projections.
    pub qkv_bias: bool,
    /// A bias on the attention's output projection.
    pub output_bias: bool,
    /// Biases in the feed-forward layers.
    pub mlp_bias: bool,
    /// Standard deviation of random weights.
    pub initializer_range: f64,
    /// Keys of `config.json` that the model code does not read (for example `eos_token_id`): written back unchanged.
    pub other: Map<String, Value>,
}

/// Keys that are derived from the policy itself, so that stale values are dropped.
const REWRITTEN: [&str; 5] = ["model_type", "architectures", "dtype", "torch_dtype", "sliding_window"];

/// Far above real models; keeps products of dimensions from overflowing.
const LARGEST_DIMENSION: i64 = 1 << 22;
/// Far above real models; keeps the list of parameters short.
const MOST_LAYERS: i64 = 1 << 10;
const LONGEST_CONTEXT: i64 = 1 << 24;

impl Config {
    /// Reads `config.json` of a model folder.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("config.json");
        let text = fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        Self::parse(&text, &path)
    }

    /// Parses the text of a `config.json`; errors name `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        lfs::refuse(text.as_bytes(), path)?;
        let object =
            serde_json::from_str(text).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        Self::from_object(object).map_err(|source| Error::Field { path: path.to_owned(), source })
    }

    fn from_object(object: Map<String, Value>) -> Result<Self, FieldError> {
        // The architecture first: another one may lack any of the keys that the three families share.
        let model_type = object.get("model_type").and_then(Value::as_str).unwrap_or("missing");
        let family = Family::from_model_type(model_type)
            .ok_or_else(|| FieldError::unsupported("model_type", model_type, "qwen3, qwen2, llama"))?;
        let mut fields = Fields::new(object);
        let num_hidden_layers = fields.required("num_hidden_layers")?;
        arithmetic::refuse_unsupported(&mut fields, family, num_hidden_layers)?;
        let (hidden_size, num_attention_heads) =
            (fields.required("hidden_size")?, fields.required("num_attention_heads")?);
        let head_dim = match (fields.optional("head_dim")?, family) {
            (Some(head_dim), _) => head_dim,
            // The default of Transformers' Qwen3Config.
            (None, Family::Qwen3) => 128,
            (None, _) => hidden_size / i64::max(num_attention_heads, 1),
        };
        let max_position_embeddings = fields.required("max_position_embeddings")?;
        let attention_bias = fields.optional("attention_bias")?.unwrap_or(false);
        let mut config = Self {
            family,
            vocab_size: fields.required("vocab_size")?,
            hidden_size,
            intermediate_size: fields.required("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: fields.optional("num_key_value_heads")?.unwrap_or(num_attention_heads),
            head_dim,
            max_position_embeddings,
            rms_norm_eps: fields.required("rms_norm_eps")?,
            rope: Rope::take(&mut fields, max_position_embeddings)?,
            tie_word_embeddings: fields.optional("tie_word_embeddings")?.unwrap_or(false),
            qkv_bias: attention_bias || family == Family::Qwen2,
            output_bias: attention_bias && family != Family::Qwen2,
            mlp_bias: fields.optional("mlp_bias")?.unwrap_or(false) && family == Family::Llama,
            initializer_range: fields.optional("initializer_range")?.unwrap_or(0.02),
            other: Map::new(),
        };
        config.other = fields.rest();
        config.other.retain(|key, _| !REWRITTEN.contains(&key.as_str()));
        config.check()?;
        Ok(config)
    }

    /// Checks that the dimensions are positive and consistent.
    pub fn check(&self) -> Result<(), FieldError> {
        for (what, value, largest) in [
            ("vocab_size", self.vocab_size, LARGEST_DIMENSION),
            ("hidden_size", self.hidden_size, LARGEST_DIMENSION),
            ("intermediate_size", self.intermediate_size, LARGEST_DIMENSION),
            ("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS),
            ("num_attention_heads", self.num_attention_heads, LARGEST_DIMENSION),
            ("num_key_value_heads", self.num_key_value_heads, LARGEST_DIMENSION),
            ("head_dim", self.head_dim, LARGEST_DIMENSION),
            ("max_position_embeddings", self.max_position_embeddings, LONGEST_CONTEXT),
        ] {
            if !(1..=largest).contains(&value) {
                return Err(FieldError::invalid(what, value, &format!("between 1 and {largest}")));
            }
        }
        if self.num_attention_heads * self.head_dim > LARGEST_DIMENSION {
            let expected = format!("at most {} for heads of this size", LARGEST_DIMENSION / self.head_dim);
            return Err(FieldError::invalid("num_attention_heads", self.num_attention_heads, &expected));
        }
        if self.num_attention_heads % self.num_key_value_heads != 0 {
            let expected = "a divisor of num_attention_heads";
            return Err(FieldError::invalid("num_key_value_heads", self.num_key_value_heads, expected));
        }
        if self.head_dim % 2 != 0 {
            return Err(FieldError::invalid("head_dim", self.head_dim, "an even number"));
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return Err(FieldError::invalid("rms_norm_eps", self.rms_norm_eps, "between 0 and 1"));
        }
        if !(self.initializer_range > 0.0 && self.initializer_range.is_finite()) {
            let expected = "a positive number";
            return Err(FieldError::invalid("initializer_range", self.initializer_range, expected));
        }
        self.rope.check()
    }

    /// Number of query heads that share one key and value head.
    pub fn queries_per_key(&self) -> i64 {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Whether queries and keys are normalised.
    pub fn has_query_key_norms(&self) -> bool {
        self.family == Family::Qwen3
    }

    /// Whether weights of one configuration fit the other with the same meaning. Ignores settings of random weights
    /// and keys that the model code does not read.
    pub fn same_architecture(&self, other: &Self) -> bool {
        let essence = |config: &Self| Self { initializer_range: 1.0, other: Map::new(), ..config.clone() };
        essence(self) == essence(other)
    }

    /// Returns the text of `config.json` for weights of the type `dtype` (`float32`, `bfloat16`), deterministically.
    pub fn to_json(&self, dtype: &str) -> String {
        let mut file = json!({
            "architectures": [self.family.architecture()],
            "model_type": self.family.model_type(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope.theta,
            "rope_scaling": self.rope.scaling.as_ref().map(Scaling::to_json),
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
            "torch_dtype": dtype,
        });
        let object = file.as_object_mut().expect("the literal above is an object");
        match self.family {
            Family::Qwen3 => _ = object.insert("attention_bias".into(), self.qkv_bias.into()),
            Family::Llama => {
                object.insert("attention_bias".into(), self.qkv_bias.into());
                object.insert("mlp_bias".into(), self.mlp_bias.into());
            }
            Family::Qwen2 => {}
        }
        for (key, value) in &self.other {
            object.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let mut text = serde_json::to_string_pretty(&file).expect("a JSON value can always be written");
        text.push('\n');
        text
    }
}

//! The policy: embedding, blocks, norm and head of a Qwen3, Qwen2 or Llama model.

use podium_checkpoint::FieldError;
use podium_checkpoint::parameters::{self, Initial};
use tch::{Device, Kind, Tensor, no_grad};

use crate::attention::{Arrangement, Attention};
use crate::checkpoint;
use crate::config::Config;
use crate::layers::{self, Linear, Mlp, RmsNorm, Weights};
use crate::random;
use crate::rope::{Frequencies, Rotation};
use std::path::Path;

/// The arithmetic of a policy. Norms, softmax and log-probabilities are float32 in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// The only choice on a CPU without bfloat16 units.
    #[default]
    Float32,
    /// Half the memory, for GPUs.
    Bfloat16,
}

impl Precision {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Bfloat16 => Kind::BFloat16,
        }
    }
}

/// Where and how a policy is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Device of all its tensors.
    pub device: Device,
    /// Type of its weights and activations.
    pub precision: Precision,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { device: Device::Cpu, precision: Precision::Float32 }
    }
}

#[derive(Debug)]
struct Block {
    input_norm: RmsNorm,
    attention: Attention,
    post_attention_norm: RmsNorm,
    mlp: Mlp,
}

impl Block {
    fn new(weights: &Weights, layer: i64, config: &Config) -> Self {
        let prefix = parameters::block_prefix(layer);
        let norm =
            |name: &str| RmsNorm::new(weights.get(&format!("{prefix}.{name}.weight")), config.rms_norm_eps);
        Self {
            input_norm: norm("input_layernorm"),
            attention: Attention::new(weights, &format!("{prefix}.self_attn"), config),
            post_attention_norm: norm("post_attention_layernorm"),
            mlp: Mlp::new(weights, &format!("{prefix}.mlp")),
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        rotation: &Rotation,
        layer: usize,
        arrangement: &mut dyn Arrangement,
    ) -> Tensor {
        let x = x + self.attention.forward(&self.input_norm.forward(x), rotation, layer, arrangement);
        &x + self.mlp.forward(&self.post_attention_norm.forward(&x))
    }
}

/// A policy with all its tensors on one device. It must stay on that device's thread.
#[derive(Debug)]
pub struct Policy {
    config: Config,
    options: LoadOptions,
    parameters: Vec<(String, Tensor)>,
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
    frequencies: Frequencies,
}

impl Policy {
    /// Reads a Hugging Face model folder: `config.json` and one or several safetensors files.
    pub fn load(folder: &Path, options: LoadOptions) -> Result<Self, checkpoint::Error> {
        let config = Config::load(folder)?;
        let parameters = checkpoint::read(folder, &config, options)?;
        Ok(Self::assemble(config, options, parameters))
    }

    /// A policy with random weights: normal with standard deviation `initializer_range`, norms 1, biases 0. The bits
    /// are a function of the configuration and the seed.
    pub fn random(config: &Config, seed: u64, options: LoadOptions) -> Result<Self, FieldError> {
        config.check()?;
        let list = parameters::list(config).into_iter().enumerate();
        let parameters = list.map(|(stream, parameter)| {
            let float = (Kind::Float, Device::Cpu);
            let tensor = match parameter.initial {
                Initial::Ones => Tensor::ones(&parameter.shape, float),
                Initial::Zeros => Tensor::zeros(&parameter.shape, float),
                Initial::Normal => {
                    let count = parameter.shape.iter().product::<i64>() as usize;
                    let numbers = random::normal(seed, stream as u64, count, config.initializer_range);
                    Tensor::from_slice(&numbers).view(&parameter.shape[..])
                }
                Initial::Uniform => {
                    let [outputs, inputs] = parameter.shape[..] else {
                        unreachable!("a matrix, as by the list")
                    };
                    let count = (outputs * inputs) as usize;
                    let numbers = random::uniform(seed, stream as u64, count, 1.0 / (inputs as f64).sqrt());
                    Tensor::from_slice(&numbers).view(&parameter.shape[..])
                }
            };
            (parameter.name, tensor.to_kind(options.precision.kind()).to_device(options.device))
        });
        let parameters = parameters.collect();
        Ok(Self::assemble(config.clone(), options, parameters))
    }

    /// A policy of the same weights that shares no memory with this one and is not trained: a reference.
    #[must_use]
    pub fn frozen_copy(&self) -> Self {
        let copy = |(name, tensor): &(String, Tensor)| (name.clone(), no_grad(|| tensor.detach().copy()));
        Self::assemble(self.config.clone(), self.options, self.parameters.iter().map(copy).collect())
    }

    /// `parameters` are those of [`parameters::list`], in that order.
    fn assemble(config: Config, options: LoadOptions, parameters: Vec<(String, Tensor)>) -> Self {
        let weights = Weights(&parameters);
        Self {
            embedding: weights.get(parameters::EMBEDDING),
            blocks: (0..config.num_hidden_layers).map(|layer| Block::new(&weights, layer, &config)).collect(),
            norm: RmsNorm::new(weights.get(parameters::FINAL_NORM), config.rms_norm_eps),
            head: layers::head(&weights, &config),
            frequencies: Frequencies::new(&config.rope, config.head_dim, options.device),
            config,
            options,
            parameters,
        }
    }

    /// Writes `config.json` and `model.safetensors` into the folder, which is made if need be. The bytes are a function
    /// of the weights and the configuration. Each file appears whole or not at all, the weights last.
    pub fn save(&self, folder: &Path) -> Result<(), checkpoint::Error> {
        checkpoint::write(folder, &self.config, &self.parameters, self.options.precision)
    }

    /// Takes over the weights of a folder that holds another version of this policy. The configuration and the shapes
    /// are checked before anything changes; a value that is not finite is found on the way, and then the weights are
    /// a mixture and another version has to be assigned before the policy is used.
    pub fn assign_from(&mut self, folder: &Path) -> Result<(), checkpoint::Error> {
        checkpoint::assign(folder, &self.config, &self.parameters)
    }

    /// The shape of the policy.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device of all its tensors.
    pub fn device(&self) -> Device {
        self.options.device
    }

    /// Type of weights and activations.
    pub fn precision(&self) -> Precision {
        self.options.precision
    }

    /// All parameters by their Hugging Face names, in model order. The tensors share memory with the policy.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// The parameters that training changes, in model order.
    pub fn trainable(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// Whether backward computes gradients for [`Self::trainable`]. Off in a new policy.
    pub fn set_training(&mut self, training: bool) {
        for (_, tensor) in &mut self.parameters {
            *tensor = tensor.set_requires_grad(training);
        }
    }

    /// Forgets all gradients.
    pub fn zero_gradients(&mut self) {
        for (_, tensor) in &mut self.parameters {
            tensor.zero_grad();
        }
    }

    /// \[rows\] to \[rows, hidden\].
    pub(crate) fn embed(&self, tokens: &Tensor) -> Tensor {
        Tensor::embedding(&self.embedding, tokens, -1, false, false)
    }

    /// The rotation of rows at these positions, \[rows\].
    pub(crate) fn rotation(&self, positions: &Tensor) -> Rotation {
        self.frequencies.rotation(positions, self.options.precision.kind())
    }

    pub(crate) fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// One block, \[rows, hidden\] to \[rows, hidden\].
    pub(crate) fn block(
        &self,
        layer: usize,
        x: &Tensor,
        rotation: &Rotation,
        arrangement: &mut dyn Arrangement,
    ) -> Tensor {
        self.blocks[layer].forward(x, rotation, layer, arrangement)
    }

    /// The norm after the last block.
    pub(crate) fn final_norm(&self, x: &Tensor) -> Tensor {
        self.norm.forward(x)
    }

    /// Embedding and all blocks, without the final norm: \[rows\] to \[rows, hidden\].
    pub(crate) fn trunk(
        &self,
        tokens: &Tensor,
        positions: &Tensor,
        arrangement: &mut dyn Arrangement,
    ) -> Tensor {
        let rotation = self.rotation(positions);
        (0..self.layers()).fold(self.embed(tokens), |x, layer| self.block(layer, &x, &rotation, arrangement))
    }

    /// Float32 logits over the temperature: \[rows, hidden\] (normed) to \[rows, vocabulary\].
    pub(crate) fn logits(&self, hidden: &Tensor, temperature: f64) -> Tensor {
        let logits = self.head.forward(hidden).to_kind(Kind::Float);
        // Exactly one is the common case, and a pass over all logits costs.
        if (temperature - 1.0).abs() < f64::EPSILON { logits } else { logits / temperature }
    }
}

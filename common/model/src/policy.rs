//! The policy: embedding, blocks, norm and head of a Qwen3, Qwen2 or Llama model, with or without an adapter.

use std::path::Path;

use podium_checkpoint::adapter::AdapterConfig;
use podium_checkpoint::parameters::{self, Initial};
use podium_checkpoint::{Dtype, FieldError};
use tch::{Device, Kind, Tensor, no_grad};

use crate::adapter::{Adapter, is_adapter};
use crate::attention::{Arrangement, Attention};
use crate::checkpoint;
use crate::config::Config;
use crate::layers::{self, Linear, Mlp, RmsNorm, Rows, Weights};
use crate::lora::Dropout;
use crate::random;
use crate::rope::Frequencies;

/// The arithmetic of a policy. Norms, softmax and log-probabilities are float32 in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// The faster choice on a CPU without bfloat16 units.
    #[default]
    Float32,
    /// Half the memory, and on GPUs a multiple of the speed.
    Bfloat16,
}

impl Precision {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Bfloat16 => Kind::BFloat16,
        }
    }

    /// As a number type of files.
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::Float32 => Dtype::F32,
            Self::Bfloat16 => Dtype::BF16,
        }
    }

    /// As `config.json` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
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

    fn forward(&self, x: &Tensor, rows: &Rows, layer: usize, arrangement: &mut dyn Arrangement) -> Tensor {
        let x = x + self.attention.forward(&self.input_norm.forward(x), rows, layer, arrangement);
        &x + self.mlp.forward(&self.post_attention_norm.forward(&x), rows.dropout.as_ref())
    }
}

/// A policy with all its tensors on one device. It must stay on that device's thread.
#[derive(Debug)]
pub struct Policy {
    config: Config,
    options: LoadOptions,
    parameters: Vec<(String, Tensor)>,
    adapter: Option<Adapter>,
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
    frequencies: Frequencies,
}

impl Policy {
    /// Reads a Hugging Face model folder: `config.json` and one or several safetensors files. If the folder holds a
    /// PEFT adapter as well, the policy has that adapter.
    pub fn load(folder: &Path, options: LoadOptions) -> Result<Self, checkpoint::Error> {
        let config = Config::load(folder)?;
        let adapter = is_adapter(folder).then(|| Adapter::load(folder, &config, options)).transpose()?;
        let parameters = checkpoint::read(folder, &config, options)?;
        Ok(Self::assemble(config, options, parameters, adapter))
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
        Ok(Self::assemble(config.clone(), options, parameters, None))
    }

    /// This policy with a new adapter in place of any other; it changes nothing until it is trained.
    pub fn with_new_adapter(self, config: AdapterConfig, seed: u64) -> Result<Self, FieldError> {
        let adapter = Adapter::fresh(config, &self.config, seed, self.options)?;
        Ok(Self::assemble(self.config, self.options, self.parameters, Some(adapter)))
    }

    /// This policy with the adapter of a PEFT folder in place of any other.
    pub fn with_adapter(self, folder: &Path) -> Result<Self, checkpoint::Error> {
        let adapter = Adapter::load(folder, &self.config, self.options)?;
        Ok(Self::assemble(self.config, self.options, self.parameters, Some(adapter)))
    }

    /// The policy as it is now, to stay so while this one is trained. What training leaves alone is shared; an adapter
    /// that changes nothing is left out.
    #[must_use]
    pub fn reference(&self) -> Self {
        let mut reference = self.copy_of_trained();
        if reference.adapter.as_ref().is_some_and(Adapter::is_neutral) {
            reference = Self::assemble(reference.config, reference.options, reference.parameters, None);
        }
        reference
    }

    /// The policy as it is now, with memory of its own for all that training changes.
    #[must_use]
    pub fn copy_of_trained(&self) -> Self {
        let share = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.shallow_clone());
        let copy = |(name, tensor): &(String, Tensor)| (name.clone(), no_grad(|| tensor.detach().copy()));
        let adapter = self.adapter.as_ref().map(Adapter::copy);
        let parameters = match &adapter {
            Some(_) => self.parameters.iter().map(share).collect(),
            None => self.parameters.iter().map(copy).collect(),
        };
        Self::assemble(self.config.clone(), self.options, parameters, adapter)
    }

    /// `parameters` are those of [`parameters::list`], in that order.
    fn assemble(
        config: Config,
        options: LoadOptions,
        parameters: Vec<(String, Tensor)>,
        adapter: Option<Adapter>,
    ) -> Self {
        let weights = Weights { base: &parameters, adapter: adapter.as_ref() };
        Self {
            embedding: weights.get(parameters::EMBEDDING),
            blocks: (0..config.num_hidden_layers).map(|layer| Block::new(&weights, layer, &config)).collect(),
            norm: RmsNorm::new(weights.get(parameters::FINAL_NORM), config.rms_norm_eps),
            head: layers::head(&weights, &config),
            frequencies: Frequencies::new(&config.rope, config.head_dim, options.device),
            config,
            options,
            parameters,
            adapter,
        }
    }

    /// Writes `config.json` and `model.safetensors` into the folder, which is made if need be; of a policy with an
    /// adapter this is the model below it. The bytes are a function of the weights and the configuration. Each file
    /// appears whole or not at all, the weights last.
    pub fn save(&self, folder: &Path) -> Result<(), checkpoint::Error> {
        checkpoint::write(folder, &self.config, &self.parameters, self.options.precision)
    }

    /// Writes what training changes: the adapter in PEFT's form, which names `base_model` as the model below it, or,
    /// where there is no adapter, the model as [`Self::save`] does.
    pub fn save_trained(&self, folder: &Path, base_model: Option<String>) -> Result<(), checkpoint::Error> {
        match &self.adapter {
            Some(adapter) => adapter.save(folder, base_model, self.options),
            None => self.save(folder),
        }
    }

    /// Takes over the version of this policy that the folder holds: a model's weights, an adapter, or both. A folder
    /// with a model alone takes an adapter away.
    ///
    /// Configurations and shapes are checked before anything changes; a value that is not finite is found on the way,
    /// and then the weights are a mixture and another version has to be assigned before the policy is used.
    pub fn assign_from(&mut self, folder: &Path) -> Result<(), checkpoint::Error> {
        let adapted = is_adapter(folder);
        let same_form = match &self.adapter {
            Some(adapter) if adapted => adapter.assign_from(folder, &self.config)?,
            adapter => adapter.is_none() && !adapted,
        };
        if !adapted || folder.join("config.json").is_file() {
            checkpoint::assign(folder, &self.config, &self.parameters)?;
        }
        if !same_form {
            let load = || Adapter::load(folder, &self.config, self.options);
            let adapter = adapted.then(load).transpose()?;
            let share = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.shallow_clone());
            let parameters = self.parameters.iter().map(share).collect();
            *self = Self::assemble(self.config.clone(), self.options, parameters, adapter);
        }
        Ok(())
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

    /// The adapter's configuration, if the policy has an adapter.
    pub fn adapter(&self) -> Option<&AdapterConfig> {
        self.adapter.as_ref().map(Adapter::config)
    }

    /// The model's parameters by their Hugging Face names, in model order. The tensors share memory with the policy.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// The parameters that training changes, in model order: the adapter's by PEFT's names, or all of the model's where
    /// there is none.
    pub fn trainable(&self) -> &[(String, Tensor)] {
        self.adapter.as_ref().map_or(&self.parameters, Adapter::parameters)
    }

    /// Whether backward computes gradients for [`Self::trainable`]. Off in a new policy.
    pub fn set_training(&mut self, training: bool) {
        for (_, tensor) in self.trainable_mut() {
            *tensor = tensor.set_requires_grad(training);
        }
    }

    /// Forgets all gradients.
    pub fn zero_gradients(&mut self) {
        for (_, tensor) in self.trainable_mut() {
            tensor.zero_grad();
        }
    }

    fn trainable_mut(&mut self) -> &mut [(String, Tensor)] {
        self.adapter.as_mut().map_or(&mut self.parameters, Adapter::parameters_mut)
    }

    /// \[rows\] to \[rows, hidden\].
    pub(crate) fn embed(&self, tokens: &Tensor) -> Tensor {
        Tensor::embedding(&self.embedding, tokens, -1, false, false)
    }

    /// What the layers need to know of rows at these positions, \[rows\].
    pub(crate) fn rows(&self, positions: &Tensor, dropout: Option<Dropout>) -> Rows {
        Rows { rotation: self.frequencies.rotation(positions, self.options.precision.kind()), dropout }
    }

    pub(crate) fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// One block, \[rows, hidden\] to \[rows, hidden\].
    pub(crate) fn block(
        &self,
        layer: usize,
        x: &Tensor,
        rows: &Rows,
        arrangement: &mut dyn Arrangement,
    ) -> Tensor {
        self.blocks[layer].forward(x, rows, layer, arrangement)
    }

    /// The norm after the last block.
    pub(crate) fn final_norm(&self, x: &Tensor) -> Tensor {
        self.norm.forward(x)
    }

    /// Embedding and all blocks, without the final norm: \[rows\] to \[rows, hidden\].
    pub(crate) fn trunk(&self, tokens: &Tensor, rows: &Rows, arrangement: &mut dyn Arrangement) -> Tensor {
        (0..self.layers()).fold(self.embed(tokens), |x, layer| self.block(layer, &x, rows, arrangement))
    }

    /// Float32 logits over the temperature: \[rows, hidden\] (normed) to \[rows, vocabulary\].
    pub(crate) fn logits(&self, hidden: &Tensor, temperature: f64) -> Tensor {
        let logits = self.head.forward(hidden, None).to_kind(Kind::Float);
        // Exactly one is the common case, and a pass over all logits costs.
        if (temperature - 1.0).abs() < f64::EPSILON { logits } else { logits / temperature }
    }
}

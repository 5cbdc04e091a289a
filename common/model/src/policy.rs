//! The policy: embedding, blocks, norm and head of a Qwen3, Qwen2 or Llama model, with or without an adapter.

use std::path::Path;

use podium_checkpoint::FieldError;
use podium_checkpoint::adapter::AdapterConfig;
use podium_checkpoint::parameters::{self, Initial};
use podium_files::durable::Durability;
use tch::{Device, Kind, Tensor, no_grad};

use crate::adapter::{Adapter, is_adapter};
use crate::attention::Arrangement;
use crate::block::Block;
use crate::checkpoint;
use crate::config::Config;
use crate::gradients::Sums;
use crate::joint;
use crate::layers::{self, RmsNorm, Rows, Weights};
use crate::lora::Dropout;
use crate::options::{AttentionKernel, LoadOptions, Precision};
use crate::random;
use crate::rope::Frequencies;
use crate::shared::SharedDevice;
use crate::shim::computed;

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
    /// \[vocabulary, hidden\]
    head: Tensor,
    frequencies: Frequencies,
    sums: Sums,
}

impl Policy {
    /// Reads a Hugging Face model folder: `config.json` and one or several safetensors files. If the folder also
    /// holds a PEFT adapter, the policy has that adapter.
    pub fn load(folder: &Path, options: LoadOptions) -> Result<Self, checkpoint::Error> {
        let config = Config::load(folder)?;
        let adapter = is_adapter(folder).then(|| Adapter::load(folder, &config, options)).transpose()?;
        let parameters = checkpoint::read(folder, &config, options)?;
        Ok(Self::assemble(config, options, parameters, adapter))
    }

    /// Reads a model folder like [`Self::load`], and shares the model's weights with the other policies of `device`. Only an
    /// adapter of such a policy may be trained.
    pub fn load_shared(
        folder: &Path,
        options: LoadOptions,
        device: &SharedDevice,
    ) -> Result<Self, checkpoint::Error> {
        let config = Config::load(folder)?;
        let options = LoadOptions { shares_base: true, ..options };
        let adapter = is_adapter(folder).then(|| Adapter::load(folder, &config, options)).transpose()?;
        let parameters = device.parameters(folder, &config, options)?;
        Ok(Self::assemble(config, options, parameters, adapter))
    }

    /// Creates a policy with random weights: normal with standard deviation `initializer_range`, norms 1, biases 0.
    /// The bits are a function of the configuration and the seed.
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

    /// Creates a policy whose weights are small numbers of libtorch's generator, created on the device: for measurements of
    /// speed, not for training.
    pub fn for_timing(config: &Config, options: LoadOptions) -> Result<Self, FieldError> {
        config.check()?;
        let float = (options.precision.kind(), options.device);
        let tensor = |parameter: parameters::Parameter| {
            let tensor = match parameter.initial {
                Initial::Ones => Tensor::ones(&parameter.shape, float),
                _ => Tensor::randn(&parameter.shape, float) * config.initializer_range,
            };
            (parameter.name, tensor)
        };
        let parameters = no_grad(|| parameters::list(config).into_iter().map(tensor).collect());
        Ok(Self::assemble(config.clone(), options, parameters, None))
    }

    /// Replaces the policy's adapter by a new one, which has no effect until it is trained.
    pub fn with_new_adapter(self, config: AdapterConfig, seed: u64) -> Result<Self, FieldError> {
        let adapter = Adapter::fresh(config, &self.config, seed, self.options)?;
        Ok(Self::assemble(self.config, self.options, self.parameters, Some(adapter)))
    }

    /// Replaces the policy's adapter by the adapter of a PEFT folder.
    pub fn with_adapter(self, folder: &Path) -> Result<Self, checkpoint::Error> {
        let adapter = Adapter::load(folder, &self.config, self.options)?;
        Ok(Self::assemble(self.config, self.options, self.parameters, Some(adapter)))
    }

    /// Returns a fixed copy of the current policy that training does not affect. Frozen weights are
    /// shared; an adapter without effect is omitted.
    #[must_use]
    pub fn reference(&self) -> Self {
        let mut reference = self.copy_of_trained();
        if reference.adapter.as_ref().is_some_and(Adapter::is_neutral) {
            reference = Self::assemble(reference.config, reference.options, reference.parameters, None);
        }
        reference
    }

    /// Returns a copy of the current policy with its own memory for all trainable weights.
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

    /// Returns a policy without adapter whose weights include the changes of this policy's adapter, computed in float32 and
    /// rounded to the type of the weights; `None` without an adapter. Unchanged weights are shared.
    #[must_use]
    pub fn merged(&self) -> Option<Self> {
        let adapter = self.adapter.as_ref()?;
        let merged = |(name, weight): &(String, Tensor)| {
            let change = name.strip_suffix(".weight").and_then(|module| adapter.change(module));
            let weight = match change {
                Some(change) => no_grad(|| (weight.to_kind(Kind::Float) + change).to_kind(weight.kind())),
                None => weight.detach(),
            };
            (name.clone(), weight)
        };
        let parameters = self.parameters.iter().map(merged).collect();
        Some(Self::assemble(self.config.clone(), self.options, parameters, None))
    }

    /// Assembles the policy from `parameters`, in the order of [`parameters::list`].
    fn assemble(
        config: Config,
        options: LoadOptions,
        mut parameters: Vec<(String, Tensor)>,
        adapter: Option<Adapter>,
    ) -> Self {
        joint::join(&mut parameters, &config);
        let weights = Weights { base: &parameters, adapter: adapter.as_ref() };
        Self {
            embedding: weights.get(parameters::EMBEDDING),
            blocks: (0..config.num_hidden_layers).map(|layer| Block::new(&weights, layer, &config)).collect(),
            norm: RmsNorm::new(weights.get(parameters::FINAL_NORM), config.rms_norm_eps),
            head: layers::head(&weights, &config),
            frequencies: Frequencies::new(&config.rope, config.head_dim, options.device),
            sums: Sums::default(),
            config,
            options,
            parameters,
            adapter,
        }
    }

    /// Writes `config.json` and `model.safetensors` into the folder, which is created if necessary.
    /// A policy with an adapter writes its base model. The bytes are a function of the weights and
    /// the configuration. Each file is written atomically, the weights last.
    pub fn save(&self, folder: &Path) -> Result<(), checkpoint::Error> {
        checkpoint::write(folder, &self.config, &self.parameters, self.options.precision, Durability::Durable)
    }

    /// Writes the trainable weights. With an adapter, writes it in PEFT's format with `base_model`
    /// as the base model; without one, writes the model like [`Self::save`].
    pub fn save_trained(
        &self,
        folder: &Path,
        base_model: Option<String>,
        durability: Durability,
    ) -> Result<(), checkpoint::Error> {
        match &self.adapter {
            Some(adapter) => adapter.save(folder, base_model, self.options, durability),
            None => {
                checkpoint::write(folder, &self.config, &self.parameters, self.options.precision, durability)
            }
        }
    }

    /// Assigns the version of this policy in the folder: a model's weights, an adapter, or both. A folder with a
    /// model alone removes the adapter.
    ///
    /// Configurations and shapes are checked before any change. A non-finite value is detected during the assignment;
    /// the weights are then a mixture, and another version must be assigned before the policy is used. Shared weights
    /// are not assigned: a model in the folder must have the same.
    pub fn assign_from(&mut self, folder: &Path) -> Result<(), checkpoint::Error> {
        let adapted = is_adapter(folder);
        let same_form = match &self.adapter {
            Some(adapter) if adapted => adapter.assign_from(folder, &self.config)?,
            adapter => adapter.is_none() && !adapted,
        };
        if !adapted || folder.join("config.json").is_file() {
            if self.options.shares_base {
                checkpoint::compare(folder, &self.config, &self.parameters)?;
            } else {
                checkpoint::assign(folder, &self.config, &self.parameters)?;
            }
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

    /// Returns the policy's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the device of all its tensors.
    pub fn device(&self) -> Device {
        self.options.device
    }

    /// Returns the type of weights and activations.
    pub fn precision(&self) -> Precision {
        self.options.precision
    }

    /// Returns the implementation of attention. Flash kernels of GPUs support these sizes of heads alone.
    pub(crate) fn attention_kernel(&self) -> AttentionKernel {
        let supported = self.config.head_dim % 8 == 0 && self.config.head_dim <= 256;
        if self.device() == Device::Cpu || supported {
            self.options.attention
        } else {
            AttentionKernel::Materialized
        }
    }

    /// Returns whether sampling uses the kernels for CPUs that compute several operations in one pass.
    pub(crate) fn is_fused(&self) -> bool {
        self.options.fused && self.device() == Device::Cpu
    }

    /// Returns the adapter's configuration, if the policy has an adapter.
    pub fn adapter(&self) -> Option<&AdapterConfig> {
        self.adapter.as_ref().map(Adapter::config)
    }

    /// Returns the model's parameters by their Hugging Face names, in model order. The tensors
    /// share memory with the policy.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// Returns the trainable parameters in model order: the adapter's by PEFT's names, or all of
    /// the model's without an adapter.
    pub fn trainable(&self) -> &[(String, Tensor)] {
        self.adapter.as_ref().map_or(&self.parameters, Adapter::parameters)
    }

    /// Sets whether backward computes gradients for [`Self::trainable`]. A new policy computes
    /// none.
    pub fn set_training(&mut self, training: bool) {
        for (_, tensor) in self.trainable_mut() {
            *tensor = tensor.set_requires_grad(training);
        }
    }

    /// Returns the sum of the gradients of all passes since the last call, float32, one for each of
    /// [`Self::trainable`]; zeros for parameters without one. Removes them from the policy.
    pub fn take_gradients(&self) -> Vec<Tensor> {
        self.sums.take(self.trainable())
    }

    /// Removes all gradients.
    pub fn clear_gradients(&self) {
        self.sums.clear(self.trainable());
    }

    /// Moves gradients of a smaller type than float32 into the sums; see [`crate::gradients`].
    pub(crate) fn collect_gradients(&self) {
        self.sums.collect(self.trainable());
    }

    fn trainable_mut(&mut self) -> &mut [(String, Tensor)] {
        self.adapter.as_mut().map_or(&mut self.parameters, Adapter::parameters_mut)
    }

    /// Embeds tokens: \[rows\] to \[rows, hidden\].
    pub(crate) fn embed(&self, tokens: &Tensor) -> Tensor {
        Tensor::embedding(&self.embedding, tokens, -1, false, false)
    }

    /// Returns the data that the layers need for rows at these positions, \[rows\], in sampling.
    pub(crate) fn rows(&self, positions: &Tensor) -> Rows {
        Rows { inference: true, fused: self.is_fused(), ..self.training_rows(positions, None) }
    }

    /// The same for scoring and training.
    pub(crate) fn training_rows(&self, positions: &Tensor, dropout: Option<Dropout>) -> Rows {
        let rotation = self.frequencies.rotation(positions, self.options.precision.kind());
        Rows { rotation, dropout, inference: false, fused: false, outputs: None }
    }

    pub(crate) fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// Computes one block, \[rows, hidden\] to \[rows, hidden\]; the last one to \[outputs, hidden\].
    pub(crate) fn block(
        &self,
        layer: usize,
        x: &Tensor,
        rows: &Rows,
        arrangement: &mut dyn Arrangement,
    ) -> Tensor {
        let block = &self.blocks[layer];
        match rows.outputs.as_ref().filter(|_| layer + 1 == self.layers()) {
            Some(outputs) if self.attention_kernel() == AttentionKernel::Flash => {
                block.forward_outputs(x, rows, outputs, layer, arrangement)
            }
            Some(outputs) => outputs.select(&block.forward(x, rows, layer, arrangement)),
            None => block.forward(x, rows, layer, arrangement),
        }
    }

    /// Computes the norm after the last block.
    pub(crate) fn final_norm(&self, x: &Tensor) -> Tensor {
        self.norm.forward(x)
    }

    /// Computes the embedding and all blocks, without the final norm: \[rows\] to \[outputs, hidden\].
    pub(crate) fn trunk(&self, tokens: &Tensor, rows: &Rows, arrangement: &mut dyn Arrangement) -> Tensor {
        (0..self.layers()).fold(self.embed(tokens), |x, layer| self.block(layer, &x, rows, arrangement))
    }

    /// Returns float32 logits divided by the temperature: \[rows, hidden\] (normed) to \[rows,
    /// vocabulary\].
    pub(crate) fn logits(&self, hidden: &Tensor, temperature: f64) -> Tensor {
        divided(&hidden.linear(&self.head, None::<&Tensor>), temperature)
    }

    /// Returns the logits of the tokens after rows, in sampling: output of the last block \[rows, hidden\] to \[rows,
    /// vocabulary\].
    pub(crate) fn next_logits(&self, x: &Tensor, temperature: f64) -> Tensor {
        let x = self.final_norm(x);
        let logits = if self.is_fused() {
            computed(podium_torch_shim::linear(&x, &self.head, None, &[]))
        } else {
            x.linear(&self.head, None::<&Tensor>)
        };
        divided(&logits, temperature)
    }
}

/// Returns float32 logits divided by the temperature.
fn divided(logits: &Tensor, temperature: f64) -> Tensor {
    let logits = logits.to_kind(Kind::Float);
    // A temperature of 1 is the common case, and a pass over all logits is expensive.
    if (temperature - 1.0).abs() < f64::EPSILON { logits } else { logits / temperature }
}

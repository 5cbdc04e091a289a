//! A policy's adapter: its tensors, new or from a PEFT folder; loading, assignment and saving.

use std::path::Path;

use podium_checkpoint::adapter::{self, AdapterConfig};
use podium_checkpoint::parameters::{Initial, Parameter};
use podium_checkpoint::{FieldError, config as model_config};
use podium_files::durable::{self, Durability};
use tch::{Kind, Tensor, no_grad};

use crate::checkpoint::{self, Error};
use crate::config::Config;
use crate::lora::Lora;
use crate::options::LoadOptions;
use crate::random;

/// Whether the folder holds a PEFT adapter, with or without a model.
pub fn is_adapter(folder: &Path) -> bool {
    folder.join(adapter::CONFIG).is_file()
}

/// The adapter of a policy.
#[derive(Debug)]
pub(crate) struct Adapter {
    config: AdapterConfig,
    /// `lora_A` and `lora_B` of each adapted linear map by PEFT's names, in model order.
    parameters: Vec<(String, Tensor)>,
}

impl Adapter {
    /// Creates a new adapter, which changes nothing yet: A uniform between ±1/√inputs like PEFT's, B zero. The bits
    /// are a function of the configurations and the seed.
    pub(crate) fn fresh(
        config: AdapterConfig,
        model: &Config,
        seed: u64,
        options: LoadOptions,
    ) -> Result<Self, FieldError> {
        let list = adapter::parameters(model, &config)?;
        let tensor = |(stream, parameter): (usize, Parameter)| {
            let [rows, columns] = parameter.shape[..] else { unreachable!("adapters are made of matrices") };
            let count = (rows * columns) as usize;
            let numbers = match parameter.initial {
                Initial::Zeros => vec![0.0; count],
                _ => random::uniform(seed, stream as u64, count, (columns as f64).sqrt().recip()),
            };
            let tensor = Tensor::from_slice(&numbers).view([rows, columns]);
            (parameter.name, tensor.to_kind(options.adapter.kind()).to_device(options.device))
        };
        let parameters = list.into_iter().enumerate().map(tensor).collect();
        Ok(Self { config, parameters })
    }

    /// Loads the adapter of a PEFT folder.
    pub(crate) fn load(folder: &Path, model: &Config, options: LoadOptions) -> Result<Self, Error> {
        let config = AdapterConfig::load(folder)?;
        let checkpoint = adapter::open(folder, model, &config)?;
        let parameters = checkpoint::read_all(
            &checkpoint,
            &list(folder, model, &config)?,
            options.device,
            options.adapter,
        )?;
        Ok(Self { config, parameters })
    }

    /// Copies the weights of another version of this adapter. Returns `false`, without changes, if the folder holds
    /// an adapter of another configuration.
    pub(crate) fn assign_from(&self, folder: &Path, model: &Config) -> Result<bool, Error> {
        let config = AdapterConfig::load(folder)?;
        let checkpoint = adapter::open(folder, model, &config)?;
        let list = list(folder, model, &config)?;
        let names = list.iter().map(|parameter| &parameter.name);
        let form = |config: &AdapterConfig| (config.rank, config.scale().to_bits());
        if form(&config) != form(&self.config) || !names.eq(self.parameters.iter().map(|(name, _)| name)) {
            return Ok(false);
        }
        checkpoint::assign_all(&checkpoint, &self.parameters)?;
        Ok(true)
    }

    /// Writes the PEFT folder, the weights last. `base_model`: the base model that PEFT loads.
    pub(crate) fn save(
        &self,
        folder: &Path,
        base_model: Option<String>,
        options: LoadOptions,
        durability: Durability,
    ) -> Result<(), Error> {
        let config = AdapterConfig { base_model, ..self.config.clone() };
        durable::create_folder(folder)?;
        durable::write_as(&folder.join(adapter::CONFIG), durability, config.to_json().as_bytes())?;
        checkpoint::write_file(&folder.join(adapter::WEIGHTS), &self.parameters, options.adapter, durability)
    }

    /// Returns a copy with its own memory.
    pub(crate) fn copy(&self) -> Self {
        let copy = |(name, tensor): &(String, Tensor)| (name.clone(), no_grad(|| tensor.detach().copy()));
        Self { config: self.config.clone(), parameters: self.parameters.iter().map(copy).collect() }
    }

    pub(crate) fn config(&self) -> &AdapterConfig {
        &self.config
    }

    pub(crate) fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    pub(crate) fn parameters_mut(&mut self) -> &mut [(String, Tensor)] {
        &mut self.parameters
    }

    /// Whether B is entirely zero, so that the adapter changes nothing.
    pub(crate) fn is_neutral(&self) -> bool {
        let is_zero = |tensor: &Tensor| tensor.count_nonzero(None).int64_value(&[]) == 0;
        self.parameters
            .iter()
            .filter(|(name, _)| name.ends_with("lora_B.weight"))
            .all(|(_, tensor)| is_zero(tensor))
    }

    /// Returns the adapter's part for the linear map `module`, whose activations are of the type `kind`.
    pub(crate) fn lora(&self, module: &str, kind: Kind) -> Option<Lora> {
        let find = |name: &str| self.parameters.iter().position(|(own, _)| own == name);
        let place = find(&adapter::lora_a(module))?;
        let (a, b) = (&self.parameters[place].1, &self.parameters[place + 1].1);
        let scale = self.config.scale();
        let cast = (a.kind() != kind).then_some(kind);
        Some(Lora { a: a.shallow_clone(), b: b.shallow_clone(), cast, scale, stream: place as u64 })
    }

    /// scale · B A of the linear map `module`, float32, \[outputs, inputs\].
    pub(crate) fn change(&self, module: &str) -> Option<Tensor> {
        let Lora { a, b, scale, .. } = self.lora(module, Kind::Float)?;
        Some(no_grad(|| b.to_kind(Kind::Float).matmul(&a.to_kind(Kind::Float)) * scale))
    }
}

fn list(folder: &Path, model: &Config, config: &AdapterConfig) -> Result<Vec<Parameter>, Error> {
    let failed = |source| model_config::Error::Field { path: folder.join(adapter::CONFIG), source };
    Ok(adapter::parameters(model, config).map_err(failed)?)
}

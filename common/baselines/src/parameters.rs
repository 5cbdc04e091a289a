//! Named parameters of a network: initial values from a seed, and safetensors files.

use std::path::Path;

use podium_checkpoint::Checkpoint;
use podium_checkpoint::parameters::{Initial, Parameter};
use podium_files::durable::Durability;
use podium_model::{Precision, checkpoint, random};
use tch::{Device, Kind, Tensor, no_grad};

use crate::error::Error;

/// The trainable tensors of a network, float32 on the CPU.
#[derive(Debug)]
pub(crate) struct Parameters {
    list: Vec<Parameter>,
    tensors: Vec<(String, Tensor)>,
}

/// A parameter of this name, shape and initial value.
pub(crate) fn parameter(name: impl Into<String>, shape: &[i64], initial: Initial) -> Parameter {
    Parameter { name: name.into(), shape: shape.to_vec(), initial }
}

impl Parameters {
    /// Creates parameters. Normal values have this standard deviation; each parameter has its own random numbers.
    pub(crate) fn new(list: Vec<Parameter>, seed: u64, standard_deviation: f64) -> Self {
        let tensor = |(stream, parameter): (u64, &Parameter)| {
            let shape = parameter.shape.as_slice();
            let count = shape.iter().product::<i64>() as usize;
            let columns = shape.last().copied().unwrap_or(1) as f64;
            let tensor = match parameter.initial {
                Initial::Normal => {
                    Tensor::from_slice(&random::normal(seed, stream, count, standard_deviation)).view(shape)
                }
                Initial::Uniform => {
                    Tensor::from_slice(&random::uniform(seed, stream, count, columns.sqrt().recip()))
                        .view(shape)
                }
                Initial::Ones => Tensor::ones(shape, (Kind::Float, Device::Cpu)),
                Initial::Zeros => Tensor::zeros(shape, (Kind::Float, Device::Cpu)),
            };
            (parameter.name.clone(), tensor.set_requires_grad(true))
        };
        let tensors = (0..).zip(&list).map(tensor).collect();
        Self { list, tensors }
    }

    /// Returns a parameter.
    ///
    /// # Panics
    /// If no parameter has this name.
    pub(crate) fn get(&self, name: &str) -> Tensor {
        let found = self.tensors.iter().find(|(own, _)| own == name);
        found.unwrap_or_else(|| panic!("{name} is a parameter")).1.shallow_clone()
    }

    /// Returns names and tensors, which share memory with the parameters.
    pub(crate) fn tensors(&self) -> &[(String, Tensor)] {
        &self.tensors
    }

    /// Returns copies of the values.
    pub(crate) fn copies(&self) -> Vec<Tensor> {
        self.tensors.iter().map(|(_, tensor)| tensor.detach().copy()).collect()
    }

    /// Replaces the values.
    pub(crate) fn assign(&self, values: &[Tensor]) {
        for ((_, tensor), value) in self.tensors.iter().zip(values) {
            no_grad(|| tensor.shallow_clone().copy_(value));
        }
    }

    /// Writes several sets of tensors of these shapes into one file, each set under a prefix.
    pub(crate) fn write(&self, path: &Path, sets: &[(&str, &[Tensor])]) -> Result<(), Error> {
        let named = sets.iter().flat_map(|(prefix, tensors)| {
            let names = self.list.iter().zip(*tensors);
            names.map(move |(parameter, tensor)| {
                (format!("{prefix}{}", parameter.name), tensor.shallow_clone())
            })
        });
        let named: Vec<_> = named.collect();
        Ok(checkpoint::write_file(path, &named, Precision::Float32, Durability::Durable)?)
    }

    /// Reads sets of tensors of these shapes from a file that contains nothing else.
    pub(crate) fn read(&self, path: &Path, prefixes: &[&str]) -> Result<Vec<Vec<Tensor>>, Error> {
        let list: Vec<Parameter> = prefixes
            .iter()
            .flat_map(|prefix| {
                self.list
                    .iter()
                    .map(move |own| Parameter { name: format!("{prefix}{}", own.name), ..own.clone() })
            })
            .collect();
        let folder = path.parent().unwrap_or(Path::new(""));
        let opened = Checkpoint::open_files(folder, vec![path.to_owned()], &list, |_| false)?;
        let read = checkpoint::read_all(&opened, &list, Device::Cpu, Precision::Float32)?;
        let mut tensors = read.into_iter().map(|(_, tensor)| tensor);
        Ok(prefixes.iter().map(|_| tensors.by_ref().take(self.list.len()).collect()).collect())
    }
}

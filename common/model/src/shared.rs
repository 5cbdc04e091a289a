//! A device that two threads of one process use, a learner's and a worker's, with one copy of the frozen weights.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use podium_checkpoint::{Checkpoint, Config, parameters};
use tch::Tensor;

use crate::checkpoint::{self, Error};
use crate::joint;
use crate::options::LoadOptions;

type Parameters = Vec<(String, Tensor)>;

/// A device and the frozen weights of a model on it, shared by the policies of several threads. Clones refer to the
/// same device.
///
/// Autograd, gradients and adapters belong to each thread's own policy. The shared weights are never written to.
#[derive(Debug, Clone, Default)]
pub struct SharedDevice(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The weights of the first policy that was loaded.
    base: Mutex<Option<Base>>,
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Base {
    options: LoadOptions,
    parameters: Parameters,
}

impl SharedDevice {
    /// Waits until no other thread computes on the device, and excludes others while the guard is held. Computing in
    /// turns bounds the memory of the device by that of one thread, and makes it independent of timing.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        // There is no state that a panic could leave inconsistent.
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the parameters of the model in the folder: those in memory, which must have the same bits, or, at the
    /// first call, those of the files.
    pub(crate) fn parameters(
        &self,
        folder: &Path,
        config: &Config,
        options: LoadOptions,
    ) -> Result<Parameters, Error> {
        let mut base = self.0.base.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Base { options: own, parameters }) = base.as_ref()
            && (own.device, own.precision) == (options.device, options.precision)
        {
            checkpoint::compare(folder, config, parameters)?;
            return Ok(share(parameters));
        }
        let checkpoint = Checkpoint::open(folder, config)?;
        let list = parameters::list(config);
        let mut parameters = checkpoint::read_all(&checkpoint, &list, options.device, options.precision)?;
        joint::join(&mut parameters, config);
        let shared = share(&parameters);
        *base = Some(Base { options, parameters });
        Ok(shared)
    }
}

/// Returns tensors of the same memory, each with autograd of its own.
fn share(parameters: &[(String, Tensor)]) -> Parameters {
    parameters.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect()
}

//! Policy versions and checkpoints.

use crate::parts::{Limit, Phase};
use crate::plan::Plan;

/// Returns the length of a bfloat16 version divided by that of its delta, as measured for two learning rates
/// (docs/design/evidence.md); `None` above them.
pub fn delta_ratio(learning_rate: f64) -> Option<f64> {
    match learning_rate {
        rate if rate <= 2e-6 => Some(50.0),
        rate if rate <= 2e-5 => Some(8.0),
        _ => None,
    }
}

impl Plan {
    /// Bytes of a policy version: all weights, or the adapter in float32.
    pub fn version_bytes(&self) -> f64 {
        let model = &self.policy.model;
        let bytes =
            model.adapter.map_or(model.number.bytes() * model.parameters, |adapter| 4 * adapter.parameters);
        bytes as f64
    }

    /// Rank 0 writes a version and, unless all processes run on one host, sends it to the coordinator.
    pub(crate) fn publication(&self) -> Phase {
        let (bytes, links) = (self.version_bytes(), &self.links);
        let sent = if self.worker_hosts == 0 { 0.0 } else { bytes / links.network };
        let sent = match self.delta_ratio {
            Some(ratio) if self.worker_hosts > 0 => bytes / links.encoder + sent / ratio,
            _ => sent,
        };
        Phase { name: "publication", seconds: bytes / links.files + sent, limit: Limit::Transfer }
    }

    /// Workers download a version, each host once, and load it. The hosts share the coordinator's link.
    pub(crate) fn fetch(&self) -> Phase {
        let (bytes, links) = (self.version_bytes(), &self.links);
        let sent = self.worker_hosts as f64 * bytes / links.network;
        let received = match self.delta_ratio {
            Some(ratio) if self.worker_hosts > 0 => bytes / links.decoder + sent / ratio,
            _ => sent,
        };
        // A merged adapter is added to the weights, which are read and written.
        let changed = self.policy.model.adapter.filter(|_| self.merged).map_or(0, |adapter| adapter.changed);
        let merged = (12 * changed) as f64 / self.device.bandwidth;
        Phase { name: "fetch", seconds: received + bytes / links.files + merged, limit: Limit::Transfer }
    }

    /// The share of a step in the writing of a checkpoint: float32 weights and both moments.
    pub(crate) fn checkpoint(&self) -> Phase {
        let bytes = 12.0 * self.policy.trained() as f64;
        let seconds = bytes / self.links.files / self.checkpoint_every_steps as f64;
        Phase { name: "checkpoint", seconds, limit: Limit::Transfer }
    }
}

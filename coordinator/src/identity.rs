//! The identity of the run, and the check of processes that join it.

use podium_proto::PROTOCOL_VERSION;
use uuid::Uuid;

/// The identity of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Id of the run, chosen when the output folder was created.
    pub run_id: Uuid,
    /// Name of the run.
    pub run_name: String,
    /// Hash of the run file's sections that affect results.
    pub run_hash: String,
    /// Fingerprint of the policy's architecture and tokenizer.
    pub model_fingerprint: String,
}

/// The reasons why a process does not belong to the run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The process uses another protocol version.
    #[error(
        "it speaks protocol version {found}, this coordinator {PROTOCOL_VERSION}: start all processes of a run from one build"
    )]
    Protocol {
        /// Its version.
        found: u32,
    },
    /// The process belongs to another run.
    #[error(
        "its run file has hash {found}, this coordinator's {expected}: start it with the run file of this run"
    )]
    RunHash {
        /// Its hash.
        found: String,
        /// The hash of this run.
        expected: String,
    },
    /// The process has another model.
    #[error("its policy has fingerprint {found}, this run's {expected}: architecture or tokenizer differ")]
    Model {
        /// Its fingerprint.
        found: String,
        /// The fingerprint of this run.
        expected: String,
    },
}

impl Identity {
    /// Checks the identity that a process reports. A process without a policy reports an empty fingerprint.
    pub fn check(&self, protocol: u32, run_hash: &str, model_fingerprint: &str) -> Result<(), Error> {
        let shown = |text: &str| text.chars().take(80).collect::<String>();
        if protocol != PROTOCOL_VERSION {
            return Err(Error::Protocol { found: protocol });
        }
        if run_hash != self.run_hash {
            return Err(Error::RunHash { found: shown(run_hash), expected: self.run_hash.clone() });
        }
        if !model_fingerprint.is_empty() && model_fingerprint != self.model_fingerprint {
            let expected = self.model_fingerprint.clone();
            return Err(Error::Model { found: shown(model_fingerprint), expected });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_difference() {
        let identity = Identity {
            run_id: Uuid::nil(),
            run_name: "demo".into(),
            run_hash: "cafe".into(),
            model_fingerprint: "f00d".into(),
        };
        identity.check(PROTOCOL_VERSION, "cafe", "").unwrap();
        identity.check(PROTOCOL_VERSION, "cafe", "f00d").unwrap();
        let other = identity.check(PROTOCOL_VERSION, "beef", "").unwrap_err().to_string();
        assert!(other.contains("beef") && other.contains("cafe"));
        assert!(matches!(identity.check(PROTOCOL_VERSION, "cafe", "bad"), Err(Error::Model { .. })));
        assert!(matches!(identity.check(99, "cafe", ""), Err(Error::Protocol { found: 99 })));
    }
}

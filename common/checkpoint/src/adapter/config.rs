//! `adapter_config.json`, as PEFT 0.21 writes it.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::targets::Targets;
use crate::config::Error;
use crate::fields::{Fields, is_off};
use crate::{FieldError, lfs};

/// File name of an adapter's configuration.
pub const CONFIG: &str = "adapter_config.json";

/// The configuration of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Inner dimension of the update B·A.
    pub rank: i64,
    /// Strength of the update; see [`Self::scale`].
    pub alpha: f64,
    /// Fraction of a module's inputs that training drops from the update.
    pub dropout: f64,
    /// Rank-stabilised scaling (Kalajdzievski 2023, arXiv:2312.03732).
    pub rslora: bool,
    /// The linear layers that it changes.
    pub targets: Targets,
    /// Name or folder of the base model, for information only.
    pub base_model: Option<String>,
}

/// Keys that do not change the meaning of the weights: notes, and settings of variants that are refused elsewhere.
/// All other unread keys must be off.
const HARMLESS: [&str; 14] = [
    "peft_type",
    "auto_mapping",
    "peft_version",
    "revision",
    "inference_mode",
    "runtime_config",
    "ensure_weight_tying",
    "eva_config",
    "loftq_config",
    "corda_config",
    "lora_ga_config",
    "layers_pattern",
    "megatron_core",
    "qalora_group_size",
];

/// Initialisations that leave the base weights unchanged. The others subtract from them.
const HARMLESS_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Larger values are no longer low-rank updates.
const LARGEST_RANK: i64 = 1 << 16;

impl AdapterConfig {
    /// Reads `adapter_config.json` of an adapter's folder.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        Self::parse(&text, &path)
    }

    /// Parses the text of an `adapter_config.json`; errors name `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        lfs::refuse(text.as_bytes(), path)?;
        let object =
            serde_json::from_str(text).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        Self::from_object(object).map_err(|source| Error::Field { path: path.to_owned(), source })
    }

    /// Missing keys have PEFT's defaults.
    fn from_object(object: Map<String, Value>) -> Result<Self, FieldError> {
        let mut fields = Fields::new(object);
        // The type first: another type may lack any of the keys.
        let peft_type = fields.get("peft_type").unwrap_or(&Value::Null);
        if peft_type != "LORA" {
            return Err(FieldError::unsupported("peft_type", peft_type, "LORA"));
        }
        for (key, supported) in [("task_type", "CAUSAL_LM"), ("bias", "none")] {
            let value: Option<String> = fields.optional(key)?;
            if let Some(other) = value.filter(|value| value != supported) {
                return Err(FieldError::unsupported(key, other, supported));
            }
        }
        match fields.get("init_lora_weights") {
            None | Some(Value::Null | Value::Bool(_)) => {}
            Some(Value::String(start)) if HARMLESS_STARTS.contains(&start.as_str()) => {}
            Some(start) => {
                let supported = "true, false, gaussian, eva, orthogonal";
                return Err(FieldError::unsupported("init_lora_weights", start, supported));
            }
        }
        fields.forget("init_lora_weights");
        let targets: Targets = fields.required("target_modules")?;
        let config = Self {
            rank: fields.required("r")?,
            alpha: fields.required("lora_alpha")?,
            dropout: fields.optional("lora_dropout")?.unwrap_or(0.0),
            rslora: fields.optional("use_rslora")?.unwrap_or(false),
            targets: targets.resolved(),
            base_model: fields.optional("base_model_name_or_path")?,
        };
        let switched_on =
            |(key, value): &(&String, &Value)| !HARMLESS.contains(&key.as_str()) && !is_off(value);
        match fields.rest().iter().find(switched_on) {
            None => {}
            Some((key, value)) => {
                return Err(FieldError::unsupported(key, value, "null, false or empty"));
            }
        }
        config.check()?;
        Ok(config)
    }

    /// Checks the ranges of the numbers.
    pub fn check(&self) -> Result<(), FieldError> {
        if !(1..=LARGEST_RANK).contains(&self.rank) {
            return Err(FieldError::invalid("r", self.rank, &format!("between 1 and {LARGEST_RANK}")));
        }
        // A tiny number divided by a large rank is zero.
        if !(self.scale() > 0.0 && self.alpha.is_finite()) {
            return Err(FieldError::invalid("lora_alpha", self.alpha, "a positive number"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(FieldError::invalid("lora_dropout", self.dropout, "at least 0 and below 1"));
        }
        if self.targets == Targets::Names([].into()) {
            return Err(FieldError::invalid("target_modules", "[]", "at least one name"));
        }
        Ok(())
    }

    /// Returns the factor on B·A.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Returns the text of `adapter_config.json`, deterministically.
    pub fn to_json(&self) -> String {
        // PEFT declares an integer.
        let alpha = if self.alpha.fract() == 0.0 && self.alpha < 1e15 {
            Value::from(self.alpha as i64)
        } else {
            Value::from(self.alpha)
        };
        let targets = match &self.targets {
            Targets::Names(names) => json!(names),
            Targets::Pattern(pattern) => json!(pattern),
        };
        let file = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base_model,
            "revision": null,
            "inference_mode": true,
            "r": self.rank,
            "lora_alpha": alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "target_modules": targets,
            "bias": "none",
            "init_lora_weights": true,
            "use_dora": false,
            "fan_in_fan_out": false,
            "modules_to_save": null,
            "rank_pattern": {},
            "alpha_pattern": {},
            "layers_to_transform": null,
            "layers_pattern": null,
        });
        format!("{file:#}\n")
    }
}

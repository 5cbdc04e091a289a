//! `adapter_config.json`, as PEFT 0.21 writes it.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{CONFIG, Targets};
use crate::FieldError;
use crate::config::Error;

/// What an adapter is, apart from its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Inner dimension of the update B·A.
    pub rank: i64,
    /// Strength of the update; see [`Self::scale`].
    pub alpha: f64,
    /// Share of a module's inputs that training leaves out of the update.
    pub dropout: f64,
    /// Rank-stabilised scaling (Kalajdzievski 2023, arXiv:2312.03732).
    pub rslora: bool,
    /// The linear layers that it changes.
    pub targets: Targets,
    /// Name or folder of the model that it was trained on, which nothing depends on.
    pub base_model: Option<String>,
}

/// The keys that are read. Without a value they mean what PEFT means then.
#[derive(Deserialize)]
struct File {
    r: i64,
    lora_alpha: f64,
    lora_dropout: Option<f64>,
    use_rslora: Option<bool>,
    bias: Option<String>,
    target_modules: Targets,
    init_lora_weights: Option<Value>,
    task_type: Option<String>,
    base_model_name_or_path: Option<String>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Keys that change nothing about what the weights mean: notes, and settings of what is refused elsewhere. All others
/// that are not read have to be switched off.
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

/// Starting points that leave the base weights as they are. The others subtract something from them.
const HARMLESS_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// More is no longer an update of low rank.
const LARGEST_RANK: i64 = 1 << 16;

impl AdapterConfig {
    /// Reads `adapter_config.json` of an adapter's folder.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        Self::parse(&text, &path)
    }

    /// Reads the text of an `adapter_config.json`; `path` is what errors call it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let json = |source| Error::Json { path: path.to_owned(), source };
        let field = |source| Error::Field { path: path.to_owned(), source };
        // The kind first: another one may lack any of the keys.
        let value: Value = serde_json::from_str(text).map_err(json)?;
        let peft_type = value.get("peft_type").unwrap_or(&Value::Null);
        if peft_type != "LORA" {
            return Err(field(FieldError::unsupported("peft_type", peft_type, "LORA")));
        }
        let file: File = serde_json::from_value(value).map_err(json)?;
        file.refuse_unsupported().and_then(|()| file.into_config()).map_err(field)
    }

    /// Checks that the numbers are usable.
    pub fn check(&self) -> Result<(), FieldError> {
        if !(1..=LARGEST_RANK).contains(&self.rank) {
            return Err(FieldError::invalid("r", self.rank, &format!("between 1 and {LARGEST_RANK}")));
        }
        // A tiny number over a large rank is zero.
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

    /// The factor on B·A.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// The text of `adapter_config.json`, the same bytes each time.
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

impl File {
    fn refuse_unsupported(&self) -> Result<(), FieldError> {
        if let Some(task) = self.task_type.as_deref().filter(|task| *task != "CAUSAL_LM") {
            return Err(FieldError::unsupported("task_type", task, "CAUSAL_LM"));
        }
        if let Some(bias) = self.bias.as_deref().filter(|bias| *bias != "none") {
            return Err(FieldError::unsupported("bias", bias, "none"));
        }
        match &self.init_lora_weights {
            None | Some(Value::Null | Value::Bool(_)) => {}
            Some(Value::String(start)) if HARMLESS_STARTS.contains(&start.as_str()) => {}
            Some(start) => {
                let supported = "true, false, gaussian, eva, orthogonal";
                return Err(FieldError::unsupported("init_lora_weights", start, supported));
            }
        }
        let switched_on =
            |(key, value): &(&String, &Value)| !HARMLESS.contains(&key.as_str()) && !is_off(value);
        match self.other.iter().find(switched_on) {
            None => Ok(()),
            Some((key, value)) => Err(FieldError::unsupported(key, value, "null, false or empty")),
        }
    }

    fn into_config(self) -> Result<AdapterConfig, FieldError> {
        let config = AdapterConfig {
            rank: self.r,
            alpha: self.lora_alpha,
            dropout: self.lora_dropout.unwrap_or(0.0),
            rslora: self.use_rslora.unwrap_or(false),
            targets: self.target_modules.resolved(),
            base_model: self.base_model_name_or_path,
        };
        config.check()?;
        Ok(config)
    }
}

/// Whether a setting is absent in effect. Numbers are not: layer 0 is a layer.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

//! The linear layers that an adapter changes.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::AdapterConfig;
use crate::FieldError;
use crate::config::Config;
use crate::fields::Field;
use crate::parameters::{self, EMBEDDING, HEAD, Parameter};

/// The linear layers of a block, by the last part of their names.
pub const LINEAR: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// PEFT's keyword for all of them.
const ALL_LINEAR: &str = "all-linear";

/// Modules that PEFT may name and the model code does not adapt.
const FIXED: [&str; 2] = [EMBEDDING, HEAD];

/// Maximum size of a compiled pattern, in bytes: far more than any list of names needs.
const LONGEST_PATTERN: usize = 1 << 20;

/// PEFT's `target_modules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// A regular expression for whole names.
    Pattern(String),
    /// Whole names, or their last parts.
    Names(BTreeSet<String>),
}

impl Field for Targets {
    const EXPECTED: &'static str =
        "a list of names of modules, or one text: a regular expression or all-linear";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(pattern) => Some(Self::Pattern(pattern.clone())),
            value => Some(Self::Names(Vec::from_value(value)?.into_iter().collect())),
        }
    }
}

impl Targets {
    /// All linear layers except the head.
    pub fn all_linear() -> Self {
        Self::names(LINEAR)
    }

    /// Whole names of modules, or their last parts such as `q_proj`. `all-linear` stands for all of those.
    pub fn names(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut names: BTreeSet<String> = names.into_iter().map(Into::into).collect();
        if names.remove(ALL_LINEAR) {
            names.extend(LINEAR.map(str::to_owned));
        }
        Self::Names(names)
    }

    /// PEFT treats the keyword as all linear layers, not as a pattern.
    pub(super) fn resolved(self) -> Self {
        match self {
            Self::Pattern(word) if word.eq_ignore_ascii_case(ALL_LINEAR) => Self::all_linear(),
            other => other,
        }
    }
}

/// A linear layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name, such as `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Width of its input.
    pub inputs: i64,
    /// Width of its output.
    pub outputs: i64,
}

impl AdapterConfig {
    /// Returns the linear layers that the adapter changes in a model of this configuration, in model order.
    pub fn modules(&self, config: &Config) -> Result<Vec<Module>, FieldError> {
        let matcher = Matcher::new(&self.targets)?;
        for fixed in FIXED.iter().filter_map(|parameter| parameter.strip_suffix(".weight")) {
            if !matcher.matches(fixed).is_empty() {
                return Err(FieldError::unsupported("target_modules", fixed, "linear layers of the blocks"));
            }
        }
        let mut unmatched = matcher.targets();
        let mut modules = linear_layers(config);
        modules.retain(|module| {
            let matches = matcher.matches(&module.name);
            for target in &matches {
                unmatched.remove(target);
            }
            !matches.is_empty()
        });
        match unmatched.first() {
            None => Ok(modules),
            Some(target) => {
                let expected = format!("names of linear layers of the model: {}", LINEAR.join(", "));
                Err(FieldError::invalid("target_modules", target, &expected))
            }
        }
    }
}

/// Compiled [`Targets`].
enum Matcher<'a> {
    Pattern(&'a str, Regex),
    Names(&'a BTreeSet<String>),
}

impl<'a> Matcher<'a> {
    fn new(targets: &'a Targets) -> Result<Self, FieldError> {
        match targets {
            Targets::Names(names) => Ok(Self::Names(names)),
            Targets::Pattern(pattern) => {
                let compile = |pattern: &str| RegexBuilder::new(pattern).size_limit(LONGEST_PATTERN).build();
                // First on its own: `a)|(b` is an invalid pattern, but would be valid between parentheses.
                let compiled = compile(pattern).and_then(|_| compile(&format!(r"\A(?:{pattern})\z")));
                let compiled = compiled.map_err(|_| {
                    FieldError::unsupported(
                        "target_modules",
                        pattern,
                        "names, or a regular expression without look-around",
                    )
                })?;
                Ok(Self::Pattern(pattern, compiled))
            }
        }
    }

    fn targets(&self) -> BTreeSet<&'a str> {
        match self {
            Self::Pattern(pattern, _) => BTreeSet::from([*pattern]),
            Self::Names(names) => names.iter().map(String::as_str).collect(),
        }
    }

    /// Returns the targets that match this module.
    fn matches(&self, module: &str) -> Vec<&'a str> {
        match self {
            Self::Pattern(pattern, compiled) => {
                compiled.is_match(module).then_some(*pattern).into_iter().collect()
            }
            Self::Names(names) => {
                let parts = module.match_indices('.').map(|(dot, _)| &module[dot + 1..]);
                std::iter::once(module)
                    .chain(parts)
                    .filter_map(|name| names.get(name))
                    .map(String::as_str)
                    .collect()
            }
        }
    }
}

/// The linear layers of all blocks, in model order.
fn linear_layers(config: &Config) -> Vec<Module> {
    let layer = |parameter: Parameter| match (parameter.name.strip_suffix(".weight"), &parameter.shape[..]) {
        (Some(name), [outputs, inputs]) if !FIXED.contains(&parameter.name.as_str()) => {
            Some(Module { name: name.to_owned(), inputs: *inputs, outputs: *outputs })
        }
        _ => None,
    };
    parameters::list(config).into_iter().filter_map(layer).collect()
}

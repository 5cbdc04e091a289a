//! The linear layers of a model that an adapter changes.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use super::config::AdapterConfig;
use super::targets::{LINEAR, Targets};
use crate::FieldError;
use crate::config::Config;
use crate::parameters::{self, EMBEDDING, HEAD, Parameter};

/// Modules that PEFT may name but that the model code does not adapt.
const FIXED: [&str; 2] = [EMBEDDING, HEAD];

/// Maximum size of a compiled pattern, in bytes; far more than any list of names needs.
const LONGEST_PATTERN: usize = 1 << 20;

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
    /// Returns the linear layers that the adapter changes in a model of this shape, in model order.
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

/// [`Targets`], compiled for matching.
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
                // The pattern is first compiled alone: `a)|(b` is invalid, but would be valid
                // between parentheses.
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

/// Returns the linear layers of all blocks, in model order.
fn linear_layers(config: &Config) -> Vec<Module> {
    let layer = |parameter: Parameter| match (parameter.name.strip_suffix(".weight"), &parameter.shape[..]) {
        (Some(name), [outputs, inputs]) if !FIXED.contains(&parameter.name.as_str()) => {
            Some(Module { name: name.to_owned(), inputs: *inputs, outputs: *outputs })
        }
        _ => None,
    };
    parameters::list(config).into_iter().filter_map(layer).collect()
}

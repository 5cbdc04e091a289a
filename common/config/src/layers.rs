//! Merges the text of a run file, environment variables and flags into one validated [`RunFile`].

use std::ffi::OsString;
use std::str::FromStr;

use serde_json::Value;
use toml::Table;

use crate::error::Error;
use crate::run_file::RunFile;
use crate::schema::{properties, schema};
use crate::validate;

/// Variables with this prefix set keys: `PODIUM_RUN__SEED=3` is `run.seed = 3`.
const VARIABLE_PREFIX: &str = "PODIUM_";
const VARIABLE_SEPARATOR: &str = "__";

/// One `section.key=value` from a flag. The value is parsed as TOML; a value that is not valid TOML is taken as text.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    key: Vec<String>,
    value: toml::Value,
    origin: String,
}

impl Override {
    /// Creates an assignment from code rather than from a flag.
    ///
    /// # Panics
    /// If `key` is not `section.key`.
    pub fn new(key: &str, value: impl Into<toml::Value>) -> Self {
        let parts: Vec<String> = key.split('.').map(str::to_owned).collect();
        assert!(parts.len() >= 2, "{key} has no section");
        Self { key: parts, value: value.into(), origin: format!("--set {key}") }
    }
}

impl FromStr for Override {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let broken = || Error::Assignment { text: text.to_owned() };
        let (key, value) = text.split_once('=').ok_or_else(broken)?;
        let key: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
        if key.len() < 2 || key.iter().any(String::is_empty) {
            return Err(broken());
        }
        Ok(Self { key, value: read_value(value.trim()), origin: format!("--set {text}") })
    }
}

fn read_value(text: &str) -> toml::Value {
    let parsed = format!("value = {text}").parse::<Table>();
    match parsed.ok().and_then(|mut table| table.remove("value")) {
        Some(value) => value,
        None => toml::Value::String(text.to_owned()),
    }
}

/// Returns the environment variables that set keys. Only these have to be UTF-8.
pub(crate) fn variables() -> Result<Vec<(String, String)>, Error> {
    keys_in(std::env::vars_os())
}

fn keys_in(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, Error> {
    let key = |(name, value): (OsString, OsString)| {
        let name = name.to_string_lossy().into_owned();
        let sets_a_key = name.starts_with(VARIABLE_PREFIX) && name.contains(VARIABLE_SEPARATOR);
        sets_a_key.then(|| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(value) => Err(Error::Variable { name, value: value.to_string_lossy().into_owned() }),
        })
    };
    variables.filter_map(key).collect()
}

pub(crate) fn assemble(
    text: &str,
    name: &str,
    variables: impl IntoIterator<Item = (String, String)>,
    overrides: &[Override],
) -> Result<RunFile, Error> {
    let mut table: Table =
        text.parse().map_err(|source| Error::Syntax { origin: name.to_owned(), source: Box::new(source) })?;
    let schema = schema();
    check_keys(&table, &schema, &schema, name, "")?;

    let mut variables: Vec<Override> =
        variables.into_iter().filter_map(|(name, value)| from_variable(&name, &value)).collect();
    variables.sort_by(|a, b| a.origin.cmp(&b.origin));
    for change in variables.iter().chain(overrides) {
        let layer = nest(&change.key, change.value.clone());
        check_keys(&layer, &schema, &schema, &change.origin, "")?;
        // Each layer is parsed separately, so that an error names the layer and not the file.
        Table::try_into::<RunFile>(layer.clone())
            .map_err(|source| Error::Type { origin: change.origin.clone(), source: Box::new(source) })?;
        merge(&mut table, layer);
    }
    // Without overrides the text itself is deserialised, so that errors point at line and column.
    let read: Result<RunFile, _> = if variables.is_empty() && overrides.is_empty() {
        toml::from_str(text)
    } else {
        toml::from_str::<RunFile>(text).and_then(|_| table.try_into())
    };
    let file = read.map_err(|source| Error::Type { origin: name.to_owned(), source: Box::new(source) })?;
    validate::check(&file)?;
    Ok(file)
}

fn from_variable(name: &str, value: &str) -> Option<Override> {
    let key = name.strip_prefix(VARIABLE_PREFIX)?;
    if !key.contains(VARIABLE_SEPARATOR) {
        return None;
    }
    let key = key.to_lowercase().split(VARIABLE_SEPARATOR).map(str::to_owned).collect();
    Some(Override { key, value: read_value(value), origin: name.to_owned() })
}

fn nest(key: &[String], value: toml::Value) -> Table {
    let (last, sections) = key.split_last().expect("an override has a key");
    let mut table = Table::from_iter([(last.clone(), value)]);
    for section in sections.iter().rev() {
        table = Table::from_iter([(section.clone(), toml::Value::Table(table))]);
    }
    table
}

fn merge(base: &mut Table, layer: Table) {
    for (key, value) in layer {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(layer)) => merge(base, layer),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Rejects keys that are not in the schema and suggests the nearest known key.
fn check_keys(table: &Table, schema: &Value, root: &Value, origin: &str, prefix: &str) -> Result<(), Error> {
    let Some(known) = properties(schema, root) else { return Ok(()) };
    for (key, value) in table {
        let dotted = format!("{prefix}{key}");
        let Some(inner) = known.get(key) else {
            let nearest = nearest(key, known.keys()).map(|near| format!("{prefix}{near}"));
            return Err(Error::UnknownKey { origin: origin.to_owned(), key: dotted, nearest });
        };
        if let toml::Value::Table(table) = value {
            check_keys(table, inner, root, origin, &format!("{dotted}."))?;
        }
    }
    Ok(())
}

fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(key, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<RunFile, Error> {
        let flags: Vec<Override> = flags.iter().map(|flag| flag.parse().unwrap()).collect();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        assemble(text, "run.toml", variables, &flags)
    }

    #[test]
    fn later_layers_win() {
        let text = "[run]\nseed = 1\nsteps = 7";
        assert_eq!(read(text, &[], &[]).unwrap().run.seed, 1);
        assert_eq!(read(text, &[("PODIUM_RUN__SEED", "2")], &[]).unwrap().run.seed, 2);
        let file = read(text, &[("PODIUM_RUN__SEED", "2"), ("PODIUM_CUDA", "1")], &["run.seed=3"]).unwrap();
        assert_eq!((file.run.seed, file.run.steps), (3, 7));
        assert_eq!(read(text, &[], &["run.name=short"]).unwrap().run.name, "short");
    }

    #[test]
    fn only_variables_that_set_keys_must_be_utf8() {
        use std::os::unix::ffi::OsStringExt;
        let bytes = |text: &[u8]| OsString::from_vec(text.to_vec());
        let other = [(bytes(b"LOCALE"), bytes(b"\xff")), (bytes(b"\xff"), bytes(b"x"))];
        let seed = (bytes(b"PODIUM_RUN__SEED"), bytes(b"2"));
        let found = keys_in(other.into_iter().chain([seed])).unwrap();
        assert_eq!(found, [("PODIUM_RUN__SEED".to_owned(), "2".to_owned())]);
        let broken = (bytes(b"PODIUM_RUN__NAME"), bytes(b"caf\xe9"));
        let error = keys_in([broken].into_iter()).unwrap_err().to_string();
        assert!(error.contains("PODIUM_RUN__NAME") && error.contains("UTF-8"), "{error}");
    }

    #[test]
    fn errors_name_origin_and_remedy() {
        let message = |text: &str, flags: &[&str]| {
            let error = read(text, &[], flags).unwrap_err();
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", cause.unwrap_or_default())
        };
        assert!(message("[rollout]\ngruop_size = 4", &[]).contains("did you mean `rollout.group_size`"));
        assert!(message("[lerner]\n", &[]).contains("did you mean `learner`"));
        assert!(message("[run]\nseed = \"x\"", &[]).contains("seed"));
        assert!(
            message("", &["run.sed=1"])
                .contains("--set run.sed=1: there is no key `run.sed`; did you mean `run.seed`")
        );
        assert!(message("", &["grpo.beta=-1"]).contains("grpo.beta is -1"));
        assert!(message("", &["answer.list_length=11"]).contains("expected 1 to candidates.count (10)"));
        assert!(message("[run", &[]).contains("run.toml is not TOML"));
        assert!("seed=1".parse::<Override>().is_err());
    }

    #[test]
    fn a_misaligned_reward_is_rejected_or_reported() {
        let form = "[[reward.terms]]\nname = \"form\"";
        let refused = read(form, &[], &[]).unwrap_err().to_string();
        assert!(refused.contains("the target at rank 2 earns 1.0000, a well_formed answer"), "{refused}");
        let through = read(form, &[], &["reward.check=warn"]).unwrap();
        assert_eq!(through.rewards().unwrap().violations().len(), 1);
    }

    #[test]
    fn a_resolved_file_round_trips() {
        let file = read("[data]\ndir = \"x\"", &[], &["grpo.epsilon_high=0.28"]).unwrap();
        assert_eq!(read(&file.to_toml(), &[], &[]).unwrap(), file);
    }

    #[test]
    fn template_variables_accept_toml_values() {
        let text = "[model.template_variables]\nsome_date = 2026-11-28\nlist = [1, 2.5, true]";
        let flag = "model.template_variables.date_string=2026-01-02";
        let file = read(text, &[("PODIUM_MODEL__TEMPLATE_VARIABLES__WHO", "me")], &[flag]).unwrap();
        let variables = &file.model.template_variables;
        assert_eq!(
            (&variables["some_date"], &variables["date_string"]),
            (&json!("2026-11-28"), &json!("2026-01-02"))
        );
        assert_eq!((&variables["list"], &variables["who"]), (&json!([1, 2.5, true]), &json!("me")));
        assert_eq!(read(&file.to_toml(), &[], &[]).unwrap(), file);
        let refused = read("", &[], &["model.template_variables.x=nan"]).unwrap_err();
        let cause = std::error::Error::source(&refused).unwrap().to_string();
        assert!(cause.contains("x is NaN: expected a finite number"), "{cause}");
    }

    #[test]
    fn new_keys_change_the_hash_only_with_other_values_than_their_defaults() {
        let hash = |flags: &[&str]| read("", &[], flags).unwrap().hash();
        // The hash since evaluations while training use the validation part, which changed the results of every run.
        assert!(hash(&[]).starts_with("b6915c386d0c"), "{}", hash(&[]));
        let set = [
            "run.portable=true",
            "candidates.untouched_in_training=false",
            "world.new_items_per_pair=1",
            "learner.zero_stage=1",
        ];
        for key in set {
            assert_ne!(hash(&[]), hash(&[key]), "{key}");
        }
    }

    #[test]
    fn the_hash_covers_keys_that_change_results() {
        let hash = |flags: &[&str]| read("", &[], flags).unwrap().hash();
        assert_eq!(
            hash(&[]),
            hash(&[
                "launch.workers=9",
                "network.listen='0.0.0.0:1'",
                "model.path=elsewhere",
                "run.record_groups=true"
            ])
        );
        for change in ["run.seed=1", "rollout.threads=2", "grpo.beta=0.1", "evaluation.users=12"] {
            assert_ne!(hash(&[]), hash(&[change]), "{change}");
        }
    }
}

//! `model.template_variables`: values of TOML as chat templates know them.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize as _};
use serde_json::Value;

/// Reads variables by name.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Value>, D::Error> {
    let named = BTreeMap::<String, toml::Value>::deserialize(deserializer)?;
    let variable = |(name, value): (String, toml::Value)| match from_toml(&value) {
        Ok(value) => Ok((name, value)),
        Err(what) => Err(D::Error::custom(format_args!("{name} is {what}: expected a finite number"))),
    };
    named.into_iter().map(variable).collect()
}

/// Dates reach a template as text; nan and infinite numbers are refused.
fn from_toml(value: &toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Float(number) if !number.is_finite() => return Err(number.to_string()),
        toml::Value::Array(list) => list.iter().map(from_toml).collect::<Result<_, _>>()?,
        toml::Value::Table(table) => {
            let entry = |(key, value): (&String, &toml::Value)| Ok((key.clone(), from_toml(value)?));
            Value::Object(table.iter().map(entry).collect::<Result<_, String>>()?)
        }
        plain => plain.serialize(serde_json::value::Serializer).map_err(|error| error.to_string())?,
    })
}

//! Converts `model.template_variables` from TOML to the values of chat templates.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize as _};
use serde_json::Value;

/// Deserialises template variables by name.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Value>, D::Error> {
    let named = BTreeMap::<String, toml::Value>::deserialize(deserializer)?;
    let variable = |(name, value): (String, toml::Value)| match from_toml(&value) {
        Ok(value) => Ok((name, value)),
        Err(number) => Err(D::Error::custom(format_args!("{name} is {number}: expected a finite number"))),
    };
    named.into_iter().map(variable).collect()
}

/// Converts a value. Dates become text; the error is the text of a number that is not finite.
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

//! Paths to parts of items, the argument `attribute` of filters.

use crate::arguments::Bound;
use crate::fault::{Result, fault};
use crate::lookup::item;
use crate::value::Value;

/// Path to a part of an item, such as `address.city`.
#[derive(Default)]
pub(super) struct Path(Vec<Value>);

impl Path {
    pub(super) fn of_argument(attribute: Option<&Value>) -> Result<Self> {
        match attribute {
            None => Ok(Self(Vec::new())),
            Some(Value::Text(path)) => {
                let part = |part: &str| part.parse().map_or_else(|_| Value::text(part), Value::Integer);
                Ok(Self(path.split('.').map(part).collect()))
            }
            Some(index @ Value::Integer(_)) => Ok(Self(vec![index.clone()])),
            Some(other) => Err(fault(format!("an attribute is a {}, expected a string", other.kind()))),
        }
    }

    /// Parses comma-separated paths.
    pub(super) fn several(bound: &Bound) -> Result<Vec<Self>> {
        match bound.some("attribute") {
            Some(Value::Text(paths)) => {
                paths.split(',').map(|path| Self::of_argument(Some(&Value::text(path)))).collect()
            }
            other => Ok(vec![Self::of_argument(other)?]),
        }
    }

    /// Returns the part of a value, undefined if it is missing.
    pub(super) fn of(&self, value: &Value) -> Result<Value> {
        self.of_or(value, None)
    }

    /// As [`Self::of`], but `default` replaces every missing part.
    pub(super) fn of_or(&self, value: &Value, default: Option<&Value>) -> Result<Value> {
        self.0.iter().try_fold(value.clone(), |value, part| {
            let found = item(&value, part)?;
            Ok(default.filter(|_| found.is_undefined()).cloned().unwrap_or(found))
        })
    }
}

//! Reads a JSON object key by key, so that every error names the key, its value and the expected value.
//!
//! A read key is removed; the caller decides about the remaining ones.

use serde_json::{Map, Value};

use crate::FieldError;

/// Above this a float may represent several whole numbers.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

/// The unread keys.
pub(crate) struct Fields(Map<String, Value>);

/// A type of value that a key may have.
pub(crate) trait Field: Sized {
    /// The expected value, for errors.
    const EXPECTED: &'static str;

    /// Returns the value, if it has this type.
    fn from_value(value: &Value) -> Option<Self>;
}

impl Field for i64 {
    const EXPECTED: &'static str = "a whole number";

    /// A float without a fraction is accepted: other tools write `128.0`.
    fn from_value(value: &Value) -> Option<Self> {
        let whole =
            |float: f64| (float.fract() == 0.0 && float.abs() <= LARGEST_EXACT).then_some(float as Self);
        value.as_i64().or_else(|| value.as_f64().and_then(whole))
    }
}

impl Field for f64 {
    const EXPECTED: &'static str = "a number";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_f64()
    }
}

impl Field for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Field for String {
    const EXPECTED: &'static str = "a text";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Field for Vec<String> {
    const EXPECTED: &'static str = "a list of texts";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(String::from_value).collect()
    }
}

impl Field for Map<String, Value> {
    const EXPECTED: &'static str = "an object";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_object().cloned()
    }
}

impl Fields {
    pub(crate) const fn new(object: Map<String, Value>) -> Self {
        Self(object)
    }

    /// Returns a value without removing it.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Removes a value of any type.
    pub(crate) fn forget(&mut self, key: &str) {
        self.0.shift_remove(key);
    }

    /// Removes and returns an optional value; null counts as absent.
    pub(crate) fn optional<T: Field>(&mut self, key: &str) -> Result<Option<T>, FieldError> {
        // Not `remove`, which would move the last key to the position of this one: the rest is written back.
        match self.0.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match T::from_value(&value) {
                Some(read) => Ok(Some(read)),
                None => Err(FieldError::invalid(key, value, T::EXPECTED)),
            },
        }
    }

    /// Removes and returns a required value.
    pub(crate) fn required<T: Field>(&mut self, key: &str) -> Result<T, FieldError> {
        self.optional(key)?.ok_or_else(|| FieldError::invalid(key, "missing", T::EXPECTED))
    }

    /// Returns the unread keys.
    pub(crate) fn rest(self) -> Map<String, Value> {
        self.0
    }
}

/// Whether a setting is off. Numbers are not: layer 0 is a layer.
pub(crate) fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Whether a value equals this number.
pub(crate) fn is_number(value: &Value, number: f64) -> bool {
    value.as_f64().is_some_and(|found| (found - number).abs() < f64::EPSILON)
}

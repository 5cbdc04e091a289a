//! Tests by name, the operands of `is`.

use crate::fault::{Result, fault, unsupported};
use crate::filters;
use crate::operators::{binary, compare};
use crate::strings;
use crate::text::str_of;
use crate::tree::{Comparison, Operator};
use crate::value::{Given, Value};

const SIMPLE: [&str; 20] = [
    "boolean",
    "callable",
    "defined",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "integer",
    "iterable",
    "lower",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
];

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "eq" | "equalto" | "==" => Comparison::Equal,
        "ne" | "!=" => Comparison::NotEqual,
        "lt" | "lessthan" | "<" => Comparison::Less,
        "le" | "<=" => Comparison::LessOrEqual,
        "gt" | "greaterthan" | ">" => Comparison::Greater,
        "ge" | ">=" => Comparison::GreaterOrEqual,
        "in" => Comparison::In,
        _ => return None,
    })
}

pub(crate) fn is_known(name: &str) -> bool {
    SIMPLE.contains(&name) || comparison(name).is_some() || matches!(name, "divisibleby" | "sameas" | "upper")
}

/// `value is name(given)`
pub(crate) fn test(name: &str, value: &Value, given: Given) -> Result<bool> {
    if let Some(comparison) = comparison(name) {
        let bound = given.bind(name, &["other"], 1)?;
        return compare(value, comparison, bound.get("other").unwrap_or(&Value::None));
    }
    match name {
        "divisibleby" => {
            let bound = given.bind(name, &["num"], 1)?;
            return leaves(value, bound.get("num").unwrap_or(&Value::None), 0);
        }
        "sameas" => {
            let bound = given.bind(name, &["other"], 1)?;
            return same(value, bound.get("other").unwrap_or(&Value::None));
        }
        _ => given.none(name)?,
    }
    Ok(match name {
        "boolean" => matches!(value, Value::Bool(_)),
        "callable" => matches!(
            value,
            Value::Macro(_) | Value::Method(_) | Value::Function(_) | Value::Loop(_) | Value::Undefined(_)
        ),
        "defined" => !value.is_undefined(),
        "escaped" => matches!(value, Value::Safe(_)),
        "even" => leaves(value, &Value::Integer(2), 0)?,
        "odd" => leaves(value, &Value::Integer(2), 1)?,
        "false" => matches!(value, Value::Bool(false)),
        "true" => matches!(value, Value::Bool(true)),
        "filter" => named(value, filters::is_known)?,
        "test" => named(value, is_known)?,
        "float" => matches!(value, Value::Float(_)),
        "integer" => matches!(value, Value::Integer(_)),
        "iterable" => is_iterable(value),
        "lower" => cased(value, "islower")?,
        "upper" => cased(value, "isupper")?,
        "mapping" => matches!(value, Value::Dict(_)),
        "none" => matches!(value, Value::None),
        "number" => value.as_float().is_some(),
        "sequence" => matches!(
            value,
            Value::Text(_)
                | Value::Safe(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Dict(_)
                | Value::Range(..)
                | Value::Undefined(_)
        ),
        "string" => value.as_text().is_some(),
        "undefined" => value.is_undefined(),
        other => return Err(unsupported(format!("the test {other:?}"))),
    })
}

fn is_iterable(value: &Value) -> bool {
    matches!(
        value,
        Value::Undefined(_)
            | Value::Text(_)
            | Value::Safe(_)
            | Value::List(_)
            | Value::Tuple(_)
            | Value::Dict(_)
            | Value::View(..)
            | Value::Iterator(_)
            | Value::Range(..)
            | Value::Loop(_)
    )
}

/// Whether a division leaves the given remainder.
fn leaves(value: &Value, divisor: &Value, rest: i128) -> Result<bool> {
    if let Value::Text(_) = value {
        return Err(fault("a string is divided"));
    }
    let found = binary(value, Operator::Remainder, divisor)?;
    Ok(found.as_float() == Some(rest as f64))
}

/// Python's `is`, for values whose identity does not depend on memory addresses.
fn same(left: &Value, right: &Value) -> Result<bool> {
    match (left, right) {
        (Value::None, Value::None) => Ok(true),
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        _ if left.kind() != right.kind() => Ok(false),
        _ => Err(unsupported(format!("sameas of values of the kind {}", left.kind()))),
    }
}

/// Whether a name is known; names that Jinja knows and Podium does not are rejected.
fn named(value: &Value, is_known: fn(&str) -> bool) -> Result<bool> {
    let Value::Text(name) = value else { return Ok(false) };
    if is_known(name) {
        return Ok(true);
    }
    Err(unsupported(format!("asking for {name:?}")))
}

fn cased(value: &Value, method: &str) -> Result<bool> {
    strings::call(&str_of(value)?, method, Given::default()).map(|found| found.is_true())
}

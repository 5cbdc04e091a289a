//! Application of a filter, and the filters that forward their arguments to another filter or a test.

use std::sync::Arc;

use super::operand::soft;
use super::path::Path;
use super::signature::signature;
use super::values;
use crate::fault::{Result, fault, unsupported};
use crate::format::percent;
use crate::meter::Meter;
use crate::tests;
use crate::value::{Given, Value};

/// `value | name(given)`
pub(crate) fn apply(meter: &Meter, name: &str, value: &Value, given: Given) -> Result<Value> {
    match name {
        "format" if given.named.is_empty() => {
            return percent(&soft(value)?, &Value::tuple(given.positional)?);
        }
        "format" => return Err(unsupported("the filter format with names")),
        "map" => return map(meter, value, given),
        "select" | "selectattr" | "reject" | "rejectattr" => return select(name, value, given),
        _ => {}
    }
    let Some((parameters, required)) = signature(name) else {
        return Err(unsupported(format!("the filter {name:?}")));
    };
    let bound = given.bind(name, parameters, required)?;
    let filtered = values::apply(name, value, &bound)?;
    meter.spend_on(&filtered)?;
    Ok(filtered)
}

/// `value | map(...)`: extracts an attribute of each item, or applies a filter to it.
fn map(meter: &Meter, value: &Value, mut given: Given) -> Result<Value> {
    let items = if value.is_true() { value.items()? } else { Vec::new() };
    if given.positional.is_empty() {
        let bound = given.bind("map", &["attribute", "default"], 1)?;
        let (path, default) = (Path::of_argument(bound.some("attribute"))?, bound.some("default"));
        let mapped = items.iter().map(|item| path.of_or(item, default));
        return Value::iterator(mapped.collect::<Result<_>>()?);
    }
    let Value::Text(name) = given.positional.remove(0) else {
        return Err(fault("map: expected a filter's name"));
    };
    let mapped = items.iter().map(|item| apply(meter, &name, item, given.clone()));
    Value::iterator(mapped.collect::<Result<_>>()?)
}

/// `select`, `reject`, `selectattr` and `rejectattr`.
fn select(name: &str, value: &Value, mut given: Given) -> Result<Value> {
    let items = if value.is_true() { value.items()? } else { Vec::new() };
    let path = if name.ends_with("attr") {
        if given.positional.is_empty() {
            return Err(fault(format!("{name}: expected an attribute")));
        }
        Path::of_argument(Some(&given.positional.remove(0)))?
    } else {
        Path::default()
    };
    let test: Option<Arc<str>> = match given.positional.first() {
        None => None,
        Some(Value::Text(test)) => Some(Arc::from(&**test)),
        Some(other) => return Err(fault(format!("{name}: a {} is not a test", other.kind()))),
    };
    if test.is_some() {
        given.positional.remove(0);
    }
    let mut selected = Vec::new();
    for item in items {
        let part = path.of(&item)?;
        let holds = match &test {
            Some(test) => tests::test(test, &part, given.clone())?,
            None => part.is_true(),
        };
        if holds == name.starts_with("select") {
            selected.push(item);
        }
    }
    Value::iterator(selected)
}

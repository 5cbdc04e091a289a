//! Methods of values: of dictionaries, lists, tuples and loops here, of strings in [`crate::strings`].

use crate::fault::{Result, fault, unsupported};
use crate::strings;
use crate::value::{Given, Loop, Value, equal};

/// Result of a name lookup in Python.
pub(crate) enum Known {
    Method,
    /// A method that would change the value, which the sandbox forbids.
    Unsafe,
    /// A name that exists in Python and is not supported by Podium.
    Unsupported,
    Missing,
}

const CHANGES_LISTS: [&str; 8] = ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];
const CHANGES_DICTS: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];
const OF_NUMBERS: [&str; 13] = [
    "as_integer_ratio",
    "bit_count",
    "bit_length",
    "conjugate",
    "denominator",
    "from_bytes",
    "fromhex",
    "hex",
    "imag",
    "is_integer",
    "numerator",
    "real",
    "to_bytes",
];

/// Looks up a name of a value.
pub(crate) fn known(of: &Value, name: &str) -> Known {
    let (methods, forbidden, others): (&[&str], &[&str], &[&str]) = match of {
        Value::Text(_) => (&strings::METHODS, &[], &strings::UNSUPPORTED),
        Value::Safe(_) if strings::METHODS.contains(&name) => return Known::Unsupported,
        Value::Safe(_) => (&[], &[], &strings::UNSUPPORTED),
        Value::Dict(_) => (&["copy", "get", "items", "keys", "values"], &CHANGES_DICTS, &["fromkeys"]),
        Value::List(_) => (&["copy", "count", "index"], &CHANGES_LISTS, &[]),
        Value::Tuple(_) => (&["count", "index"], &[], &[]),
        Value::View(..) => (&[], &[], &["isdisjoint", "mapping"]),
        Value::Range(..) => (&[], &[], &["count", "index", "start", "step", "stop"]),
        Value::Iterator(_) => (&[], &[], &["close", "send", "throw"]),
        Value::Bool(_) | Value::Integer(_) | Value::Float(_) => (&[], &[], &OF_NUMBERS),
        Value::Macro(_) => {
            (&[], &[], &["arguments", "caller", "catch_kwargs", "catch_varargs", "explicit_caller", "name"])
        }
        Value::Function(_) => (&[], &[], &["fromkeys"]),
        _ => (&[], &[], &[]),
    };
    if methods.contains(&name) {
        Known::Method
    } else if forbidden.contains(&name) {
        Known::Unsafe
    } else if others.contains(&name) {
        Known::Unsupported
    } else {
        Known::Missing
    }
}

/// `of.name(given)`
pub(crate) fn call(of: &Value, name: &str, given: Given) -> Result<Value> {
    match of {
        Value::Text(text) => strings::call(text, name, given),
        Value::Dict(dict) => match name {
            "get" => {
                if !given.named.is_empty() {
                    return Err(fault("get takes no arguments by name"));
                }
                let bound = given.bind(name, &["key", "default"], 1)?;
                let key = bound.get("key").unwrap_or(&Value::None);
                if let Value::List(_) | Value::Dict(_) = key {
                    return Err(fault(format!("a {} is not a dictionary key", key.kind())));
                }
                Ok(dict.get(key).or(bound.get("default")).cloned().unwrap_or(Value::None))
            }
            "items" => {
                given.none(name)?;
                let pairs = dict.entries().iter();
                let pairs = pairs.map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
                Value::view("dict_items", pairs.collect::<Result<_>>()?)
            }
            "keys" => {
                given.none(name)?;
                Value::view("dict_keys", dict.entries().iter().map(|(key, _)| key.clone()).collect())
            }
            "values" => {
                given.none(name)?;
                Value::view("dict_values", dict.entries().iter().map(|(_, value)| value.clone()).collect())
            }
            _ => given.none(name).map(|()| of.clone()),
        },
        Value::List(sequence) | Value::Tuple(sequence) => match name {
            "copy" => given.none(name).map(|()| of.clone()),
            "count" => {
                let bound = given.bind(name, &["value"], 1)?;
                let same = |item: &&Value| bound.get("value").is_some_and(|value| equal(item, value));
                Ok(Value::Integer(sequence.items.iter().filter(same).count() as i128))
            }
            _ => {
                let bound = given.bind(name, &["value"], 1)?;
                let same = |item: &Value| bound.get("value").is_some_and(|value| equal(item, value));
                let at = sequence.items.iter().position(same);
                at.map(|at| Value::Integer(at as i128))
                    .ok_or_else(|| fault("index: the sequence does not contain the value"))
            }
        },
        Value::Loop(current) => of_loop(current, name, given),
        other => Err(unsupported(format!("the method {name:?} of a {}", other.kind()))),
    }
}

fn of_loop(current: &Loop, name: &str, given: Given) -> Result<Value> {
    if !given.named.is_empty() {
        return Err(fault(format!("{name} takes no arguments by name")));
    }
    let values = given.positional;
    if name == "cycle" {
        let at = current.index.get().checked_rem(values.len());
        return at.map(|at| values[at].clone()).ok_or_else(|| fault("cycle has no items"));
    }
    for value in &values {
        value.assert_storable()?;
    }
    let mut last = current.last.borrow_mut();
    let same = last.as_ref().is_some_and(|last| {
        last.len() == values.len() && last.iter().zip(&values).all(|(left, right)| equal(left, right))
    });
    if !same {
        *last = Some(values);
    }
    Ok(Value::Bool(!same))
}

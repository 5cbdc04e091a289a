//! Attributes, items and slices, by the rules of Jinja's sandbox: dot notation looks up an attribute first, then an
//! item; brackets look up an item first, then an attribute.

use std::rc::Rc;
use std::sync::Arc;

use crate::fault::{Result, fault, unsupported};
use crate::methods::{Known, known};
use crate::value::{Loop, Value};

/// `of.name`
pub(crate) fn attribute(of: &Value, name: &str) -> Result<Value> {
    if let Value::Undefined(why) = of {
        return Err(fault(why.to_string()));
    }
    if let Some(value) = own_attribute(of, name)? {
        return Ok(value);
    }
    if let Value::Dict(dict) = of
        && let Some(value) = dict.get(&Value::text(name))
    {
        return Ok(value.clone());
    }
    Ok(missing(of, &format!("attribute {name:?}")))
}

/// `of[key]`
pub(crate) fn item(of: &Value, key: &Value) -> Result<Value> {
    let found = match of {
        Value::Undefined(why) => return Err(fault(why.to_string())),
        Value::Dict(dict) => dict.get(key).cloned(),
        Value::Text(text) | Value::Safe(text) => key.as_integer().and_then(|index| {
            let index = position(index, text.chars().count())?;
            text.chars().nth(index).map(|character| Value::text(character.encode_utf8(&mut [0; 4])))
        }),
        Value::List(sequence) | Value::Tuple(sequence) => key.as_integer().and_then(|index| {
            position(index, sequence.items.len()).map(|index| sequence.items[index].clone())
        }),
        Value::Range(start, _, step) => key.as_integer().and_then(|index| {
            let index = position(index, of.length().unwrap_or(0))?;
            Some(Value::Integer(start + step * index as i128))
        }),
        _ => None,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    if let Value::Text(name) = key
        && let Some(value) = own_attribute(of, name)?
    {
        return Ok(value);
    }
    Ok(missing(of, "such item"))
}

/// Resolves a Python index: negative ones count from the end.
fn position(index: i128, length: usize) -> Option<usize> {
    let index = if index < 0 { index + length as i128 } else { index };
    usize::try_from(index).ok().filter(|index| *index < length)
}

fn missing(of: &Value, what: &str) -> Value {
    Value::undefined(&format!("a {} has no {what}", of.kind()))
}

/// Returns the result of Python's `getattr`.
fn own_attribute(of: &Value, name: &str) -> Result<Option<Value>> {
    match of {
        Value::Namespace(namespace) => {
            let namespace = namespace.borrow();
            return Ok(namespace.iter().find(|(found, _)| **found == *name).map(|(_, value)| value.clone()));
        }
        Value::Loop(current) => return loop_attribute(of, current, name),
        _ => {}
    }
    if name.starts_with("__") {
        return Err(unsupported(format!("the attribute {name:?}")));
    }
    match known(of, name) {
        Known::Method => Ok(Some(Value::Method(Rc::new((of.clone(), Arc::from(name)))))),
        Known::Unsafe => Ok(Some(Value::undefined(&format!(
            "the sandbox forbids the attribute {name:?} of a {}, which would change it",
            of.kind()
        )))),
        Known::Unsupported => Err(unsupported(format!("the attribute {name:?} of a {}", of.kind()))),
        Known::Missing => Ok(None),
    }
}

fn loop_attribute(of: &Value, current: &Loop, name: &str) -> Result<Option<Value>> {
    let (at, length) = (current.index.get(), current.items.len());
    let number = |number: usize| Value::Integer(number as i128);
    let neighbour = |index: Option<usize>, why: &str| {
        index.and_then(|index| current.items.get(index)).cloned().unwrap_or_else(|| Value::undefined(why))
    };
    Ok(Some(match name {
        "index" => number(at + 1),
        "index0" => number(at),
        "revindex" => number(length - at),
        "revindex0" => number(length - at - 1),
        "first" => Value::Bool(at == 0),
        "last" => Value::Bool(at + 1 == length),
        "length" => number(length),
        "depth" => number(1),
        "depth0" => number(0),
        "previtem" => neighbour(at.checked_sub(1), "there is no previous item"),
        "nextitem" => neighbour(Some(at + 1), "there is no next item"),
        "cycle" | "changed" => Value::Method(Rc::new((of.clone(), Arc::from(name)))),
        _ => return Ok(None),
    }))
}

/// `of[start:end:step]`
pub(crate) fn slice(of: &Value, bounds: &[Value; 3]) -> Result<Value> {
    let length = match of {
        Value::Undefined(why) => return Err(fault(why.to_string())),
        Value::Text(_) | Value::Safe(_) | Value::List(_) | Value::Tuple(_) => of.length().unwrap_or(0),
        Value::Range(..) => return Err(unsupported("a slice of a range")),
        // An error in Python, except for literals.
        _ => return Err(unsupported(format!("a slice of a {}", of.kind()))),
    };
    let mut numbers = [None; 3];
    for (number, bound) in numbers.iter_mut().zip(bounds) {
        *number = match bound {
            Value::None => None,
            bound => match bound.as_integer() {
                Some(index) => Some(index),
                None => return Err(unsupported(format!("a {} as the bound of a slice", bound.kind()))),
            },
        };
    }
    let places = positions(numbers, length)?;
    match of {
        Value::List(sequence) => Value::list(places.map(|at| sequence.items[at].clone()).collect()),
        Value::Tuple(sequence) => Value::tuple(places.map(|at| sequence.items[at].clone()).collect()),
        _ => {
            let text: Vec<char> = of.as_text().map_or_else(Vec::new, |text| text.chars().collect());
            let part: String = places.map(|at| text[at]).collect();
            Ok(if let Value::Safe(_) = of { Value::Safe(part.into()) } else { Value::text(&part) })
        }
    }
}

/// Returns the positions of a slice, in order.
fn positions([start, end, step]: [Option<i128>; 3], length: usize) -> Result<impl Iterator<Item = usize>> {
    let (length, step) = (length as i128, step.unwrap_or(1));
    if step == 0 {
        return Err(fault("the step of a slice is 0"));
    }
    // Limits of a slice: positions before the first item only with a negative step.
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: i128| (if bound < 0 { bound + length } else { bound }).clamp(low, high);
    let start = start.map_or(if step > 0 { low } else { high }, clamp);
    let end = end.map_or(if step > 0 { high } else { low }, clamp);
    let count = crate::value::range_length(start, end, step) as i128;
    Ok((0..count).map(move |at| (start + at * step) as usize))
}

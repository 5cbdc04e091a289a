//! Filters of sequences and dictionaries.

use std::cmp::Ordering;

use super::operand::{refused, soft};
use super::path::Path;
use crate::arguments::Bound;
use crate::fault::{Result, fault, unsupported};
use crate::methods;
use crate::operators::binary;
use crate::text::{assert_length, str_of};
use crate::tree::Operator;
use crate::value::{Given, Value, equal, order};

pub(super) fn apply(name: &str, value: &Value, bound: &Bound) -> Result<Value> {
    match name {
        "dictsort" => dict_sort(value, bound),
        "first" => {
            if let Value::Iterator(items) = value {
                let first = items.borrow_mut().pop_front();
                return Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")));
            }
            let first = value.items()?.into_iter().next();
            Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
        }
        "items" => match value {
            Value::Undefined(_) => Value::iterator(Vec::new()),
            Value::Dict(_) => Value::iterator(methods::call(value, "items", Given::default())?.items()?),
            other => Err(refused(name, other)),
        },
        "join" => join(value, bound),
        "last" => {
            let last = reversible(name, value)?.pop();
            Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
        }
        "list" => Value::list(value.items()?),
        "max" | "min" => extreme(value, name == "max", bound),
        "reverse" => match value {
            Value::Text(text) => Ok(Value::text(&text.chars().rev().collect::<String>())),
            Value::Iterator(_) => {
                let mut items = value.items()?;
                items.reverse();
                Value::list(items)
            }
            other => {
                let mut items = reversible(name, other)?;
                items.reverse();
                Value::iterator(items)
            }
        },
        "sort" => {
            let mut items = Vec::new();
            let attributes = Path::several(bound)?;
            for item in value.items()? {
                let keys = attributes.iter().map(|path| path.of(&item).map(|key| cased(key, bound)));
                items.push((Value::list(keys.collect::<Result<_>>()?)?, item));
            }
            sort(&mut items, bound.is_set("reverse"))?;
            Value::list(items.into_iter().map(|(_, item)| item).collect())
        }
        "sum" => {
            let path = Path::of_argument(bound.some("attribute"))?;
            let mut sum = bound.get("start").cloned().unwrap_or(Value::Integer(0));
            for item in value.items()? {
                let item = path.of(&item)?;
                if let (Value::Text(_), _) | (_, Value::Text(_)) = (&sum, &item) {
                    return Err(fault("sum cannot add strings"));
                }
                sum = binary(&sum, Operator::Add, &item)?;
            }
            Ok(sum)
        }
        "unique" => {
            let path = Path::of_argument(bound.some("attribute"))?;
            let (mut seen, mut items): (Vec<Value>, _) = (Vec::new(), Vec::new());
            for item in value.items()? {
                let key = cased(path.of(&item)?, bound);
                if let Value::List(_) | Value::Dict(_) = key {
                    return Err(refused(name, &key));
                }
                if !seen.iter().any(|found| equal(found, &key)) {
                    seen.push(key);
                    items.push(item);
                }
            }
            Value::iterator(items)
        }
        other => Err(unsupported(format!("the filter {other:?}"))),
    }
}

/// The items of a value that Python's `reversed` supports.
fn reversible(name: &str, value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::Text(_)
        | Value::List(_)
        | Value::Tuple(_)
        | Value::Dict(_)
        | Value::View(..)
        | Value::Range(..) => value.items(),
        // Jinja's undefined value has a length but no items.
        Value::Undefined(_) => Ok(Vec::new()),
        Value::Safe(_) => Err(unsupported("a filter of text marked safe")),
        other => Err(refused(name, other)),
    }
}

fn join(value: &Value, bound: &Bound) -> Result<Value> {
    let separator = bound.get("d").map_or_else(|| Ok(String::new()), soft)?;
    let path = Path::of_argument(bound.some("attribute"))?;
    let mut text = String::new();
    for (at, item) in value.items()?.iter().enumerate() {
        text.push_str(if at == 0 { "" } else { &separator });
        text.push_str(&str_of(&path.of(item)?)?);
        assert_length(text.len())?;
    }
    Ok(Value::text(&text))
}

fn extreme(value: &Value, largest: bool, bound: &Bound) -> Result<Value> {
    let path = Path::of_argument(bound.some("attribute"))?;
    let mut best: Option<(Value, Value)> = None;
    for item in value.items()? {
        let key = cased(path.of(&item)?, bound);
        let better = match &best {
            None => true,
            Some((found, _)) => {
                let wanted = if largest { Ordering::Greater } else { Ordering::Less };
                order(&key, found)? == Some(wanted)
            }
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(|| Value::undefined("No aggregated item, sequence was empty."), |(_, item)| item))
}

fn dict_sort(value: &Value, bound: &Bound) -> Result<Value> {
    let Value::Dict(dict) = value else { return Err(refused("dictsort", value)) };
    let by = bound.text("by")?.map_or("key", |by| &**by);
    if !matches!(by, "key" | "value") {
        return Err(fault(format!("dictsort: by is {by:?}, expected key or value")));
    }
    let mut entries = Vec::new();
    for (key, value) in dict.entries() {
        let sorted_by = if by == "key" { key } else { value };
        entries.push((cased(sorted_by.clone(), bound), Value::tuple(vec![key.clone(), value.clone()])?));
    }
    sort(&mut entries, bound.is_set("reverse"))?;
    Value::list(entries.into_iter().map(|(_, entry)| entry).collect())
}

/// Folds the case of strings unless `case_sensitive` is set.
fn cased(key: Value, bound: &Bound) -> Value {
    match key {
        Value::Text(text) if !bound.is_set("case_sensitive") => Value::text(&text.to_lowercase()),
        key => key,
    }
}

/// Sorts stably by the first of each pair.
fn sort(items: &mut [(Value, Value)], reverse: bool) -> Result<()> {
    let mut failure = None;
    items.sort_by(|(left, _), (right, _)| {
        let ordering = order(left, right).and_then(|found| found.ok_or_else(|| unsupported("sorting NaN")));
        let ordering = ordering.unwrap_or_else(|fault| {
            failure.get_or_insert(fault);
            Ordering::Equal
        });
        if reverse { ordering.reverse() } else { ordering }
    });
    failure.map_or(Ok(()), Err)
}

//! Global functions of Transformers' templates.

use std::cell::RefCell;
use std::rc::Rc;

use crate::fault::{Result, fault, unsupported};
use crate::value::{Given, Namespace, Value, assert_items};

/// Maximum length of a range in Jinja's sandbox.
const LONGEST_RANGE: usize = 100_000;

/// Returns the global function of a name, or undefined.
pub(crate) fn named(name: &str) -> Result<Value> {
    Ok(match name {
        "range" => Value::Function("range"),
        "dict" => Value::Function("dict"),
        "namespace" => Value::Function("namespace"),
        "raise_exception" => Value::Function("raise_exception"),
        "lipsum" | "cycler" | "joiner" => return Err(unsupported(format!("the function {name:?}"))),
        // Undefined although Transformers has it: a prompt must not depend on the date.
        "strftime_now" => Value::undefined(
            "strftime_now is not defined: a prompt must not depend on the date; expected a template that has a date of \
             its own where strftime_now is undefined, or takes one from a variable",
        ),
        _ => Value::undefined(&format!("{name:?} is undefined")),
    })
}

pub(crate) fn call(name: &str, given: Given) -> Result<Value> {
    match name {
        "raise_exception" => {
            let bound = given.bind(name, &["message"], 1)?;
            let message = bound.get("message").map_or(Ok(String::new()), crate::text::str_of)?;
            Err(fault(format!("the template refuses the messages: {message}")))
        }
        "range" => {
            let numbers: Option<Vec<i128>> = given.positional.iter().map(Value::as_integer).collect();
            let (start, end, step) = match numbers.as_deref().filter(|_| given.named.is_empty()) {
                Some([end]) => (0, *end, 1),
                Some([start, end]) => (*start, *end, 1),
                Some([start, end, step]) if *step != 0 => (*start, *end, *step),
                _ => return Err(fault("range: expected one to three whole numbers, the third not 0")),
            };
            let fits = [start, end, step].iter().all(|number| number.unsigned_abs() < 1 << 62);
            if !fits || crate::value::range_length(start, end, step) > LONGEST_RANGE {
                return Err(fault(format!("range: expected at most {LONGEST_RANGE} numbers")));
            }
            Ok(Value::Range(start, end, step))
        }
        "dict" => Value::dict(entries(given)?),
        _ => {
            let namespace = Rc::new(RefCell::new(Vec::new()));
            for (key, value) in entries(given)? {
                let Value::Text(key) = key else { return Err(fault("namespace: expected names for keys")) };
                set_attribute(&namespace, &key, value)?;
            }
            Ok(Value::Namespace(namespace))
        }
    }
}

/// Evaluates the arguments of Python's `dict`.
fn entries(mut given: Given) -> Result<Vec<(Value, Value)>> {
    let mut entries = Vec::new();
    if let Some(first) = given.positional.pop() {
        if !given.positional.is_empty() {
            return Err(fault("dict: expected at most one positional argument"));
        }
        if let Value::Dict(dict) = &first {
            entries.extend_from_slice(dict.entries());
        } else {
            for item in first.items()? {
                let pair: [Value; 2] =
                    item.items()?.try_into().map_err(|_| fault("dict: expected pairs of keys and values"))?;
                entries.push(pair.into());
            }
        }
    }
    entries.extend(given.named.into_iter().map(|(name, value)| (Value::text(&name), value)));
    assert_items(Some(entries.len()))?;
    Ok(entries)
}

/// Sets an attribute of a namespace.
pub(crate) fn set_attribute(namespace: &Namespace, name: &str, value: Value) -> Result<()> {
    if name.starts_with('_') {
        return Err(fault(format!("the attribute {name:?} of a namespace begins with an underscore")));
    }
    value.assert_storable()?;
    let mut namespace = namespace.borrow_mut();
    match namespace.iter_mut().find(|(found, _)| **found == *name) {
        Some(entry) => entry.1 = value,
        None => namespace.push((name.into(), value)),
    }
    Ok(())
}

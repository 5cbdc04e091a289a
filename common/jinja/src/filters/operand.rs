//! The value that a filter is applied to.

use crate::fault::{Fault, Result, fault, unsupported};
use crate::text::str_of;
use crate::value::Value;

/// The error for a value that a filter does not accept.
pub(super) fn refused(name: &str, value: &Value) -> Fault {
    match value {
        Value::Undefined(why) => fault(why.to_string()),
        value => fault(format!("the filter {name:?} cannot take a {}", value.kind())),
    }
}

/// Returns the text of a value. Fails for text marked safe, which would require escaping.
pub(super) fn soft(value: &Value) -> Result<String> {
    match value {
        Value::Safe(_) => Err(unsupported("a filter of text marked safe")),
        value => str_of(value),
    }
}

//! Filters of single values.

use std::rc::Rc;

use super::operand::{refused, soft};
use super::sequences;
use crate::arguments::Bound;
use crate::fault::{Result, fault, unsupported};
use crate::json::to_json;
use crate::lookup::attribute;
use crate::strings::{assert_ascii, capitalize, replaced, split_lines, stripped};
use crate::text::{assert_length, str_of};
use crate::value::{Value, assert_items};

pub(super) fn apply(name: &str, value: &Value, bound: &Bound) -> Result<Value> {
    match name {
        "abs" => match (value, value.as_integer()) {
            (Value::Float(number), _) => Ok(Value::Float(number.abs())),
            (_, Some(number)) => Ok(Value::Integer(number.abs())),
            _ => Err(refused(name, value)),
        },
        "attr" => attribute_only(value, bound),
        "capitalize" => capitalize(&soft(value)?).map(|text| Value::text(&text)),
        "count" | "length" => {
            let length = value.length().ok_or_else(|| refused(name, value))?;
            Ok(Value::Integer(length as i128))
        }
        "d" | "default" => {
            if value.is_undefined() || (bound.is_set("boolean") && !value.is_true()) {
                return Ok(bound.get("default_value").cloned().unwrap_or_else(|| Value::text("")));
            }
            Ok(value.clone())
        }
        "e" | "escape" => escape(value),
        "float" => to_float(value, bound),
        "indent" => match value {
            Value::Text(text) => indent(text, bound),
            Value::Safe(_) => Err(unsupported("a filter of text marked safe")),
            other => Err(refused(name, other)),
        },
        "int" => to_int(value, bound),
        "lower" => Ok(Value::text(&soft(value)?.to_lowercase())),
        "replace" => {
            let argument = |name| bound.get(name).map_or_else(|| Ok(String::new()), soft);
            let count = bound.integer("count")?.unwrap_or(-1);
            replaced(&soft(value)?, &argument("old")?, &argument("new")?, count)
                .map(|text| Value::text(&text))
        }
        "round" => round(value, bound),
        "safe" => Ok(Value::Safe(str_of(value)?.into())),
        "string" => match value {
            Value::Text(_) | Value::Safe(_) => Ok(value.clone()),
            other => Ok(Value::text(&str_of(other)?)),
        },
        "title" => title(&soft(value)?),
        "tojson" => to_json(value, bound),
        "trim" => {
            let characters: Option<Vec<char>> = bound.text("chars")?.map(|text| text.chars().collect());
            Ok(Value::text(stripped(&soft(value)?, characters.as_deref(), true, true)))
        }
        "upper" => Ok(Value::text(&soft(value)?.to_uppercase())),
        _ => sequences::apply(name, value, bound),
    }
}

fn attribute_only(value: &Value, bound: &Bound) -> Result<Value> {
    let name = bound.text("name")?.ok_or_else(|| fault("attr: expected a name"))?;
    match value {
        // Items are not attributes.
        Value::Dict(_) => match attribute(value, name)? {
            method @ Value::Method(_) => Ok(method),
            _ => Ok(Value::undefined("a dict has no such attribute")),
        },
        value => attribute(value, name),
    }
}

fn escape(value: &Value) -> Result<Value> {
    if let Value::Safe(_) = value {
        return Ok(value.clone());
    }
    let mut escaped = String::new();
    for character in str_of(value)?.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&#39;"),
            '"' => escaped.push_str("&#34;"),
            other => escaped.push(other),
        }
    }
    assert_length(escaped.len())?;
    Ok(Value::Safe(escaped.into()))
}

/// Capitalises the words of a text; words end at white space, hyphens and brackets.
fn title(text: &str) -> Result<Value> {
    assert_ascii(text, "title")?;
    let mut begins = true;
    let mut cased = |character: char| {
        let cased = if begins { character.to_ascii_uppercase() } else { character.to_ascii_lowercase() };
        begins = crate::text::is_space(character) || matches!(character, '-' | '(' | '{' | '[' | '<');
        cased
    };
    Ok(Value::text(&text.chars().map(&mut cased).collect::<String>()))
}

fn indent(text: &str, bound: &Bound) -> Result<Value> {
    let indention: Rc<str> = match bound.get("width") {
        None => "    ".into(),
        Some(Value::Text(indention)) => indention.clone(),
        Some(width) => {
            let width = width.as_integer().ok_or_else(|| refused("indent", width))?;
            " ".repeat(assert_items(Some(usize::try_from(width.max(0)).unwrap_or(usize::MAX)))?).into()
        }
    };
    // Jinja appends a newline first, so that an empty last line counts.
    let text = format!("{text}\n");
    let (mut indented, blank) = (String::new(), bound.is_set("blank"));
    for (at, line) in split_lines(&text, false).into_iter().enumerate() {
        let prefix = if at == 0 { bound.is_set("first") } else { blank || !line.is_empty() };
        indented.push_str(if at == 0 { "" } else { "\n" });
        indented.push_str(if prefix { &indention } else { "" });
        indented.push_str(line);
        assert_length(indented.len())?;
    }
    Ok(Value::text(&indented))
}

/// Python's `int` of a string with decimal digits.
fn parse_int(text: &str) -> Option<i128> {
    let text = stripped(text, None, true, true);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let grouped =
        digits.split('_').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    text.replace('_', "").parse().ok().filter(|_| grouped)
}

fn parse_float(text: &str) -> Result<Option<f64>> {
    let text = stripped(text, None, true, true);
    if text.contains('_') || !text.is_ascii() {
        return Err(unsupported(format!("the number {text:?}")));
    }
    Ok(text.parse().ok())
}

fn to_int(value: &Value, bound: &Bound) -> Result<Value> {
    if bound.integer("base")?.is_some_and(|base| base != 10) {
        return Err(unsupported("the filter int with another base than 10"));
    }
    let default = || Ok(bound.get("default").cloned().unwrap_or(Value::Integer(0)));
    let whole = |number: f64| {
        if number.is_nan() || number.is_infinite() {
            return default();
        }
        if number.abs() >= 1e38 {
            return Err(unsupported("a whole number of more than 128 bits"));
        }
        Ok(Value::Integer(number as i128))
    };
    match value {
        Value::Undefined(why) => Err(fault(why.to_string())),
        Value::Text(text) | Value::Safe(text) => match parse_int(text) {
            Some(number) => Ok(Value::Integer(number)),
            None => parse_float(text)?.map_or_else(default, whole),
        },
        Value::Float(number) if number.is_infinite() => Err(fault("infinity is not an integer")),
        Value::Float(number) => whole(*number),
        other => other.as_integer().map_or_else(default, |number| Ok(Value::Integer(number))),
    }
}

fn to_float(value: &Value, bound: &Bound) -> Result<Value> {
    let default = || bound.get("default").cloned().unwrap_or(Value::Float(0.0));
    match value {
        Value::Undefined(why) => Err(fault(why.to_string())),
        Value::Text(text) | Value::Safe(text) => Ok(parse_float(text)?.map_or_else(default, Value::Float)),
        other => Ok(other.as_float().map_or_else(default, Value::Float)),
    }
}

fn round(value: &Value, bound: &Bound) -> Result<Value> {
    let precision = bound.integer("precision")?.unwrap_or(0);
    let digits = usize::try_from(precision).ok().filter(|digits| *digits <= 300);
    let digits = digits.ok_or_else(|| unsupported(format!("rounding to {precision} digits")))?;
    let method = bound.text("method")?.map_or("common", |method| &**method);
    let number = value.as_float().ok_or_else(|| refused("round", value))?;
    let scale = 10_f64.powi(digits as i32);
    match method {
        "common" => match value.as_integer() {
            Some(number) => Ok(Value::Integer(number)),
            None if number.is_finite() => {
                let rounded = format!("{number:.digits$}");
                Ok(Value::Float(rounded.parse().map_err(|_| fault(format!("{rounded:?} is not a number")))?))
            }
            None => Ok(Value::Float(number)),
        },
        "ceil" => Ok(Value::Float((number * scale).ceil() / scale)),
        "floor" => Ok(Value::Float((number * scale).floor() / scale)),
        other => Err(fault(format!("round: the method is {other:?}, expected common, ceil or floor"))),
    }
}

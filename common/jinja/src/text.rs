//! Python's `str` and `repr` of values, and its definition of white space.

use std::fmt::Write as _;

use crate::fault::{Result, fault, unsupported};
use crate::value::Value;

/// Maximum length of a text in bytes. Longer output indicates a template that does not terminate.
pub(crate) const LONGEST: usize = 1 << 26;

/// Python's `str.isspace` of a character.
pub(crate) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&character)
}

/// Python's `str`.
pub(crate) fn str_of(value: &Value) -> Result<String> {
    let mut text = String::new();
    write_str(&mut text, value)?;
    Ok(text)
}

/// Appends Python's `str` of a value.
pub(crate) fn write_str(text: &mut String, value: &Value) -> Result<()> {
    match value {
        Value::Undefined(_) => {}
        Value::Text(part) | Value::Safe(part) => text.push_str(part),
        other => write_repr(text, other)?,
    }
    assert_length(text.len())
}

pub(crate) fn assert_length(bytes: usize) -> Result<()> {
    if bytes <= LONGEST {
        return Ok(());
    }
    Err(fault(format!("a text has {bytes} bytes, expected at most {LONGEST}")))
}

/// Appends Python's `repr` of a value.
pub(crate) fn write_repr(text: &mut String, value: &Value) -> Result<()> {
    match value {
        Value::Undefined(_) => text.push_str("Undefined"),
        Value::None => text.push_str("None"),
        Value::Bool(true) => text.push_str("True"),
        Value::Bool(false) => text.push_str("False"),
        Value::Integer(number) => _ = write!(text, "{number}"),
        Value::Float(number) => text.push_str(&float(*number)),
        Value::Text(part) => quote(text, part),
        Value::List(sequence) => write_items(text, "[", &sequence.items, "]")?,
        Value::Tuple(sequence) if sequence.items.len() == 1 => write_items(text, "(", &sequence.items, ",)")?,
        Value::Tuple(sequence) => write_items(text, "(", &sequence.items, ")")?,
        Value::View(name, sequence) => {
            text.push_str(name);
            write_items(text, "([", &sequence.items, "])")?;
        }
        Value::Dict(dict) => {
            text.push('{');
            for (at, (key, value)) in dict.entries().iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                write_repr(text, key)?;
                text.push_str(": ");
                write_repr(text, value)?;
            }
            text.push('}');
        }
        Value::Range(start, end, 1) => _ = write!(text, "range({start}, {end})"),
        Value::Range(start, end, step) => _ = write!(text, "range({start}, {end}, {step})"),
        Value::Safe(_)
        | Value::Iterator(_)
        | Value::Namespace(_)
        | Value::Loop(_)
        | Value::Macro(_)
        | Value::Method(_)
        | Value::Function(_) => return Err(unsupported(format!("printing a {}", value.kind()))),
    }
    assert_length(text.len())
}

fn write_items(text: &mut String, begin: &str, items: &[Value], end: &str) -> Result<()> {
    text.push_str(begin);
    for (at, item) in items.iter().enumerate() {
        text.push_str(if at == 0 { "" } else { ", " });
        write_repr(text, item)?;
    }
    text.push_str(end);
    Ok(())
}

/// Python's `repr` of a float: the shortest digits that read back as the same number.
pub(crate) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Appends a string as Python's `repr` quotes it.
fn quote(text: &mut String, part: &str) {
    let quote = if part.contains('\'') && !part.contains('"') { '"' } else { '\'' };
    text.push(quote);
    for character in part.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            _ if character == quote => text.extend(['\\', character]),
            _ if is_printable(character) => text.push(character),
            _ => {
                let code = u32::from(character);
                _ = match code {
                    ..0x100 => write!(text, "\\x{code:02x}"),
                    0x100..0x1_0000 => write!(text, "\\u{code:04x}"),
                    _ => write!(text, "\\U{code:08x}"),
                };
            }
        }
    }
    text.push(quote);
}

/// Python's `str.isprintable` of a character. Rust's debug format escapes the same categories, and also combining marks
/// at the start of a string, hence the letter before the character.
pub(crate) fn is_printable(character: char) -> bool {
    let text: String = ['a', character].into_iter().collect();
    matches!(character, '\'' | '"' | '\\') || text.escape_debug().count() == 2
}

//! JSON in the format of Python's `json.dumps`, for Transformers' filter `tojson`.

use std::cmp::Ordering;
use std::fmt::Write as _;

use crate::arguments::Bound;
use crate::fault::{Result, fault, unsupported};
use crate::text::{assert_length, float};
use crate::value::{Value, order};

/// Maximum indentation of a level in spaces.
const WIDEST_INDENT: i128 = 32;

/// Options of the JSON output.
struct Style {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// `value | tojson(ensure_ascii, indent, separators, sort_keys)`.
pub(crate) fn to_json(value: &Value, arguments: &Bound) -> Result<Value> {
    let indent = match arguments.get("indent") {
        None | Some(Value::None) => None,
        Some(Value::Text(indent)) => Some(indent.to_string()),
        Some(width) => {
            let width = width.as_integer().ok_or_else(|| fault("indent is neither a number nor a string"))?;
            if width > WIDEST_INDENT {
                return Err(fault(format!("indent is {width}, expected at most {WIDEST_INDENT}")));
            }
            Some(" ".repeat(width.max(0) as usize))
        }
    };
    let (item_separator, key_separator) = match arguments.get("separators") {
        None | Some(Value::None) => ((if indent.is_some() { "," } else { ", " }).to_owned(), ": ".to_owned()),
        Some(separators) => match separators.items()?.as_slice() {
            [Value::Text(item), Value::Text(key)] => (item.to_string(), key.to_string()),
            _ => return Err(fault("separators are not two strings")),
        },
    };
    let is_set = |name| arguments.get(name).is_some_and(Value::is_true);
    let style = Style {
        ensure_ascii: is_set("ensure_ascii"),
        indent,
        item_separator,
        key_separator,
        sort_keys: is_set("sort_keys"),
    };
    let mut text = String::new();
    style.write(&mut text, value, 1)?;
    Ok(Value::text(&text))
}

impl Style {
    fn write(&self, text: &mut String, value: &Value, level: usize) -> Result<()> {
        match value {
            Value::None => text.push_str("null"),
            Value::Bool(true) => text.push_str("true"),
            Value::Bool(false) => text.push_str("false"),
            Value::Integer(number) => _ = write!(text, "{number}"),
            Value::Float(number) => text.push_str(&json_float(*number)),
            Value::Text(part) | Value::Safe(part) => self.quote(text, part),
            Value::List(sequence) | Value::Tuple(sequence) => {
                self.write_all(text, ["[", "]"], level, &sequence.items, |text, item| {
                    self.write(text, item, level + 1)
                })?;
            }
            Value::Dict(dict) => {
                let mut entries: Vec<_> = dict.entries().iter().collect();
                if self.sort_keys {
                    sort(&mut entries)?;
                }
                self.write_all(text, ["{", "}"], level, &entries, |text, (key, value)| {
                    self.quote(text, &key_text(key)?);
                    text.push_str(&self.key_separator);
                    self.write(text, value, level + 1)
                })?;
            }
            Value::Undefined(why) => return Err(fault(format!("an undefined value is not JSON: {why}"))),
            other => return Err(fault(format!("a {} is not JSON", other.kind()))),
        }
        assert_length(text.len())
    }

    fn write_all<T>(
        &self,
        text: &mut String,
        [begin, end]: [&str; 2],
        level: usize,
        items: &[T],
        mut write: impl FnMut(&mut String, &T) -> Result<()>,
    ) -> Result<()> {
        text.push_str(begin);
        for (at, item) in items.iter().enumerate() {
            text.push_str(if at == 0 { "" } else { &self.item_separator });
            self.new_line(text, level);
            write(text, item)?;
        }
        if !items.is_empty() {
            self.new_line(text, level - 1);
        }
        text.push_str(end);
        Ok(())
    }

    fn new_line(&self, text: &mut String, level: usize) {
        if let Some(indent) = &self.indent {
            text.push('\n');
            text.push_str(&indent.repeat(level));
        }
    }

    fn quote(&self, text: &mut String, part: &str) {
        text.push('"');
        for character in part.chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\u{8}' => text.push_str("\\b"),
                '\u{C}' => text.push_str("\\f"),
                '\0'..' ' => _ = write!(text, "\\u{:04x}", u32::from(character)),
                ' '..='~' => text.push(character),
                _ if self.ensure_ascii => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        _ = write!(text, "\\u{unit:04x}");
                    }
                }
                _ => text.push(character),
            }
        }
        text.push('"');
    }
}

fn json_float(number: f64) -> String {
    match float(number).as_str() {
        "nan" => "NaN".to_owned(),
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        text => text.to_owned(),
    }
}

fn key_text(key: &Value) -> Result<String> {
    Ok(match key {
        Value::Text(text) => text.to_string(),
        Value::None => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => json_float(*number),
        other => return Err(fault(format!("a {} is not a JSON key", other.kind()))),
    })
}

fn sort(entries: &mut [&(Value, Value)]) -> Result<()> {
    let mut failure = None;
    entries.sort_by(|(left, _), (right, _)| match order(left, right) {
        Ok(Some(ordering)) => ordering,
        Ok(None) => {
            failure.get_or_insert_with(|| unsupported("sorting values without an order"));
            Ordering::Equal
        }
        Err(fault) => {
            failure.get_or_insert(fault);
            Ordering::Equal
        }
    });
    failure.map_or(Ok(()), Err)
}

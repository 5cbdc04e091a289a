//! Python's string formatting: `text % values` and `text.format(values)`.

use crate::fault::{Result, fault, unsupported};
use crate::lookup::{attribute, item};
use crate::text::{assert_length, write_repr, write_str};
use crate::value::{Given, Value, assert_items};

/// `format % value`: `%s`, `%r`, `%d`, `%i`, `%x`, `%X`, `%o`, `%f` and `%%`, with flags, width and precision.
pub(crate) fn percent(format: &str, value: &Value) -> Result<Value> {
    let values = match value {
        Value::Tuple(sequence) => sequence.items.clone(),
        value => vec![value.clone()],
    };
    let mut values = values.into_iter();
    let mut used_names = false;
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let name = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        if let Some((_, after)) = name {
            rest = after;
        }
        let end = rest.find(|c: char| !"-+ #0123456789.".contains(c));
        let Some(end) = end else { return Err(fault("an incomplete format after %")) };
        let (spec, conversion) = (&rest[..end], rest[end..].chars().next().unwrap_or('%'));
        rest = &rest[end + conversion.len_utf8()..];
        if conversion == '%' {
            text.push('%');
            continue;
        }
        let value = match (name, value) {
            (Some((name, _)), Value::Dict(dict)) => {
                used_names = true;
                dict.get(&Value::text(name))
                    .cloned()
                    .ok_or_else(|| fault(format!("% has no value for {name:?}")))?
            }
            (Some(_), _) => return Err(fault("% with names requires a dictionary")),
            (None, _) => values.next().ok_or_else(|| fault("% has too few values"))?,
        };
        write_percent(&mut text, spec, conversion, &value)?;
        assert_length(text.len())?;
    }
    text.push_str(rest);
    let ignored = used_names || matches!(value, Value::Dict(_) | Value::List(_) | Value::Undefined(_));
    if values.next().is_some() && !ignored {
        return Err(fault("% has more values than the format uses"));
    }
    Ok(Value::text(&text))
}

fn write_percent(text: &mut String, spec: &str, conversion: char, value: &Value) -> Result<()> {
    let flags_end = spec.find(|c: char| !"-+ #0".contains(c)).unwrap_or(spec.len());
    let (flags, rest) = spec.split_at(flags_end);
    let (width, precision) =
        rest.split_once('.').map_or((rest, None), |(width, digits)| (width, Some(digits)));
    let number = |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<usize>() };
    let bad = |_| unsupported(format!("the format %{spec}{conversion}"));
    let width = assert_items(Some(number(width).map_err(bad)?))?;
    let precision = precision.map(number).transpose().map_err(bad)?;
    if precision.is_some() {
        assert_items(precision)?;
    }
    if flags.contains('#') || (flags.contains('0') && !matches!(conversion, 'd' | 'i' | 'f')) {
        return Err(unsupported(format!("the format %{spec}{conversion}")));
    }
    let (sign, digits) = match conversion {
        's' | 'r' => {
            let mut part = String::new();
            if conversion == 's' {
                write_str(&mut part, value)?;
            } else {
                write_repr(&mut part, value)?;
            }
            let part = precision.map_or(part.clone(), |most| part.chars().take(most).collect());
            ("", part)
        }
        'd' | 'i' | 'x' | 'X' | 'o' => {
            let whole = match value {
                Value::Float(number) if matches!(conversion, 'd' | 'i') => Some(number.trunc() as i128),
                value => value.as_integer(),
            };
            let whole = whole
                .ok_or_else(|| fault(format!("%{conversion} requires a number, found a {}", value.kind())))?;
            let size = whole.unsigned_abs();
            let digits = match conversion {
                'x' => format!("{size:x}"),
                'X' => format!("{size:X}"),
                'o' => format!("{size:o}"),
                _ => size.to_string(),
            };
            let digits = format!("{digits:0>width$}", width = precision.unwrap_or(0));
            (sign_of(whole < 0, flags), digits)
        }
        'f' => {
            let number = value.as_float().filter(|number| number.is_finite());
            let number =
                number.ok_or_else(|| fault(format!("%f requires a number, found a {}", value.kind())))?;
            (
                sign_of(number.is_sign_negative(), flags),
                format!("{:.*}", precision.unwrap_or(6), number.abs()),
            )
        }
        other => return Err(unsupported(format!("the format %{other}"))),
    };
    let missing = width.saturating_sub(sign.len() + digits.chars().count());
    let (left, zeros, right) = if flags.contains('-') {
        (0, 0, missing)
    } else if flags.contains('0') {
        (0, missing, 0)
    } else {
        (missing, 0, 0)
    };
    text.extend(std::iter::repeat_n(' ', left));
    text.push_str(sign);
    text.extend(std::iter::repeat_n('0', zeros));
    text.push_str(&digits);
    text.extend(std::iter::repeat_n(' ', right));
    Ok(())
}

fn sign_of(negative: bool, flags: &str) -> &'static str {
    if negative {
        "-"
    } else if flags.contains('+') {
        "+"
    } else if flags.contains(' ') {
        " "
    } else {
        ""
    }
}

/// `text.format(...)`, without conversions and format specifications.
pub(crate) fn format(format: &str, given: &Given) -> Result<String> {
    let mut text = String::new();
    let (mut rest, mut next, mut by_number) = (format, 0, None);
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            text.push_str(brace);
            rest = after;
            continue;
        }
        let Some((field, after)) = rest.split_once('}').filter(|_| brace == "{") else {
            return Err(fault(format!("format: a single {brace:?}")));
        };
        rest = after;
        if field.contains([':', '!', '{']) {
            return Err(unsupported(format!("the format {{{field}}}")));
        }
        let end = field.find(['.', '[']).unwrap_or(field.len());
        let (name, path) = field.split_at(end);
        let place = if name.is_empty() { Ok(next) } else { name.parse::<usize>() };
        let value = if let Ok(place) = place {
            if by_number.replace(!name.is_empty()).is_some_and(|before| before == name.is_empty()) {
                return Err(fault("format: numbered and other fields cannot be mixed"));
            }
            next += 1;
            given.positional.get(place)
        } else {
            given.named.iter().find(|(found, _)| **found == *name).map(|(_, value)| value)
        };
        let value = value.cloned().ok_or_else(|| fault(format!("format: no value for {{{field}}}")))?;
        write_str(&mut text, &follow(value, path)?)?;
    }
    text.push_str(rest);
    assert_length(text.len())?;
    Ok(text)
}

/// Resolves the attributes and items of a field such as `{0.name[key]}`.
fn follow(mut value: Value, path: &str) -> Result<Value> {
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(name) = rest.strip_prefix('.') {
            let end = name.find(['.', '[']).unwrap_or(name.len());
            value = attribute(&value, &name[..end])?;
            rest = &name[end..];
        } else {
            let inner = rest.strip_prefix('[').and_then(|inner| inner.split_once(']'));
            let (key, after) = inner.ok_or_else(|| fault(format!("format: {rest:?} is not a field")))?;
            let key = key.parse().map_or_else(|_| Value::text(key), Value::Integer);
            value = item(&value, &key)?;
            rest = after;
        }
    }
    Ok(value)
}

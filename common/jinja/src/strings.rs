//! Python's string methods. Positions and lengths count code points.

use crate::arguments::Bound;
use crate::fault::{Result, fault, unsupported};
use crate::format::format;
use crate::text::{assert_length, is_printable, is_space};
use crate::value::{Given, Value, assert_items};

pub(crate) const METHODS: [&str; 39] = [
    "capitalize",
    "center",
    "count",
    "endswith",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

pub(crate) const UNSUPPORTED: [&str; 8] =
    ["casefold", "encode", "expandtabs", "format_map", "isidentifier", "istitle", "maketrans", "translate"];

/// `text.name(given)`
pub(crate) fn call(text: &str, name: &str, given: Given) -> Result<Value> {
    let parameters: (&[&str], usize) = match name {
        "format" => return format(text, &given).map(|text| Value::text(&text)),
        "startswith" | "endswith" | "find" | "rfind" | "index" | "rindex" | "count" => {
            (&["what", "start", "end"], 1)
        }
        "split" | "rsplit" => (&["sep", "maxsplit"], 0),
        "splitlines" => (&["keepends"], 0),
        "replace" => (&["old", "new", "count"], 2),
        "strip" | "lstrip" | "rstrip" => (&["chars"], 0),
        "partition" | "rpartition" | "removeprefix" | "removesuffix" => (&["what"], 1),
        "join" => (&["items"], 1),
        "ljust" | "rjust" | "center" => (&["width", "fill"], 1),
        "zfill" => (&["width"], 1),
        _ => (&[], 0),
    };
    // Only these have named arguments in Python.
    let named = matches!(name, "split" | "rsplit" | "splitlines");
    if let Some((argument, _)) = given.named.first().filter(|_| !named) {
        return Err(fault(format!("{name} takes no argument by the name {argument:?}")));
    }
    let bound = given.bind(name, parameters.0, parameters.1)?;
    match name {
        "startswith" | "endswith" => affix(text, name == "startswith", &bound).map(Value::Bool),
        "find" | "rfind" | "index" | "rindex" => find(text, name, &bound),
        "count" => count(text, &bound),
        "split" => split(text, &bound),
        "rsplit" => rsplit(text, &bound),
        "splitlines" => strings(split_lines(text, bound.is_set("keepends"))),
        "replace" => {
            let (old, new) = (required(&bound, "old")?, required(&bound, "new")?);
            replaced(text, old, new, bound.integer("count")?.unwrap_or(-1)).map(|text| Value::text(&text))
        }
        "strip" => strip(text, &bound, true, true),
        "lstrip" => strip(text, &bound, true, false),
        "rstrip" => strip(text, &bound, false, true),
        "removeprefix" => Ok(Value::text(text.strip_prefix(required(&bound, "what")?).unwrap_or(text))),
        "removesuffix" => Ok(Value::text(text.strip_suffix(required(&bound, "what")?).unwrap_or(text))),
        "partition" | "rpartition" => partition(text, name == "partition", required(&bound, "what")?),
        "join" => join(text, &bound),
        "ljust" | "rjust" | "center" => pad(text, name, &bound),
        "zfill" => zfill(text, &bound),
        "upper" => Ok(Value::text(&text.to_uppercase())),
        "lower" => Ok(Value::text(&text.to_lowercase())),
        "capitalize" => capitalize(text).map(|text| Value::text(&text)),
        "title" => title(text).map(|text| Value::text(&text)),
        "swapcase" => swapped(text).map(|text| Value::text(&text)),
        "isspace" => Ok(Value::Bool(!text.is_empty() && text.chars().all(is_space))),
        "isascii" => Ok(Value::Bool(text.is_ascii())),
        "isprintable" => Ok(Value::Bool(text.chars().all(is_printable))),
        _ => is_kind(text, name).map(Value::Bool),
    }
}

fn required<'b>(bound: &'b Bound, name: &str) -> Result<&'b str> {
    let text = bound.text(name)?;
    text.map(|text| &**text).ok_or_else(|| fault(format!("expected a string for {name:?}")))
}

fn strings<'t>(parts: impl IntoIterator<Item = &'t str>) -> Result<Value> {
    Value::list(parts.into_iter().map(Value::text).collect())
}

/// Returns the part between `start` and `end` and its position; `None` if `start` is beyond the text.
fn part<'t>(text: &'t str, bound: &Bound) -> Result<Option<(usize, &'t str)>> {
    let length = text.chars().count() as i128;
    let place = |at: i128| (if at < 0 { at + length } else { at }).max(0);
    let start = bound.integer("start")?.map_or(0, place);
    let end = bound.integer("end")?.map_or(length, place).min(length);
    if start > end {
        return Ok(None);
    }
    let byte = |at: i128| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    Ok(Some((start as usize, &text[byte(start)..byte(end)])))
}

fn affix(text: &str, at_start: bool, bound: &Bound) -> Result<bool> {
    let affixes = match bound.get("what") {
        Some(Value::Tuple(affixes)) => affixes.items.clone(),
        Some(affix) => vec![affix.clone()],
        None => Vec::new(),
    };
    let part = part(text, bound)?;
    for affix in affixes {
        let Value::Text(affix) = &affix else {
            return Err(fault(format!("expected a string or a tuple of strings, found a {}", affix.kind())));
        };
        let found = |text: &str| if at_start { text.starts_with(&**affix) } else { text.ends_with(&**affix) };
        if part.is_some_and(|(_, text)| found(text)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn find(text: &str, name: &str, bound: &Bound) -> Result<Value> {
    let what = required(bound, "what")?;
    let place = part(text, bound)?.and_then(|(start, text)| {
        let byte = if name.starts_with('r') { text.rfind(what) } else { text.find(what) };
        byte.map(|byte| (start + text[..byte].chars().count()) as i128)
    });
    match place {
        None if name.ends_with("index") => Err(fault(format!("{name}: the text does not contain {what:?}"))),
        place => Ok(Value::Integer(place.unwrap_or(-1))),
    }
}

fn count(text: &str, bound: &Bound) -> Result<Value> {
    let what = required(bound, "what")?;
    let count = part(text, bound)?.map_or(0, |(_, text)| text.matches(what).count());
    Ok(Value::Integer(count as i128))
}

fn split(text: &str, bound: &Bound) -> Result<Value> {
    // A negative limit means no limit.
    let most = usize::try_from(bound.integer("maxsplit")?.unwrap_or(-1)).unwrap_or(usize::MAX - 1);
    if let Some(separator) = bound.text("sep")? {
        assert_separator(separator)?;
        return strings(text.splitn(most + 1, &**separator));
    }
    let (mut rest, mut parts) = (text.trim_start_matches(is_space), Vec::new());
    while !rest.is_empty() {
        // At the limit the last part retains its trailing white space.
        let Some(end) = rest.find(is_space).filter(|_| parts.len() < most) else {
            parts.push(rest);
            break;
        };
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    strings(parts)
}

fn rsplit(text: &str, bound: &Bound) -> Result<Value> {
    let most = usize::try_from(bound.integer("maxsplit")?.unwrap_or(-1)).unwrap_or(usize::MAX - 1);
    let mut parts = Vec::new();
    if let Some(separator) = bound.text("sep")? {
        assert_separator(separator)?;
        parts.extend(text.rsplitn(most + 1, &**separator));
    } else {
        let mut rest = text.trim_end_matches(is_space);
        while !rest.is_empty() {
            let before = rest.trim_end_matches(|c: char| !is_space(c));
            if before.is_empty() || parts.len() >= most {
                parts.push(rest);
                break;
            }
            parts.push(&rest[before.len()..]);
            rest = before.trim_end_matches(is_space);
        }
    }
    parts.reverse();
    strings(parts)
}

fn assert_separator(separator: &str) -> Result<()> {
    if separator.is_empty() { Err(fault("the separator is empty")) } else { Ok(()) }
}

/// Python's line boundaries.
pub(crate) fn split_lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let boundary =
        |c: char| matches!(c, '\n'..='\r' | '\u{1C}'..='\u{1E}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut lines, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let line = rest.find(boundary).unwrap_or(rest.len());
        let ending = match rest[line..].chars().next() {
            Some('\r') if rest[line + 1..].starts_with('\n') => 2,
            Some(character) => character.len_utf8(),
            None => 0,
        };
        lines.push(&rest[..if keep_ends { line + ending } else { line }]);
        rest = &rest[line + ending..];
    }
    lines
}

/// Python's `replace`; a negative `count` replaces all.
pub(crate) fn replaced(text: &str, old: &str, new: &str, count: i128) -> Result<String> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let found = text.matches(old).take(count).count();
    assert_length(text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(text.replacen(old, new, count))
}

fn strip(text: &str, bound: &Bound, start: bool, end: bool) -> Result<Value> {
    let characters: Option<Vec<char>> = bound.text("chars")?.map(|text| text.chars().collect());
    Ok(Value::text(stripped(text, characters.as_deref(), start, end)))
}

/// Strips `characters`, or white space, from the ends.
pub(crate) fn stripped<'t>(text: &'t str, characters: Option<&[char]>, start: bool, end: bool) -> &'t str {
    let drops = |character: char| characters.map_or(is_space(character), |them| them.contains(&character));
    let text = if start { text.trim_start_matches(drops) } else { text };
    if end { text.trim_end_matches(drops) } else { text }
}

fn partition(text: &str, first: bool, separator: &str) -> Result<Value> {
    assert_separator(separator)?;
    let parts = if first { text.split_once(separator) } else { text.rsplit_once(separator) };
    let parts = match parts {
        Some((before, after)) => [before, separator, after],
        None if first => [text, "", ""],
        None => ["", "", text],
    };
    Value::tuple(parts.into_iter().map(Value::text).collect())
}

fn join(separator: &str, bound: &Bound) -> Result<Value> {
    let items = bound.get("items").map_or_else(|| Ok(Vec::new()), Value::items)?;
    let mut text = String::new();
    for (at, item) in items.iter().enumerate() {
        let Value::Text(item) = item else {
            return Err(fault(format!("join: expected strings, found a {}", item.kind())));
        };
        text.push_str(if at == 0 { "" } else { separator });
        text.push_str(item);
        assert_length(text.len())?;
    }
    Ok(Value::text(&text))
}

fn pad(text: &str, name: &str, bound: &Bound) -> Result<Value> {
    let fill = bound.text("fill")?.map_or(" ", |fill| &**fill);
    if fill.chars().count() != 1 {
        return Err(fault(format!("{name}: expected one character, found {fill:?}")));
    }
    let (width, length) = (width(bound)?, text.chars().count());
    let missing = width.saturating_sub(length);
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // With an odd width the additional space goes to the left.
        _ => missing / 2 + (missing & width & 1),
    };
    Ok(Value::text(&[&*fill.repeat(left), text, &*fill.repeat(missing - left)].concat()))
}

fn zfill(text: &str, bound: &Bound) -> Result<Value> {
    let missing = width(bound)?.saturating_sub(text.chars().count());
    let sign = text.len() - text.strip_prefix(['+', '-']).unwrap_or(text).len();
    Ok(Value::text(&[&text[..sign], &*"0".repeat(missing), &text[sign..]].concat()))
}

fn width(bound: &Bound) -> Result<usize> {
    assert_items(Some(usize::try_from(bound.integer("width")?.unwrap_or(0).max(0)).unwrap_or(usize::MAX)))
}

/// Returns the title case of a character. Characters whose title case is neither their upper case nor themselves are
/// not supported.
fn title_case(character: char) -> Result<String> {
    let upper: String = character.to_uppercase().collect();
    let special = upper.chars().count() > 1 || ('\u{1C4}'..='\u{1CC}').contains(&character);
    if special
        || ('\u{1F1}'..='\u{1F3}').contains(&character)
        || ('\u{10D0}'..='\u{10FF}').contains(&character)
    {
        return Err(unsupported(format!("the title case of {character:?}")));
    }
    Ok(upper)
}

pub(crate) fn capitalize(text: &str) -> Result<String> {
    let Some(first) = text.chars().next() else { return Ok(String::new()) };
    // The whole text is lowered at once, since a final sigma depends on the characters before it.
    let lower = text.to_lowercase();
    let begins: String = first.to_lowercase().collect();
    Ok(title_case(first)? + lower.strip_prefix(&*begins).unwrap_or(&lower))
}

fn title(text: &str) -> Result<String> {
    assert_ascii(text, "title")?;
    let mut within = false;
    let mut cased = |character: char| {
        let cased = if within { character.to_ascii_lowercase() } else { character.to_ascii_uppercase() };
        within = character.is_ascii_alphabetic();
        cased
    };
    Ok(text.chars().map(&mut cased).collect())
}

fn swapped(text: &str) -> Result<String> {
    assert_ascii(text, "swapcase")?;
    let swap = |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    Ok(text.chars().map(swap).collect())
}

fn is_kind(text: &str, name: &str) -> Result<bool> {
    assert_ascii(text, name)?;
    let cased = text.chars().any(|character| character.is_ascii_alphabetic());
    Ok(match name {
        "islower" => cased && !text.chars().any(|character| character.is_ascii_uppercase()),
        "isupper" => cased && !text.chars().any(|character| character.is_ascii_lowercase()),
        _ if text.is_empty() => false,
        "isalnum" => text.chars().all(|character| character.is_ascii_alphanumeric()),
        "isalpha" => text.chars().all(|character| character.is_ascii_alphabetic()),
        _ => text.chars().all(|character| character.is_ascii_digit()),
    })
}

/// Rejects text that would require Unicode categories which are not available here.
pub(crate) fn assert_ascii(text: &str, name: &str) -> Result<()> {
    match text.chars().find(|character| !character.is_ascii()) {
        Some(character) => {
            Err(unsupported(format!("{name} of text with {character:?}, which is not ASCII,")))
        }
        None => Ok(()),
    }
}

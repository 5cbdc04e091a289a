//! Files with one object per line: JSON, or dictionaries of Python.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use podium_recsys::dataset::Location;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::collector::{Collector, Row, rating};
use super::dates::Spelling;
use super::header;
use super::input::Input;
use super::literal;
use super::problems::ITEM_ID;
use super::rows::{Error, Problem, excerpt};
use super::times::{Kind, Times};

/// Fields of a data set. Of several names the first that an object has is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    /// Fields of an interaction.
    pub(crate) user: &'static [&'static str],
    pub(crate) item: &'static [&'static str],
    pub(crate) time: &'static [&'static str],
    /// Empty if interactions have no rating.
    pub(crate) rating: &'static [&'static str],
    /// Spelling of dates; `None`: numbers, or dates as everywhere else.
    pub(crate) dates: Option<Spelling>,
    /// Fields of an item.
    pub(crate) id: &'static [&'static str],
    pub(crate) title: &'static [&'static str],
    /// A part of titles that are scripts of web pages.
    pub(crate) script: Option<&'static str>,
    /// Expected objects, for messages.
    pub(crate) interaction: &'static str,
    pub(crate) entry: &'static str,
}

/// Reads the items of `files`. `caption` names a field that is used as the caption.
pub(crate) fn items(
    collector: &mut Collector,
    files: &[PathBuf],
    fields: &Fields,
    caption: Option<&str>,
) -> Result<(), Error> {
    let mut captions = Captions { field: caption, known: false, found: BTreeSet::new() };
    collector.each(files, |collector, input| {
        let encoding = collector.encoding(input)?;
        header::lines(collector, input, encoding, 0, |collector, _, line| {
            item(collector, line, fields, &mut captions)
        })
    })?;
    collector.end_items(files, fields.entry)?;
    captions.check(files)
}

/// Reads the interactions of one file.
pub(crate) fn interactions(
    collector: &mut Collector,
    input: &Input,
    fields: &Fields,
    times: &mut Times,
) -> Result<(), Error> {
    collector.begin_log(input, Location::Line, !fields.rating.is_empty())?;
    let encoding = collector.encoding(input)?;
    let wanted = [fields.user, fields.item, fields.time, fields.rating].concat();
    header::lines(collector, input, encoding, 0, |collector, location, line| {
        let object = object(line, Some(&wanted))?;
        let first = |names: &[&str]| names.iter().find_map(|name| present(object.get(*name)));
        let user = id(first(fields.user), "user id")?.unwrap_or_default();
        let item = id(first(fields.item), ITEM_ID)?.ok_or(Problem::NoField(ITEM_ID))?;
        let time = time(first(fields.time).ok_or(Problem::NoField("timestamp"))?, fields.dates, times)?;
        let rating = first(fields.rating).map(number).transpose()?;
        collector.interaction(location, &Row { user: &user, item: &item, time, rating })
    })
}

/// Parses a line. Only the fields in `wanted` are returned, if it is given.
fn object(line: &str, wanted: Option<&[&str]>) -> Result<Map<String, Value>, Problem> {
    let inside = line.trim_start().strip_prefix('{').ok_or(Problem::NotAnObject)?.trim_start();
    match inside.chars().next() {
        Some('\'' | 'u' | 'U') => {
            literal::dictionary(line.trim(), |key| wanted.is_none_or(|wanted| wanted.contains(&key)))
        }
        Some('"' | '}') => {
            let mut reader = serde_json::Deserializer::from_str(line);
            let object = Selected(wanted).deserialize(&mut reader)?;
            reader.end()?;
            Ok(object)
        }
        _ => Err(Problem::NotAnObject),
    }
}

/// Reads an object of which only some fields are stored, or all.
struct Selected<'a>(Option<&'a [&'a str]>);

impl<'de> DeserializeSeed<'de> for Selected<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Selected<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if self.0.is_none_or(|wanted| wanted.contains(&key.as_str())) {
                object.insert(key, fields.next_value()?);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object)
    }
}

/// Returns a value that is neither absent, null, nor an empty text.
fn present(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null() && value.as_str() != Some(""))
}

/// Returns an id, or `None` if it is absent.
fn id(value: Option<&Value>, what: &'static str) -> Result<Option<String>, Problem> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim().to_owned())),
        Some(Value::Number(number)) if !number.is_f64() => Ok(Some(number.to_string())),
        Some(other) => Err(Problem::Id { what, found: excerpt(&other.to_string()) }),
    }
}

fn time(value: &Value, dates: Option<Spelling>, times: &mut Times) -> Result<i64, Problem> {
    match (value, dates) {
        (Value::String(text), Some(spelling)) => times.read_date(text.trim(), spelling),
        (Value::String(text), None) => times.read(text.trim()),
        (value, None) => match value.as_i64() {
            Some(time) => times.accept(Kind::Number, time, || time.to_string()),
            None => times.read(&value.to_string()),
        },
        (value, Some(spelling)) => {
            Err(Problem::Date { text: excerpt(&value.to_string()), example: spelling.example })
        }
    }
}

fn number(value: &Value) -> Result<f64, Problem> {
    match value {
        Value::String(text) => rating(text.trim()),
        value => value.as_f64().ok_or_else(|| Problem::Rating(excerpt(&value.to_string()))),
    }
}

/// The field used as the caption, and whether any item has it.
struct Captions<'a> {
    field: Option<&'a str>,
    known: bool,
    /// Other fields, collected until an item has the requested one.
    found: BTreeSet<String>,
}

impl Captions<'_> {
    /// Rejects a field that no item has.
    fn check(self, files: &[PathBuf]) -> Result<(), Error> {
        match self.field {
            Some(field) if !self.known => Err(Error::NoCaptionField {
                file: files.first().cloned().unwrap_or_default(),
                field: field.to_owned(),
                found: self.found.into_iter().collect(),
            }),
            _ => Ok(()),
        }
    }
}

fn item(
    collector: &mut Collector,
    line: &str,
    fields: &Fields,
    captions: &mut Captions<'_>,
) -> Result<(), Problem> {
    let entry = object(line, None)?;
    if let Some(field) = captions.field.filter(|_| !captions.known) {
        captions.known = entry.contains_key(field);
        captions.found.extend(entry.keys().cloned());
    }
    let first = |names: &[&str]| names.iter().find_map(|name| present(entry.get(*name)));
    let key = id(first(fields.id), ITEM_ID)?.unwrap_or_default();
    let title = first(fields.title).map(written).unwrap_or_default();
    if fields.script.is_some_and(|script| title.contains(script)) {
        return Err(Problem::ScriptTitle(excerpt(&key)));
    }
    let caption = captions.field.map(|field| entry.get(field).map(written).unwrap_or_default());
    collector.item(&key, &title, caption.as_deref())
}

/// Returns a field's text: one text, or the texts of a list.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_absent_id_is_a_gap_and_another_type_is_not() {
        let of = |value: Value| id(present(Some(&value)), ITEM_ID);
        assert_eq!(of(json!(" B01 ")).unwrap().as_deref(), Some("B01"));
        assert_eq!(of(json!(17)).unwrap().as_deref(), Some("17"));
        assert_eq!(of(json!(null)).unwrap(), None);
        assert!(Problem::NoField(ITEM_ID).is_gap());
        for other in ["1.5", "123456789012345678901234567890", "true", "[1]"] {
            let problem = of(serde_json::from_str(other).unwrap()).unwrap_err();
            assert!(!problem.is_gap(), "{other}");
            assert!(problem.to_string().starts_with("item id "), "{problem}");
        }
    }

    #[test]
    fn objects_of_both_languages_are_read_and_others_rejected() {
        for line in [r#"{"a": "é", "b": [1]}"#, r"{'b': [1], u'a': u'\xe9'}", " {  \"a\": \"é\",\"b\":[1]} "]
        {
            assert_eq!(Value::Object(object(line, None).unwrap()), json!({"a": "é", "b": [1]}), "{line}");
            assert_eq!(Value::Object(object(line, Some(&["a"])).unwrap()), json!({"a": "é"}), "{line}");
        }
        for line in ["", "[]", "a,b", "{a: 1}", "{1: 2}"] {
            assert!(matches!(object(line, None), Err(Problem::NotAnObject)), "{line}");
        }
        assert!(matches!(object("{\"a\": 1} x", None), Err(Problem::Json(_))));
        assert!(matches!(object("{\"a\": 1", Some(&[])), Err(Problem::Json(_))));
        assert!(matches!(object("{'a': 1", None), Err(Problem::Literal { .. })));
    }
}

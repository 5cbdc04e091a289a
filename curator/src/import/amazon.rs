//! Amazon-style JSON lines: reviews and metadata, with the field names of 2014, 2018 and 2023.

use std::collections::BTreeSet;
use std::path::PathBuf;

use podium_recsys::dataset::Location;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::collector::{Collector, Row};
use super::header;
use super::input::Input;
use super::rows::{Error, Problem};
use super::times::{Kind, Times};

const REVIEW: &str = "one JSON object per line with user_id (or reviewerID), parent_asin (or asin), timestamp (or \
                      unixReviewTime) and perhaps rating (or overall)";
const METADATA: &str = "one JSON object per line with parent_asin (or asin) and title";

#[derive(Deserialize)]
struct Review {
    #[serde(alias = "reviewerID")]
    user_id: Option<String>,
    /// A product with all its variants; if present, metadata refers to it.
    parent_asin: Option<String>,
    asin: Option<String>,
    #[serde(alias = "unixReviewTime")]
    timestamp: Option<i64>,
    #[serde(alias = "overall")]
    rating: Option<f64>,
}

/// Reads metadata and reviews. `caption` names a field of the metadata that is used as the caption.
pub(crate) fn read(
    collector: &mut Collector,
    reviews_files: &[PathBuf],
    metadata_files: &[PathBuf],
    caption: Option<&str>,
) -> Result<(), Error> {
    let mut captions = Captions { field: caption, known: false, found: BTreeSet::new() };
    collector.each(metadata_files, |collector, input| {
        let encoding = collector.encoding(input)?;
        header::lines(collector, input, encoding, 0, |collector, _, line| {
            item(collector, line, &mut captions)
        })
    })?;
    collector.end_items(metadata_files, METADATA)?;
    captions.check(metadata_files)?;

    let mut times = Times::default();
    collector.each(reviews_files, |collector, input| reviews(collector, input, &mut times))?;
    collector.end_log(reviews_files, &times, REVIEW)
}

fn reviews(collector: &mut Collector, input: &Input, times: &mut Times) -> Result<(), Error> {
    collector.begin_log(input, Location::Line, true)?;
    let encoding = collector.encoding(input)?;
    header::lines(collector, input, encoding, 0, |collector, location, line| {
        let review: Review = serde_json::from_str(line)?;
        let time = review.timestamp.ok_or(Problem::NoField("timestamp"))?;
        let time = times.accept(Kind::Number, time, || time.to_string())?;
        let item = review.parent_asin.or(review.asin).ok_or(Problem::NoField("asin"))?;
        let user = review.user_id.as_deref().unwrap_or_default();
        collector.interaction(location, &Row { user, item: &item, time, rating: review.rating })
    })
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
    fn check(self, metadata: &[PathBuf]) -> Result<(), Error> {
        match self.field {
            Some(field) if !self.known => Err(Error::NoCaptionField {
                file: metadata.first().cloned().unwrap_or_default(),
                field: field.to_owned(),
                found: self.found.into_iter().collect(),
            }),
            _ => Ok(()),
        }
    }
}

fn item(collector: &mut Collector, line: &str, captions: &mut Captions<'_>) -> Result<(), Problem> {
    let entry: Map<String, Value> = serde_json::from_str(line)?;
    let text = |field: &str| entry.get(field).map(written).unwrap_or_default();
    if let Some(field) = captions.field.filter(|_| !captions.known) {
        captions.known = entry.contains_key(field);
        captions.found.extend(entry.keys().cloned());
    }
    let id = ["parent_asin", "asin"].map(text).into_iter().find(|id| !id.is_empty()).unwrap_or_default();
    let caption = captions.field.map(text);
    collector.item(&id, &text("title"), caption.as_deref())
}

/// Returns a field's text: descriptions are one text or a list of paragraphs.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

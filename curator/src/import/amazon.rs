//! Amazon-style JSON lines: reviews and metadata, with the field names of 2014, 2018 and 2023.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::collector::{Collector, Row};
use super::rows::{Error, Problem};
use super::times::{Kind, Times};

const REVIEW: &str = "a JSON object a line with user_id (or reviewerID), parent_asin (or asin), timestamp (or \
                      unixReviewTime) and perhaps rating (or overall)";
const METADATA: &str = "a JSON object a line with parent_asin (or asin) and title";

#[derive(Deserialize)]
struct Review {
    #[serde(alias = "reviewerID")]
    user_id: Option<String>,
    /// A product with all its variants; where it is given, metadata is about it.
    parent_asin: Option<String>,
    asin: Option<String>,
    #[serde(alias = "unixReviewTime")]
    timestamp: Option<i64>,
    #[serde(alias = "overall")]
    rating: Option<f64>,
}

/// Reads metadata and reviews. `caption` names a field of the metadata that stands in for captions.
pub(crate) fn read(
    collector: &mut Collector,
    reviews: &Path,
    metadata: &Path,
    caption: Option<&str>,
) -> Result<(), Error> {
    collector.lines(metadata, 0, |collector, _, line| Ok(item(collector, line, caption)))?;
    collector.end_items(metadata, METADATA)?;

    collector.begin_log(reviews, true)?;
    let mut times = Times::default();
    collector.lines(reviews, 0, |collector, place, line| {
        Ok((|| {
            let review: Review = serde_json::from_str(line)?;
            let time = review.timestamp.ok_or(Problem::NoField("timestamp"))?;
            // A first whole number makes the kind; all others are of it.
            times.accept(Kind::Number, time);
            let item = review.parent_asin.or(review.asin).ok_or(Problem::NoField("asin"))?;
            let row = Row {
                user: review.user_id.as_deref().unwrap_or_default(),
                item: &item,
                time,
                rating: review.rating,
            };
            collector.interaction(place, &row)
        })())
    })?;
    collector.end_log(&times, REVIEW)
}

fn item(collector: &mut Collector, line: &str, caption: Option<&str>) -> Result<(), Problem> {
    let entry: Value = serde_json::from_str(line)?;
    let text = |field: &str| entry.get(field).map(written).unwrap_or_default();
    let id = ["parent_asin", "asin"].map(text).into_iter().find(|id| !id.is_empty()).unwrap_or_default();
    let caption = caption.map(text);
    collector.item(&id, &text("title"), caption.as_deref())
}

/// A field's text: descriptions come as one text or as a list of paragraphs.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

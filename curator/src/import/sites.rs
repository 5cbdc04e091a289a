//! Sites whose data sets have one object per line: Amazon, Goodreads, Steam and Yelp.

use std::path::PathBuf;

use super::collector::Collector;
use super::dates;
use super::header::{self, LogColumns};
use super::lines::first_line;
use super::objects::{self, Fields};
use super::rows::Error;
use super::times::Times;

/// Amazon of 2014, 2018 and 2023. A product with all its variants has a `parent_asin`, to which metadata of 2023 refers.
pub(crate) const AMAZON: Fields = Fields {
    user: &["user_id", "reviewerID"],
    item: &["parent_asin", "asin"],
    time: &["timestamp", "unixReviewTime"],
    rating: &["rating", "overall"],
    dates: None,
    id: &["parent_asin", "asin"],
    title: &["title"],
    // Some titles of 2018 are the script of the page that they were read from.
    script: Some("getTime"),
    interaction: "one object per line with user_id (or reviewerID), parent_asin (or asin), timestamp (or unixReviewTime) \
                  and perhaps rating (or overall); or a table with the header user_id,parent_asin,rating,timestamp",
    entry: "one object per line with parent_asin (or asin) and title",
};

/// The UCSD book graph.
pub(crate) const GOODREADS: Fields = Fields {
    user: &["user_id"],
    item: &["book_id"],
    time: &["date_added"],
    rating: &["rating"],
    dates: Some(dates::GOODREADS),
    id: &["book_id"],
    title: &["title"],
    script: None,
    interaction: "one object per line with user_id, book_id and date_added",
    entry: "one object per line with book_id and title",
};

/// `steam_reviews.json.gz` and `steam_games.json.gz`. Some games have an `app_name` and no title.
pub(crate) const STEAM: Fields = Fields {
    user: &["username"],
    item: &["product_id"],
    time: &["date"],
    rating: &[],
    dates: None,
    id: &["id"],
    title: &["title", "app_name"],
    script: None,
    interaction: "one object per line with username, product_id and date",
    entry: "one object per line with id and title (or app_name)",
};

/// Reviews and businesses of the Yelp open data set.
pub(crate) const YELP: Fields = Fields {
    user: &["user_id"],
    item: &["business_id"],
    time: &["date"],
    rating: &["stars"],
    dates: None,
    id: &["business_id"],
    title: &["name"],
    script: None,
    interaction: "one object per line with user_id, business_id and date",
    entry: "one object per line with business_id and name",
};

/// Columns of Amazon's tables of 2023, which have a header.
const AMAZON_COLUMNS: LogColumns<'_> =
    LogColumns { user: "user_id", item: "parent_asin", time: "timestamp", rating: Some("rating") };

/// Reads items and reviews. `caption` names a field of items that is used as the caption.
pub(crate) fn read(
    collector: &mut Collector,
    fields: &Fields,
    reviews: &[PathBuf],
    items: &[PathBuf],
    caption: Option<&str>,
) -> Result<(), Error> {
    objects::items(collector, items, fields, caption)?;
    let mut times = Times::default();
    collector.each(reviews, |collector, input| {
        let encoding = collector.encoding(input)?;
        let (_, first) = first_line(input, encoding)?;
        if fields.item == AMAZON.item && first.starts_with("user_id,parent_asin,") {
            header::interactions(collector, input, &AMAZON_COLUMNS, &mut times)
        } else {
            objects::interactions(collector, input, fields, &mut times)
        }
    })?;
    collector.end_log(reviews, &times, fields.interaction)
}

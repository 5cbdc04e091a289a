//! RecBole's atomic files: tables with tabs whose header has a name and a type for each field.

use std::path::PathBuf;

use super::collector::Collector;
use super::header::{self, ITEM_ROW, ItemColumns, LOG_ROW, LogColumns, Table};
use super::input::Input;
use super::rows::Error;
use super::times::Times;

const TYPES: [&str; 4] = ["token", "token_seq", "float", "float_seq"];
/// Fields with titles in RecBole's own files.
const TITLES: [&str; 7] =
    ["title", "movie_title", "item_name", "name", "movie_name", "book_title", "app_name"];
/// The field of ratings in RecBole's own files.
const RATING: &str = "rating";

/// Names of fields, without types.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) user: &'a str,
    pub(crate) item: &'a str,
    pub(crate) time: &'a str,
    /// Without it: `rating`, if there is such a field.
    pub(crate) rating: Option<&'a str>,
    /// Without it: the first of [`TITLES`].
    pub(crate) title: Option<&'a str>,
    pub(crate) caption: Option<&'a str>,
}

/// Reads `.item` and `.inter` files.
pub(crate) fn read(
    collector: &mut Collector,
    interactions: &[PathBuf],
    items: &[PathBuf],
    names: &Names<'_>,
) -> Result<(), Error> {
    collector.each(items, |collector, input| {
        let header = Header::open(collector, input)?;
        let title = names.title.or_else(|| TITLES.into_iter().find(|title| header.has(title)));
        let columns = ItemColumns {
            id: header.full(names.item),
            title: header.full(title.unwrap_or(TITLES[0])),
            caption: names.caption.map(|caption| header.full(caption)),
        };
        header::items(collector, input, &columns)
    })?;
    collector.end_items(items, ITEM_ROW)?;
    let mut times = Times::default();
    collector.each(interactions, |collector, input| {
        let header = Header::open(collector, input)?;
        let rating = names.rating.or_else(|| header.has(RATING).then_some(RATING));
        let columns = LogColumns {
            user: header.full(names.user),
            item: header.full(names.item),
            time: header.full(names.time),
            rating: rating.map(|rating| header.full(rating)),
        };
        header::interactions(collector, input, &columns, &mut times)
    })?;
    collector.end_log(interactions, &times, LOG_ROW)
}

/// Names of a file's fields, with types.
struct Header(Vec<String>);

impl Header {
    fn open(collector: &Collector, input: &Input) -> Result<Self, Error> {
        let names = Table::open(collector, input, Some(b'\t'))?.header().to_vec();
        let typed = |name: &String| {
            name.rsplit_once(':').is_some_and(|(name, kind)| !name.is_empty() && TYPES.contains(&kind))
        };
        match names.iter().find(|name| !typed(name)) {
            Some(field) => Err(Error::FieldType { file: input.path.clone(), field: field.clone() }),
            None => Ok(Self(names)),
        }
    }

    /// Returns a field with its type; an unknown name is returned unchanged, and the table rejects it.
    fn full<'a>(&'a self, name: &'a str) -> &'a str {
        let is_it = |full: &&String| full.rsplit_once(':').is_some_and(|(found, _)| found == name);
        self.0.iter().find(is_it).map_or(name, String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.full(name) != name
    }
}

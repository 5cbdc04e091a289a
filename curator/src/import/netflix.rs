//! The Netflix Prize: ratings under the movie's id, and titles without quotes.

use std::path::PathBuf;

use podium_recsys::dataset::Location;

use super::collector::{Collector, Row, rating};
use super::header;
use super::input::Input;
use super::rows::{Error, Problem};
use super::times::Times;

const RATING_ROW: &str = "a line `movie:` and below it lines `customer,rating,date`";
const TITLE_ROW: &str = "`movie,year,title`";

/// Reads titles and ratings.
pub(crate) fn read(
    collector: &mut Collector,
    ratings_files: &[PathBuf],
    titles_files: &[PathBuf],
) -> Result<(), Error> {
    collector.each(titles_files, |collector, input| {
        let encoding = collector.encoding(input)?;
        header::lines(collector, input, encoding, 0, |collector, _, line| {
            // Titles may contain commas.
            let fields: Vec<&str> = line.splitn(3, ',').map(str::trim).collect();
            match fields[..] {
                [id, _year, title] => collector.item(id, title, None),
                _ => Err(Problem::Columns { found: fields.len(), expected: 3 }),
            }
        })
    })?;
    collector.end_items(titles_files, TITLE_ROW)?;
    let mut times = Times::default();
    collector.each(ratings_files, |collector, input| ratings(collector, input, &mut times))?;
    collector.end_log(ratings_files, &times, RATING_ROW)
}

fn ratings(collector: &mut Collector, input: &Input, times: &mut Times) -> Result<(), Error> {
    let encoding = collector.encoding(input)?;
    collector.begin_log(input, Location::Line, true)?;
    let mut movie: Option<String> = None;
    header::lines(collector, input, encoding, 0, |collector, location, line| {
        let line = line.trim();
        if let Some(id) = line.strip_suffix(':') {
            movie = Some(id.to_owned());
            return Ok(());
        }
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [user, stars, date] = fields[..] else {
            return Err(Problem::Columns { found: fields.len(), expected: 3 });
        };
        let item = movie.as_deref().ok_or(Problem::NoMovie)?;
        let rating = Some(rating(stars)?);
        collector.interaction(location, &Row { user, item, rating, time: times.read(date)? })
    })
}

//! Items and interactions as they come out of the files, whatever the format.

use std::fmt;
use std::path::{Path, PathBuf};

use podium_recsys::dataset::Place;
use serde::Serialize;

use super::encoding::{Choice, Encoding};
use super::ids::Ids;
use super::lines::Lines;
use super::rows::{Error, Problem, Skipped, excerpt};
use super::times::{Kind, Times};

/// Longer titles are no titles: they would fill every prompt that they stand in.
const LONGEST_TITLE_BYTES: usize = 4_096;

/// One user, one item, one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interaction {
    /// Index of the user.
    pub(crate) user: u32,
    /// Index of the item.
    pub(crate) item: u32,
    /// When; larger is later.
    pub(crate) time: i64,
    /// Its row in the file.
    pub(crate) row: u32,
}

/// What is known of an item beside its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) title: String,
    pub(crate) caption: Option<String>,
}

/// A file that was read.
#[derive(Debug, Serialize)]
pub(crate) struct Source {
    /// Its name.
    file: String,
    /// Its encoding; none for a binary file.
    encoding: Option<String>,
    /// Usable rows, and rows that were not.
    rows: u64,
}

/// A row of an interaction file.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) user: &'a str,
    pub(crate) item: &'a str,
    pub(crate) time: i64,
    /// Absent where the file has no ratings.
    pub(crate) rating: Option<f64>,
}

/// Takes rows, and sees to those that cannot be used.
#[derive(Debug)]
pub(crate) struct Collector {
    encoding: Choice,
    min_rating: Option<f64>,
    pub(crate) skipped: Skipped,
    pub(crate) sources: Vec<Source>,
    pub(crate) items: Ids,
    /// By index of the item.
    pub(crate) texts: Vec<Text>,
    pub(crate) users: Ids,
    pub(crate) interactions: Vec<Interaction>,
    /// The file that the interactions are in.
    pub(crate) log: PathBuf,
    /// How it tells time; none where it tells only an order.
    pub(crate) time_kind: Option<Kind>,
    /// Interactions rated below the threshold.
    pub(crate) rated_too_low: u64,
    /// Items without a title.
    pub(crate) without_title: u64,
}

impl Collector {
    /// Nothing is read yet.
    pub(crate) fn new(encoding: Choice, min_rating: Option<f64>, skip_bad_rows: bool) -> Self {
        Self {
            encoding,
            min_rating,
            skipped: Skipped::new(skip_bad_rows),
            sources: Vec::new(),
            items: Ids::default(),
            texts: Vec::new(),
            users: Ids::default(),
            interactions: Vec::new(),
            log: PathBuf::new(),
            time_kind: None,
            rated_too_low: 0,
            without_title: 0,
        }
    }

    /// The encoding of `file`.
    pub(crate) fn encoding(&self, file: &Path) -> Result<Encoding, Error> {
        self.encoding.of(file)
    }

    /// Reads `file` line by line: `take` gets each line after the first `header` ones, and this object.
    pub(crate) fn lines(
        &mut self,
        file: &Path,
        header: u64,
        mut take: impl FnMut(&mut Self, Place, &str) -> Result<Result<(), Problem>, Error>,
    ) -> Result<(), Error> {
        let encoding = self.encoding(file)?;
        let mut lines = Lines::open(file, encoding)?;
        let (mut left, mut rows) = (header, 0);
        while let Some(line) = lines.next()? {
            if left > 0 {
                left -= 1;
                continue;
            }
            rows += 1;
            let place = line.place;
            let taken = match line.text {
                Ok(text) => take(self, place, text)?,
                Err(problem) => Err(problem),
            };
            if let Err(problem) = taken {
                self.skipped.bad(file, place, problem)?;
            }
        }
        self.read(file, Some(encoding), rows);
        Ok(())
    }

    /// Notes that `file` was read.
    pub(crate) fn read(&mut self, file: &Path, encoding: Option<Encoding>, rows: u64) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.sources.push(Source {
            file: name,
            encoding: encoding.map(|encoding| encoding.to_string()),
            rows,
        });
    }

    /// Takes an item.
    pub(crate) fn item(&mut self, id: &str, title: &str, caption: Option<&str>) -> Result<(), Problem> {
        if id.is_empty() {
            return Err(Problem::NoField("item id"));
        }
        if title.len() > LONGEST_TITLE_BYTES {
            return Err(Problem::LongTitle { found: title.len(), limit: LONGEST_TITLE_BYTES });
        }
        let title = one_line(title);
        if title.is_empty() {
            self.without_title += 1;
            return Err(Problem::EmptyTitle(excerpt(id)));
        }
        if !self.items.intern(id).1 {
            return Err(Problem::RepeatedItem(excerpt(id)));
        }
        let caption = caption.map(one_line).filter(|caption| !caption.is_empty());
        self.texts.push(Text { title, caption });
        Ok(())
    }

    /// Takes an interaction.
    pub(crate) fn interaction(&mut self, place: Place, row: &Row<'_>) -> Result<(), Problem> {
        if row.user.is_empty() {
            return Err(Problem::NoField("user id"));
        }
        let item = self.items.find(row.item).ok_or_else(|| Problem::UnknownItem(excerpt(row.item)))?;
        if let Some(least) = self.min_rating {
            let rating = row.rating.ok_or(Problem::NoField("rating"))?;
            if rating < least {
                self.rated_too_low += 1;
                return Ok(());
            }
        }
        let (user, _) = self.users.intern(row.user);
        let (Place::Line(row_number) | Place::Entry(row_number)) = place;
        let row_number = u32::try_from(row_number).unwrap_or(u32::MAX);
        self.interactions.push(Interaction { user, item, time: row.time, row: row_number });
        Ok(())
    }

    /// Begins with the interactions of `file`. Refused where ratings are asked for and it has none.
    pub(crate) fn begin_log(&mut self, file: &Path, has_ratings: bool) -> Result<(), Error> {
        if self.min_rating.is_some() && !has_ratings {
            return Err(Error::NoRatings(file.to_owned()));
        }
        file.clone_into(&mut self.log);
        Ok(())
    }

    /// Ends with the items: there have to be some.
    pub(crate) fn end_items(&self, file: &Path, expected: &'static str) -> Result<(), Error> {
        if self.texts.is_empty() {
            return Err(Error::NoRows { file: file.to_owned(), expected });
        }
        Ok(())
    }

    /// Ends with the interactions: there have to be some.
    pub(crate) fn end_log(&mut self, times: &Times, expected: &'static str) -> Result<(), Error> {
        if self.interactions.is_empty() {
            return Err(Error::NoRows { file: self.log.clone(), expected });
        }
        self.time_kind = times.kind();
        Ok(())
    }
}

/// Reads a rating.
pub(crate) fn rating(text: &str) -> Result<f64, Problem> {
    text.parse().ok().filter(|rating: &f64| rating.is_finite()).ok_or_else(|| Problem::Rating(excerpt(text)))
}

/// A text on one line: prompts and data files give every item one.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split(|letter: char| letter.is_whitespace() || letter.is_control()) {
        if !word.is_empty() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    line
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} rows", self.file, self.rows)?;
        self.encoding.iter().try_for_each(|encoding| write!(f, ", {encoding}"))
    }
}

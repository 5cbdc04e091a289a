//! Collects items and interactions from files of any format.

use std::fmt;
use std::path::{Path, PathBuf};

use podium_recsys::dataset::Location;
use serde::Serialize;

use super::encoding::Encoding;
use super::encoding_choice::Choice;
use super::ids::Ids;
use super::input::{Input, inputs};
use super::problems::ITEM_ID;
use super::rows::{Error, Problem, excerpt};
use super::skipped::Skipped;
use super::times::{Kind, Times};

/// Maximum length of a title, which limits the size of prompts.
pub(crate) const LONGEST_TITLE_BYTES: usize = 4_096;

/// An interaction of a user with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interaction {
    /// Index of the user.
    pub(crate) user: u32,
    /// Index of the item.
    pub(crate) item: u32,
    /// Its time; later times are larger.
    pub(crate) time: i64,
    /// Index of its file.
    pub(crate) log: u32,
    /// Its row in the file.
    pub(crate) row: u32,
}

/// A file of interactions, and the kind of its row locations.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) input: Input,
    pub(crate) location: fn(u64) -> Location,
}

/// Title and caption of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) title: String,
    pub(crate) caption: Option<String>,
}

/// A file, or a folder of files, that was read.
#[derive(Debug, Serialize)]
pub(crate) struct Source {
    /// Its name.
    file: String,
    /// Number of files of a folder.
    files: usize,
    /// Its encoding; `None` for a binary file.
    encoding: Option<String>,
    /// Number of usable and unusable rows.
    rows: u64,
    /// Number of rows in the fallback encoding.
    rows_in_fallback_encoding: u64,
}

/// Times that separate the parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Separation {
    /// Training ends before it; equal to `test` without a validation part.
    pub(crate) validation: i64,
    /// Training and validation end before it.
    pub(crate) test: i64,
}

/// A row of an interaction file.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) user: &'a str,
    pub(crate) item: &'a str,
    pub(crate) time: i64,
    /// `None` if the file has no ratings.
    pub(crate) rating: Option<f64>,
}

/// Options for reading rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) encoding: Choice,
    pub(crate) fallback_encoding: Option<Encoding>,
    pub(crate) min_rating: Option<f64>,
    /// Length in bytes to which longer titles are truncated; without it they are bad rows.
    pub(crate) longest_title: Option<usize>,
    pub(crate) decode_entities: bool,
    pub(crate) skip_bad_rows: bool,
    /// Whether the format is known to have gaps ([`Problem::is_gap`]): such rows are skipped and counted in any case.
    pub(crate) has_gaps: bool,
}

/// Collects rows and handles unusable ones.
#[derive(Debug)]
pub(crate) struct Collector {
    reading: Reading,
    pub(crate) skipped: Skipped,
    pub(crate) sources: Vec<Source>,
    pub(crate) items: Ids,
    /// By index of the item.
    pub(crate) texts: Vec<Text>,
    pub(crate) users: Ids,
    pub(crate) interactions: Vec<Interaction>,
    /// The files of the interactions.
    pub(crate) logs: Vec<Log>,
    /// Kind of their times; `None` if they have only an order.
    pub(crate) time_kind: Option<Kind>,
    /// The times that separate the parts, if the files have parts of their own.
    pub(crate) released: Option<Separation>,
    /// Interactions below the minimum rating.
    pub(crate) rated_too_low: u64,
    /// Items without a title.
    pub(crate) without_title: u64,
    /// Titles that were truncated.
    pub(crate) titles_cut: u64,
    /// Titles and captions with HTML entities such as `&amp;`.
    pub(crate) texts_with_entities: u64,
}

impl Collector {
    /// Creates an empty collector.
    pub(crate) fn new(reading: Reading) -> Self {
        Self {
            reading,
            skipped: Skipped::new(reading.skip_bad_rows, reading.has_gaps),
            sources: Vec::new(),
            items: Ids::default(),
            texts: Vec::new(),
            users: Ids::default(),
            interactions: Vec::new(),
            logs: Vec::new(),
            time_kind: None,
            released: None,
            rated_too_low: 0,
            without_title: 0,
            titles_cut: 0,
            texts_with_entities: 0,
        }
    }

    /// Reads all files of `paths`, in order.
    pub(crate) fn each(
        &mut self,
        paths: &[PathBuf],
        mut read: impl FnMut(&mut Self, &Input) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for path in paths {
            self.sources.push(Source::new(path));
            for input in inputs(path)? {
                read(self, &input)?;
            }
        }
        Ok(())
    }

    /// Returns the encoding of `input`; detecting it may require reading the whole file.
    pub(crate) fn encoding(&self, input: &Input) -> Result<Encoding, Error> {
        self.reading.encoding.of(input)
    }

    /// Returns the encoding of rows that are invalid in the file's encoding.
    pub(crate) const fn fallback(&self) -> Option<Encoding> {
        self.reading.fallback_encoding
    }

    /// Records a file that was read.
    pub(crate) fn read(&mut self, encoding: Option<Encoding>, rows: u64, fallen_back: u64) {
        let Some(source) = self.sources.last_mut() else { return };
        source.files += 1;
        source.rows += rows;
        source.rows_in_fallback_encoding += fallen_back;
        let Some(encoding) = encoding.map(|encoding| encoding.to_string()) else { return };
        match &mut source.encoding {
            Some(known) if known.split(", ").any(|one| one == encoding) => {}
            Some(known) => {
                known.push_str(", ");
                known.push_str(&encoding);
            }
            None => source.encoding = Some(encoding),
        }
    }

    /// Adds an item.
    pub(crate) fn item(&mut self, id: &str, title: &str, caption: Option<&str>) -> Result<(), Problem> {
        if id.is_empty() {
            return Err(Problem::NoField(ITEM_ID));
        }
        let mut title = self.text(title);
        if title.is_empty() {
            self.without_title += 1;
            return Err(Problem::EmptyTitle(excerpt(id)));
        }
        let limit = self.reading.longest_title.unwrap_or(LONGEST_TITLE_BYTES);
        let found = title.len();
        if found > limit {
            if self.reading.longest_title.is_none() {
                return Err(Problem::LongTitle { found, limit });
            }
            title.truncate((0..=limit).rfind(|&at| title.is_char_boundary(at)).unwrap_or(0));
            title.truncate(title.trim_end().len());
        }
        if !self.items.intern(id).1 {
            return Err(Problem::RepeatedItem(excerpt(id)));
        }
        self.titles_cut += u64::from(found > limit);
        let caption = caption.map(|caption| self.text(caption)).filter(|caption| !caption.is_empty());
        self.texts.push(Text { title, caption });
        Ok(())
    }

    /// Normalises a title or a caption: one line, with HTML entities decoded if requested.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let decoded = html_escape::decode_html_entities(text);
        self.texts_with_entities += u64::from(decoded != text);
        one_line(if self.reading.decode_entities { &decoded } else { text })
    }

    /// Adds an interaction.
    pub(crate) fn interaction(&mut self, location: Location, row: &Row<'_>) -> Result<(), Problem> {
        if row.user.is_empty() {
            return Err(Problem::NoField("user id"));
        }
        let item = self.items.find(row.item).ok_or_else(|| Problem::UnknownItem(excerpt(row.item)))?;
        if let Some(least) = self.reading.min_rating {
            let rating = row.rating.ok_or(Problem::NoField("rating"))?;
            if rating < least {
                self.rated_too_low += 1;
                return Ok(());
            }
        }
        let (user, _) = self.users.intern(row.user);
        let (log, row_number) = self.place(location);
        self.interactions.push(Interaction { user, item, time: row.time, log, row: row_number });
        Ok(())
    }

    /// Returns the index of the current file of interactions and the number of a row in it.
    pub(crate) fn place(&self, location: Location) -> (u32, u32) {
        let (Location::Line(row) | Location::Entry(row)) = location;
        let log = u32::try_from(self.logs.len()).unwrap_or(u32::MAX).saturating_sub(1);
        (log, u32::try_from(row).unwrap_or(u32::MAX))
    }

    /// Starts the interactions of `input`, whose rows have locations of one kind. Fails if a minimum rating is set and
    /// it has no ratings.
    pub(crate) fn begin_log(
        &mut self,
        input: &Input,
        location: fn(u64) -> Location,
        has_ratings: bool,
    ) -> Result<(), Error> {
        if self.reading.min_rating.is_some() && !has_ratings {
            return Err(Error::NoRatings(input.path.clone()));
        }
        self.logs.push(Log { input: input.clone(), location });
        Ok(())
    }

    /// Ends the items of `paths`; fails without items.
    pub(crate) fn end_items(&self, paths: &[PathBuf], expected: &'static str) -> Result<(), Error> {
        if self.texts.is_empty() {
            return Err(Error::NoRows { file: first(paths), expected });
        }
        Ok(())
    }

    /// Ends the interactions of `paths`; fails without interactions.
    pub(crate) fn end_log(
        &mut self,
        paths: &[PathBuf],
        times: &Times,
        expected: &'static str,
    ) -> Result<(), Error> {
        if self.interactions.is_empty() {
            return Err(Error::NoRows { file: first(paths), expected });
        }
        self.time_kind = times.kind();
        Ok(())
    }
}

fn first(paths: &[PathBuf]) -> PathBuf {
    paths.first().cloned().unwrap_or_default()
}

impl Source {
    fn new(path: &Path) -> Self {
        Self {
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            files: 0,
            encoding: None,
            rows: 0,
            rows_in_fallback_encoding: 0,
        }
    }
}

/// Parses a rating.
pub(crate) fn rating(text: &str) -> Result<f64, Problem> {
    text.parse().ok().filter(|rating: &f64| rating.is_finite()).ok_or_else(|| Problem::Rating(excerpt(text)))
}

/// Joins the lines of a text, since prompts and data files have one line per item.
fn one_line(text: &str) -> String {
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
        f.write_str(&self.file)?;
        if self.files != 1 {
            write!(f, ", {} files", self.files)?;
        }
        write!(f, ", {} rows", self.rows)?;
        self.encoding.iter().try_for_each(|encoding| write!(f, ", {encoding}"))?;
        if self.rows_in_fallback_encoding > 0 {
            write!(f, ", {} rows in the fallback encoding", self.rows_in_fallback_encoding)?;
        }
        Ok(())
    }
}

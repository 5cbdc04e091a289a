//! MIND, the Microsoft News data set: news, and impressions with the clicks before them.

use std::path::PathBuf;

use podium_recsys::dataset::Location;

use super::collector::{Collector, Interaction, Row};
use super::dates;
use super::header;
use super::input::Input;
use super::rows::{Error, Problem, excerpt};
use super::times::Times;

const BEHAVIOR_ROW: &str = "`impression TAB user TAB time TAB history TAB impressions` (behaviors.tsv)";
const NEWS_ROW: &str = "`news TAB category TAB subcategory TAB title TAB abstract TAB url TAB entities TAB entities` \
                        (news.tsv)";
/// Columns of `behaviors.tsv`.
const BEHAVIOR_COLUMNS: usize = 5;
/// Columns of `news.tsv`.
const NEWS_COLUMNS: usize = 8;

/// The clicks before a user's first impression, as the row of that impression lists them.
struct History {
    /// Time of the impression.
    time: i64,
    /// Index of its file and number of its row.
    place: (u32, u32),
    /// Indices of the items, oldest first.
    items: Box<[u32]>,
    /// An item that the news do not have.
    unknown: Option<String>,
}

/// Reads news and behaviors. `with_abstracts` makes abstracts captions.
pub(crate) fn read(
    collector: &mut Collector,
    behaviors_files: &[PathBuf],
    news_files: &[PathBuf],
    with_abstracts: bool,
) -> Result<(), Error> {
    collector.each(news_files, |collector, input| {
        let encoding = collector.encoding(input)?;
        header::lines(collector, input, encoding, 0, |collector, _, line| {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                [id, _, _, title, summary, ..] if fields.len() == NEWS_COLUMNS => {
                    collector.item(id.trim(), title, Some(summary).filter(|_| with_abstracts))
                }
                _ => Err(Problem::Columns { found: fields.len(), expected: NEWS_COLUMNS }),
            }
        })
    })?;
    collector.end_items(news_files, NEWS_ROW)?;

    let (mut times, mut histories) = (Times::default(), Vec::new());
    collector
        .each(behaviors_files, |collector, input| behaviors(collector, input, &mut times, &mut histories))?;
    add(collector, histories)?;
    collector.end_log(behaviors_files, &times, BEHAVIOR_ROW)
}

/// Adds the clicks on the impressions of a file, and collects each user's history, by index of the user.
fn behaviors(
    collector: &mut Collector,
    input: &Input,
    times: &mut Times,
    histories: &mut Vec<Option<History>>,
) -> Result<(), Error> {
    let encoding = collector.encoding(input)?;
    collector.begin_log(input, Location::Line, false)?;
    header::lines(collector, input, encoding, 0, |collector, location, line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [_, user, date, clicks, impressions] = fields[..] else {
            return Err(Problem::Columns { found: fields.len(), expected: BEHAVIOR_COLUMNS });
        };
        let user = user.trim();
        if user.is_empty() {
            return Err(Problem::NoField("user id"));
        }
        let time = times.read_date(date.trim(), dates::MIND)?;
        let shown: Vec<(&str, bool)> =
            impressions.split_ascii_whitespace().map(impression).collect::<Result<_, _>>()?;
        let index = collector.users.intern(user).0 as usize;
        if histories.len() <= index {
            histories.resize_with(index + 1, || None);
        }
        if histories[index].as_ref().is_none_or(|known| time < known.time) {
            histories[index] = Some(History::new(collector, time, location, clicks));
        }
        // The other clicks of a row are retained if the news lack one.
        let mut unknown = Ok(());
        for (item, _) in shown.into_iter().filter(|(_, clicked)| *clicked) {
            let added = collector.interaction(location, &Row { user, item, time, rating: None });
            unknown = unknown.and(added);
        }
        unknown
    })
}

impl History {
    fn new(collector: &Collector, time: i64, location: Location, clicks: &str) -> Self {
        let (mut items, mut unknown) = (Vec::new(), None);
        for item in clicks.split_ascii_whitespace() {
            match collector.items.find(item) {
                Some(item) => items.push(item),
                None => unknown = Some(excerpt(item)),
            }
        }
        Self { time, place: collector.place(location), items: items.into(), unknown }
    }
}

/// Adds the histories, whose clicks have an order and no times, before all clicks with a time.
fn add(collector: &mut Collector, histories: Vec<Option<History>>) -> Result<(), Error> {
    for (user, history) in (0..).zip(histories) {
        let Some(History { place: (log, row), items, unknown, .. }) = history else { continue };
        if let Some(item) = unknown {
            let input = &collector.logs[log as usize].input;
            collector.skipped.bad(input, Location::Line(row.into()), Problem::UnknownItem(item))?;
        }
        for (position, &item) in (0..).zip(&items) {
            collector.interactions.push(Interaction { user, item, time: i64::MIN + position, log, row });
        }
    }
    Ok(())
}

/// Parses `N1-0` or `N1-1`.
fn impression(text: &str) -> Result<(&str, bool), Problem> {
    match text.rsplit_once('-') {
        Some((item, "1")) => Ok((item, true)),
        Some((item, "0")) => Ok((item, false)),
        _ => Err(Problem::Impression(excerpt(text))),
    }
}

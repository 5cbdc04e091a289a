//! Parses the ranked list of a completion.

use std::collections::BTreeSet;
use std::ops::Range;

use super::form::Form;
use super::options::Layout;
use super::parsed::{Expected, Listed, ListedStatus};
use crate::ids::ItemId;

const OPEN: &str = "[ITEM_";

/// The parsed list of the answer.
pub(super) struct List<'a> {
    pub(super) ranking: Vec<Listed<'a>>,
    pub(super) defect: Option<Form>,
}

/// Parses the list in `text[answer]`; spans are relative to `text`.
pub(super) fn read<'a>(text: &'a str, answer: Range<usize>, expected: &Expected<'_>) -> List<'a> {
    let mut reader = Reader { text, expected, ranking: Vec::new(), seen: BTreeSet::new(), defect: None };
    if text[answer.clone()].trim().is_empty() {
        return List { ranking: reader.ranking, defect: Some(Form::NoList) };
    }
    match expected.options.layout {
        Layout::Ids => reader.ids(answer),
        Layout::Titled => reader.lines(answer),
    }
    reader.check_length();
    List { ranking: reader.ranking, defect: reader.defect }
}

struct Reader<'a, 'e> {
    text: &'a str,
    expected: &'e Expected<'e>,
    ranking: Vec<Listed<'a>>,
    seen: BTreeSet<ItemId>,
    defect: Option<Form>,
}

impl<'a> Reader<'a, '_> {
    /// Parses consecutive items.
    fn ids(&mut self, answer: Range<usize>) {
        let mut at = answer.start;
        while at < answer.end {
            let rest = &self.text[at..answer.end];
            let first = rest.chars().next().expect("the rest is not empty");
            if first.is_whitespace() {
                at += first.len_utf8();
            } else if let Some((item, length)) = spelled(rest) {
                self.list(item, "", at..at + length);
                at += length;
            } else {
                self.note(if rest.starts_with(OPEN) { Form::MisspelledItem } else { Form::TextOutsideList });
                // Continue at the next possible item.
                let beyond = at + first.len_utf8();
                at = self.text[beyond..answer.end].find(OPEN).map_or(answer.end, |next| beyond + next);
            }
        }
    }

    /// Parses an item and its title on each line.
    fn lines(&mut self, answer: Range<usize>) {
        let mut at = answer.start;
        for line in self.text[answer].split_inclusive('\n') {
            let entry = line.trim();
            let start = at + (line.len() - line.trim_start().len());
            at += line.len();
            if entry.is_empty() {
                continue;
            }
            let Some((item, length)) = spelled(entry) else {
                self.note(if entry.starts_with(OPEN) { Form::MisspelledItem } else { Form::TextOutsideList });
                continue;
            };
            let title = entry[length..].trim();
            if title.contains(OPEN) {
                // The layout has one item per line.
                self.note(Form::TextOutsideList);
            }
            self.list(item, title, start..start + entry.len());
        }
    }

    fn list(&mut self, item: ItemId, title: &'a str, span: Range<usize>) {
        let status = if !self.seen.insert(item) {
            ListedStatus::Repeated
        } else if self.expected.candidates.contains(&item) {
            ListedStatus::Candidate
        } else if self.expected.catalogue.contains(item) {
            ListedStatus::NotACandidate
        } else {
            ListedStatus::Invented
        };
        match status {
            ListedStatus::Candidate => {}
            ListedStatus::Repeated => self.note(Form::RepeatedItem),
            ListedStatus::NotACandidate => self.note(Form::NotACandidate),
            ListedStatus::Invented => self.note(Form::InventedItem),
        }
        self.ranking.push(Listed { item, title, span, status });
    }

    fn check_length(&mut self) {
        let asked = self.expected.options.list_length;
        if self.ranking.len() < asked {
            self.note(Form::ShortList);
        } else if self.ranking.len() > asked {
            self.note(Form::LongList);
        }
    }

    /// Records a defect; the one with the highest precedence counts.
    fn note(&mut self, form: Form) {
        self.defect = Some(self.defect.map_or(form, |noted| noted.min(form)));
    }
}

/// Parses the item at the start of `text`; returns it with the length of its spelling in bytes.
///
/// Canonical digits that overflow an id name an item of no catalogue; they are parsed as the largest id.
fn spelled(text: &str) -> Option<(ItemId, usize)> {
    let inside = text.strip_prefix(OPEN)?;
    let digits = inside.bytes().take_while(u8::is_ascii_digit).count();
    if inside.as_bytes().get(digits) != Some(&b']') {
        return None;
    }
    let number = &inside[..digits];
    if number.is_empty() || (digits > 1 && number.starts_with('0')) {
        return None;
    }
    let item = number.parse().unwrap_or(ItemId(u64::MAX));
    Some((item, OPEN.len() + digits + 1))
}

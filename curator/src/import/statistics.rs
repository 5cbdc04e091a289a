//! Statistics of an import, as a table on the terminal and as stats.json.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use podium_recsys::dataset::{BadRows, Location};
use serde::Serialize;

use super::arrange::{SameTime, Sequences};
use super::collector::Source;
use super::split::{Kind, Parts, Plan};
use super::times;
use crate::spread::Spread;

/// Statistics of an import.
#[derive(Debug, Serialize)]
pub(crate) struct Statistics {
    pub(crate) name: String,
    pub(crate) format: &'static str,
    pub(crate) sources: Vec<Source>,
    pub(crate) users: usize,
    pub(crate) items: usize,
    pub(crate) interactions: usize,
    /// Interactions per user.
    pub(crate) user_lengths: Spread,
    /// Interactions per item.
    pub(crate) item_interactions: Spread,
    pub(crate) items_without_interactions: usize,
    /// Items excluded because they have no title.
    pub(crate) titles_missing: u64,
    /// Titles with the replacement character of an earlier conversion (U+FFFD).
    pub(crate) titles_with_lost_letters: usize,
    /// Titles truncated by `--longest-title`.
    pub(crate) titles_cut: u64,
    /// Titles and captions with HTML entities such as `&amp;`, decoded or not.
    pub(crate) texts_with_entities: u64,
    pub(crate) entities_decoded: bool,
    /// Retained items without a caption.
    pub(crate) captions_missing: usize,
    /// Interactions at the same time as an earlier one of the user, in the order `same_time_order`.
    pub(crate) same_time: u64,
    /// Targets at the same time as the item before them.
    pub(crate) targets_at_same_time: usize,
    /// Order of interactions of one user at the same time.
    pub(crate) same_time_order: SameTime,
    /// Seed of that order if it is random, and of the held-out users of `--split users`.
    pub(crate) seed: u64,
    /// Users whose target is in their history.
    pub(crate) repeated_targets: usize,
    pub(crate) left_out: LeftOut,
    pub(crate) split: Split,
    /// Whether ids were replaced by new numbers.
    pub(crate) made_up_ids: MadeUpIds,
    /// Bad rows, by file and kind.
    pub(crate) skipped: BTreeMap<String, BadRows>,
}

const NANOS_A_MICRO: i64 = 1_000;

/// Counts of the users and items that the filters excluded.
#[derive(Debug, Serialize)]
pub(crate) struct LeftOut {
    pub(crate) interactions_rated_too_low: u64,
    pub(crate) users_too_short: u64,
    pub(crate) items_too_rare: u64,
}

/// Counts of the split.
#[derive(Debug, Serialize)]
pub(crate) struct Split {
    pub(crate) kind: Kind,
    pub(crate) train_users: usize,
    pub(crate) validation_users: usize,
    pub(crate) test_users: usize,
    /// For leave-one-out: test users whose sequences are too short for a training row, and for a validation row.
    pub(crate) users_without_training: Option<usize>,
    pub(crate) users_without_validation: Option<usize>,
    pub(crate) train_interactions: usize,
    /// For a split by time: the last training time, and the first target time of validation and of test. Dates are in
    /// microseconds since 1970.
    pub(crate) train_ends: Option<i64>,
    pub(crate) validation_targets_begin: Option<i64>,
    pub(crate) targets_begin: Option<i64>,
}

/// Whether ids of users and items were replaced by new numbers.
#[derive(Debug, Serialize)]
pub(crate) struct MadeUpIds {
    pub(crate) users: bool,
    pub(crate) items: bool,
}

impl Split {
    /// Computes the counts of `plan` over `sequences`, whose times are of the kind `times`.
    pub(crate) fn of(kind: Kind, times: Option<times::Kind>, plan: &Plan, sequences: &Sequences) -> Self {
        let unit = if times == Some(times::Kind::Date) { NANOS_A_MICRO } else { 1 };
        let parts = || plan.users.iter().enumerate();
        let timed = kind == Kind::Time;
        let count = |has: fn(&Parts) -> bool| plan.users.iter().filter(|parts| has(parts)).count();
        let too_short = |has: fn(&Parts) -> bool| (kind == Kind::LeaveOneOut).then(|| count(has));
        let validation_users = count(|parts| parts.validation > 0);
        let last = |user: usize, length: usize| {
            sequences.of(user)[..length].last().map(|one| one.time.div_euclid(unit))
        };
        Self {
            kind,
            train_users: count(|parts| parts.train > 0),
            validation_users,
            test_users: count(|parts| parts.test > 0),
            users_without_training: too_short(|parts| parts.train == 0 && parts.test > 0),
            users_without_validation: too_short(|parts| parts.validation == 0 && parts.test > 0)
                .filter(|_| validation_users > 0),
            train_interactions: plan.users.iter().map(|parts| parts.train).sum(),
            train_ends: parts().filter_map(|(user, parts)| last(user, parts.train)).max().filter(|_| timed),
            validation_targets_begin: parts()
                .filter_map(|(user, parts)| last(user, parts.validation))
                .min()
                .filter(|_| timed),
            targets_begin: parts().filter_map(|(user, parts)| last(user, parts.test)).min().filter(|_| timed),
        }
    }
}

/// Returns the number of targets at the same time as the item before them.
pub(crate) fn targets_at_same_time(plan: &Plan, sequences: &Sequences) -> usize {
    let tied = |(user, parts): &(usize, &Parts)| {
        let held_out = &sequences.of(*user)[..parts.test];
        matches!(held_out, [.., before, target] if before.time == target.time)
    };
    plan.users.iter().enumerate().filter(tied).count()
}

/// Returns the number of targets that are in the user's history.
pub(crate) fn repeated_targets(plan: &Plan, sequences: &Sequences) -> usize {
    let repeated = |(user, parts): &(usize, &Parts)| {
        let held_out = &sequences.of(*user)[..parts.test];
        held_out
            .split_last()
            .is_some_and(|(target, history)| history.iter().any(|one| one.item == target.item))
    };
    plan.users.iter().enumerate().filter(repeated).count()
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, value: &dyn fmt::Display| writeln!(f, "{what:<37} {value}");
        for source in &self.sources {
            line("read", source)?;
        }
        line("users", &self.users)?;
        line("items", &self.items)?;
        line("interactions", &self.interactions)?;
        line("interactions per user", &self.user_lengths)?;
        line("interactions per item", &self.item_interactions)?;
        line("items without interactions", &self.items_without_interactions)?;
        line("items without title, excluded", &self.titles_missing)?;
        line("titles with replacement characters", &self.titles_with_lost_letters)?;
        line("titles truncated", &self.titles_cut)?;
        let decoded = if self.entities_decoded { "decoded" } else { "unchanged (--decode-entities)" };
        if self.texts_with_entities > 0 {
            line("texts with HTML entities", &format!("{}, {decoded}", self.texts_with_entities))?;
        }
        line("items without caption", &self.captions_missing)?;
        line("interactions at the same time", &self.same_time)?;
        line("targets at the previous item's time", &self.targets_at_same_time)?;
        if self.same_time > 0 {
            line("order of interactions at one time", &Order(self))?;
        }
        line("targets in the user's history", &self.repeated_targets)?;
        line("excluded: rated too low", &self.left_out.interactions_rated_too_low)?;
        line("excluded: users too short", &self.left_out.users_too_short)?;
        line("excluded: items too rare", &self.left_out.items_too_rare)?;
        line("training users", &self.split.train_users)?;
        line("validation users", &self.split.validation_users)?;
        line("test users", &self.split.test_users)?;
        line("training interactions", &self.split.train_interactions)?;
        for (part, users) in [
            ("training", self.split.users_without_training),
            ("validation", self.split.users_without_validation),
        ] {
            if let Some(users) = users.filter(|users| *users > 0) {
                line(&format!("test users too short for {part}"), &users)?;
            }
        }
        if let (Some(ends), Some(begin)) = (self.split.train_ends, self.split.targets_begin) {
            line("training ends, targets begin", &format!("{ends}, {begin}"))?;
        }
        if let Some(begin) = self.split.validation_targets_begin {
            line("validation targets begin", &begin)?;
        }
        for (kind, rows) in &self.skipped {
            line("skipped", &format!("{} × {kind} ({})", rows.count, locations(rows)))?;
        }
        Ok(())
    }
}

/// Order of interactions of one user at the same time, as in `--same-time`.
struct Order<'a>(&'a Statistics);

impl fmt::Display for Order<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.same_time_order {
            SameTime::Random => write!(f, "random (seed {})", self.0.seed),
            SameTime::Item => f.write_str("by item number"),
            SameTime::File => f.write_str("as in the file"),
            SameTime::Bad => f.write_str("refused"),
        }
    }
}

fn locations(rows: &BadRows) -> String {
    let mut text = String::new();
    for (number, location) in rows.first.iter().enumerate() {
        let separator = if number == 0 { "" } else { ", " };
        let (Location::Line(at) | Location::Entry(at)) = location;
        // Writing to a String cannot fail.
        let _ = if number == 0 { write!(text, "{location}") } else { write!(text, "{separator}{at}") };
    }
    if rows.count > rows.first.len() as u64 { text + ", …" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_locations_are_listed() {
        let rows = BadRows { count: 7, first: vec![Location::Line(2), Location::Line(5)] };
        assert_eq!(locations(&rows), "line 2, 5, …");
    }
}

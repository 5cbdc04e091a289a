//! Checks the rows of a training file.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use podium_recsys::completion::{self, Form};
use podium_recsys::dataset::Split;
use podium_recsys::mixed::Row;
use podium_recsys::task::{self, Case};
use podium_recsys::{Item, ItemId, Task, User, UserId};

use super::findings::{Findings, Kind};
use crate::naming::names;
use crate::wording::{folded, says};

/// Reference data and state of the check.
pub(super) struct Rows<'a> {
    task: &'a Task,
    split: Split,
    /// Training users with their index in the file.
    trained: BTreeMap<UserId, (usize, &'a User)>,
    /// Users of validation and test, and their targets.
    held_out: BTreeMap<UserId, Vec<ItemId>>,
    held_out_cases: HashSet<(&'a [ItemId], ItemId)>,
    users_seen: HashSet<(UserId, u64)>,
    texts_seen: HashSet<blake3::Hash>,
}

impl<'a> Rows<'a> {
    /// Creates the check of rows of `task`, whose data set is separated by `split`.
    pub(super) fn new(task: &'a Task, split: Split) -> Self {
        let dataset = task.dataset();
        let users = || dataset.validation.iter().chain(&dataset.test);
        let mut held_out: BTreeMap<UserId, Vec<ItemId>> = BTreeMap::new();
        for user in users() {
            held_out.entry(user.id).or_default().push(user.target());
        }
        Self {
            task,
            split,
            trained: (0..).zip(&dataset.train).map(|(position, user)| (user.id, (position, user))).collect(),
            held_out,
            held_out_cases: users().map(|user| (dataset.history(user), user.target())).collect(),
            users_seen: HashSet::new(),
            texts_seen: HashSet::new(),
        }
    }

    /// Whether a row shows held-out data of its user: any row of a held-out user, or with a split in time a row with
    /// items after the user's training data. In the latter case a held-out target may equal the training target; a row
    /// that matches the training file is accepted.
    fn shows_held_out(&self, row: &Row) -> bool {
        let Some(targets) = self.held_out.get(&row.user) else { return false };
        let trained = self.trained.get(&row.user).filter(|_| self.split == Split::Times);
        trained.is_none_or(|(_, user)| targets.contains(&row.target) && row.target != user.target())
    }

    /// Checks the row in `line`.
    pub(super) fn look(
        &mut self,
        row: &Row,
        line: usize,
        findings: &mut Findings,
    ) -> Result<(), task::Error> {
        findings.rows += 1;
        let location = || format!("line {line}, {}", row.user);
        let mut find = |kind| findings.add(kind, location);
        if self.shows_held_out(row) {
            find(Kind::HeldOutUser);
        } else if self.held_out_cases.contains(&(row.history.as_slice(), row.target)) {
            find(Kind::HeldOutCase);
        }
        if !self.users_seen.insert((row.user, row.epoch)) {
            find(Kind::RepeatedUser);
        }
        let mut text = blake3::Hasher::new();
        for part in [&row.prompt.user, &row.completion] {
            text.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        if !self.texts_seen.insert(text.finalize()) {
            find(Kind::RepeatedText);
        }
        let Some(&(index, user)) = self.trained.get(&row.user) else {
            if !self.held_out.contains_key(&row.user) {
                find(Kind::UnknownUser);
            }
            return Ok(());
        };
        if row.target != user.target() || !row.candidates.contains(&row.target) {
            find(Kind::WrongTarget);
        }
        let distinct: BTreeSet<&ItemId> = row.candidates.iter().collect();
        let known = row.candidates.iter().any(|item| *item != row.target && user.items.contains(item));
        if known || distinct.len() < row.candidates.len() {
            find(Kind::KnownCandidate);
        }
        let case = self.task.training_case(index, row.epoch)?;
        let blocks = |text: &str| text.matches("<think>\n").count();
        if blocks(&row.prompt.user) > blocks(&case.prompt.user) {
            find(Kind::ReasoningInPrompt);
        }
        let shown = Case { candidates: row.candidates.clone(), target: row.target, ..case.clone() };
        // A row has the whole completion; the part that the chat template writes in the prompt is removed on use.
        let layout = self.task.answer().layout;
        let written = completion::after(case.thinking_start, &row.completion, layout).ok();
        match written.map(|text| self.task.grade(&shown, &text).outcome) {
            Some(outcome) if outcome.form == Form::WellFormed => {
                if outcome.scored_rank() != Some(1) {
                    find(Kind::TargetNotFirst);
                }
            }
            _ => find(Kind::MalformedCompletion),
        }
        let more = more_than(&row.prompt.user, &case.prompt.user);
        let same_case = (&row.history, &row.candidates) == (&case.history, &case.candidates);
        if !same_case || more.is_none_or(|more| !more.trim().is_empty()) {
            find(Kind::DiffersFromRunFile);
        }
        let target = self.task.dataset().catalogue.get(row.target);
        if let Some(target) = target
            && gives_away(&row.prompt.user, more, target, &row.candidates)
        {
            find(Kind::TargetGivenAway);
        }
        count_position(row, findings);
        Ok(())
    }
}

/// Counts the position of the target among the candidates.
fn count_position(row: &Row, findings: &mut Findings) {
    let Some(position) = row.candidates.iter().position(|item| *item == row.target) else { return };
    if findings.positions.len() < row.candidates.len() {
        findings.positions.resize(row.candidates.len(), 0);
    }
    findings.positions[position] += 1;
}

/// Returns the text that `text` contains in addition to `expected`, if it is `expected` with additions at one end.
fn more_than<'a>(text: &'a str, expected: &str) -> Option<&'a str> {
    text.strip_prefix(expected).or_else(|| text.strip_suffix(expected))
}

/// Whether a prompt reveals its target by text about the target only. `more`: the text outside the lists, if it can be
/// separated.
fn gives_away(prompt: &str, more: Option<&str>, target: &Item, candidates: &[ItemId]) -> bool {
    if let Some(more) = more {
        let caption = target.caption.as_deref().is_some_and(|caption| says(more, caption));
        let number = folded(more).contains(&folded(&target.id.to_string()));
        return !more.is_empty() && (caption || number || names(more, &target.title));
    }
    let mentions = |item: &ItemId| prompt.matches(&item.to_string()).count();
    let others = candidates.iter().filter(|item| **item != target.id).map(mentions).max();
    mentions(&target.id) > others.unwrap_or(0)
}

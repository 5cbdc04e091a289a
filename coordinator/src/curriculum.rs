//! The prompt of each slot: a function of the run file, the data and the slot alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use podium_grpo::GroupId;
use podium_grpo::rng::Stream;
use podium_proto::convert::Slot;
use podium_proto::v1;
use podium_recsys::ItemId;
use podium_recsys::completion::{self, Layout};
use podium_recsys::dataset::HeldOut;
use podium_recsys::diagnostics::Diagnostics;
use podium_recsys::task::{self, Case, Task};

/// Number of cached orders of epochs: the current one, and the adjacent one for a step that spans both.
const CACHED_ORDERS: usize = 2;

/// The reasons why there is no curriculum.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no training user.
    #[error("the data set has no training user with enough interactions: see data.min_interactions")]
    NoTrainingUsers,
}

/// The order of a run's training cases and of the users of its evaluated part.
#[derive(Debug)]
pub struct Curriculum {
    task: Task,
    diagnostics: Diagnostics,
    prompts_per_step: u32,
    refill_attempts: u32,
    /// The evaluated part.
    part: HeldOut,
    /// Index of the candidate lists of evaluations, and whether they are reversed.
    draw: u64,
    reversed: bool,
    orders: Mutex<BTreeMap<u64, Arc<Vec<usize>>>>,
}

impl Curriculum {
    /// Creates the curriculum of a task with this number of prompts per step and of further attempts per
    /// slot.
    pub fn new(task: Task, prompts_per_step: u32, refill_attempts: u32) -> Result<Self, Error> {
        if task.training_cases() == 0 {
            return Err(Error::NoTrainingUsers);
        }
        let diagnostics = Diagnostics::new(task.dataset());
        let orders = Mutex::default();
        Ok(Self {
            task,
            diagnostics,
            prompts_per_step,
            refill_attempts,
            part: HeldOut::Validation,
            draw: 0,
            reversed: false,
            orders,
        })
    }

    /// Selects the evaluated part, and other candidate lists for its users: another candidate sample, or reversed lists.
    #[must_use]
    pub const fn evaluating(mut self, part: HeldOut, draw: u64, reversed: bool) -> Self {
        (self.part, self.draw, self.reversed) = (part, draw, reversed);
        self
    }

    /// Returns the evaluated part.
    pub const fn part(&self) -> HeldOut {
        self.part
    }

    /// Returns the ranking task.
    pub const fn task(&self) -> &Task {
        &self.task
    }

    /// Returns the diagnostics of answers to its prompts.
    pub const fn diagnostics(&self) -> &Diagnostics {
        &self.diagnostics
    }

    /// Returns the case of a slot: training cases in the order of their epoch, users of the evaluated part in file order.
    /// A further attempt at a training slot has another case, with candidates of the same epoch.
    pub fn case(&self, slot: Slot) -> Result<Case, task::Error> {
        match slot {
            Slot::Training(id) => {
                let GroupId { step, index, .. } = id;
                let cases = self.task.training_cases() as u64;
                // A step out of range, from the network, is refused later; here it must not overflow.
                let before = step.0.saturating_mul(self.prompts_per_step.into());
                let sample = before.saturating_add(index.into());
                let (epoch, position) = (sample / cases, sample % cases);
                let first = self.order(epoch)[position as usize];
                self.task.training_case(self.after_attempts(first, id), epoch)
            }
            Slot::Evaluation { index, .. } if self.reversed => {
                self.task.reversed_held_out_case(self.part, index as usize, self.draw)
            }
            Slot::Evaluation { index, .. } => self.task.held_out_case(self.part, index as usize, self.draw),
        }
    }

    /// Returns the training case of an attempt at a slot whose first attempt had `first`. It is sampled
    /// uniformly from the cases that the slot has not had yet, or from all cases once it has had all of them.
    fn after_attempts(&self, first: usize, id: GroupId) -> usize {
        let cases = self.task.training_cases();
        let mut draws = Stream::new(self.task.seed(), "refill", &[id.step.0, id.index.into()]);
        let (mut case, mut had) = (first, BTreeSet::from([first]));
        // An attempt out of range, from the network, is refused later.
        for _ in 0..id.attempt.min(self.refill_attempts) {
            if had.len() == cases {
                had.clear();
            }
            case = draws.below((cases - had.len()) as u64) as usize;
            for &taken in &had {
                case += usize::from(case >= taken);
            }
            had.insert(case);
        }
        case
    }

    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let order = orders.entry(epoch).or_insert_with(|| Arc::new(self.task.training_order(epoch))).clone();
        while orders.len() > CACHED_ORDERS {
            orders.pop_first();
        }
        order
    }
}

/// Returns the items that answers to a case may list.
pub fn choices(task: &Task, case: &Case) -> v1::Choices {
    let answer = task.answer();
    let entry = |id: &ItemId| completion::entry(*id, &task.dataset().catalogue, answer.layout);
    v1::Choices {
        items: case.candidates.iter().map(entry).collect(),
        count: answer.list_length as u32,
        lines: answer.layout == Layout::Titled,
        after_thinking: answer.require_thinking,
    }
}

/// Returns a case's prompt as chat messages.
pub fn messages(case: &Case) -> Vec<v1::Message> {
    let message = |(role, content): (&str, &str)| v1::Message { role: role.into(), content: content.into() };
    case.prompt.messages().map(message).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use podium_config::{Override, RunFile};
    use podium_grpo::{PolicyVersion, Step};
    use podium_recsys::{Dataset, synthetic};

    use super::*;

    fn curriculum(users: u32, refill_attempts: u32) -> Curriculum {
        let set: Override = format!("world.train_users={users}").parse().unwrap();
        let file = RunFile::parse("[prompt]\ntemplate = \"compact\"", "run.toml", &[set]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        synthetic::write_data(&file.world, folder.path()).unwrap();
        let data = synthetic::data_options(&file.world, folder.path());
        let dataset = Dataset::load(folder.path(), &data).unwrap();
        let task = Task::new(dataset, &file.task(), 3, Path::new("")).unwrap();
        Curriculum::new(task, 4, refill_attempts).unwrap()
    }

    fn users(curriculum: &Curriculum, step: u64, attempts: std::ops::Range<u32>) -> Vec<String> {
        let user = |attempt| {
            let slot = Slot::Training(GroupId { step: Step(step), index: 1, attempt });
            curriculum.case(slot).unwrap().user.0.to_string()
        };
        attempts.map(user).collect()
    }

    #[test]
    fn each_attempt_at_a_slot_has_another_user_while_there_are_any() {
        let curriculum = curriculum(6, 20);
        let mut seen = BTreeSet::new();
        for step in 0..40 {
            let users = users(&curriculum, step, 0..6);
            assert_eq!(users.iter().collect::<BTreeSet<_>>().len(), 6, "step {step}: {users:?}");
            seen.insert(users);
        }
        assert!(seen.len() > 30, "{} of 40 slots go their own way", seen.len());
        assert_eq!(users(&curriculum, 0, 0..20), users(&curriculum, 0, 0..20));
    }

    #[test]
    fn another_draw_has_other_negatives_and_a_reversed_list_the_same_items() {
        let candidates = |draw, reversed| {
            let slot = Slot::Evaluation { version: PolicyVersion::START, index: 2 };
            curriculum(4, 0).evaluating(HeldOut::Test, draw, reversed).case(slot).unwrap().candidates
        };
        assert_ne!(candidates(0, false), candidates(1, false));
        let mut reversed = candidates(1, true);
        reversed.reverse();
        assert_eq!(candidates(1, false), reversed);
    }

    #[test]
    fn an_attempt_that_no_run_has_is_no_trouble() {
        let curriculum = curriculum(1, 2);
        assert_eq!(users(&curriculum, 0, 0..3).iter().collect::<BTreeSet<_>>().len(), 1);
        assert_eq!(users(&curriculum, u64::MAX, u32::MAX - 1..u32::MAX).len(), 1);
    }
}

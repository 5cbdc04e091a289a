//! Which prompt a slot stands for. A function of run file, data and slot, whoever asks and when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use podium_grpo::GroupId;
use podium_proto::convert::Slot;
use podium_proto::v1;
use podium_recsys::ItemId;
use podium_recsys::completion::{self, Layout};
use podium_recsys::task::{self, Case, Task};

/// Orders of epochs kept at hand: the one in use, and its neighbour while a step spans both.
const ORDERS_KEPT: usize = 2;

/// Why there is no curriculum.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody to train on.
    #[error("the data set has no training user with enough interactions: see data.min_interactions")]
    NoTrainingUsers,
}

/// The order in which a run goes through its data.
#[derive(Debug)]
pub struct Curriculum {
    task: Task,
    prompts_per_step: u32,
    orders: Mutex<BTreeMap<u64, Arc<Vec<usize>>>>,
}

impl Curriculum {
    /// The curriculum of a task at so many prompts a step.
    pub fn new(task: Task, prompts_per_step: u32) -> Result<Self, Error> {
        if task.dataset().train.is_empty() {
            return Err(Error::NoTrainingUsers);
        }
        Ok(Self { task, prompts_per_step, orders: Mutex::default() })
    }

    /// The ranking task.
    pub const fn task(&self) -> &Task {
        &self.task
    }

    /// The case that a slot stands for: training users in the order of their epoch, held-out users as they are.
    pub fn case(&self, slot: Slot) -> Result<Case, task::Error> {
        match slot {
            Slot::Training(GroupId { step, index }) => {
                let users = self.task.dataset().train.len() as u64;
                // A step that no run has, from the network, is refused later: here it only must not overflow.
                let before = step.0.saturating_mul(self.prompts_per_step.into());
                let sample = before.saturating_add(index.into());
                let (epoch, position) = (sample / users, sample % users);
                self.task.training_case(self.order(epoch)[position as usize], epoch)
            }
            Slot::Evaluation { index, .. } => self.task.held_out_case(index as usize, 0),
        }
    }

    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let order = orders.entry(epoch).or_insert_with(|| Arc::new(self.task.training_order(epoch))).clone();
        while orders.len() > ORDERS_KEPT {
            orders.pop_first();
        }
        order
    }
}

/// What answers to a case may list.
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

/// A case's prompt as chat messages.
pub fn messages(case: &Case) -> Vec<v1::Message> {
    let message =
        |role: &str, content: &str| v1::Message { role: role.to_owned(), content: content.to_owned() };
    let system = case.prompt.system.iter().map(|text| message("system", text));
    system.chain([message("user", &case.prompt.user)]).collect()
}

//! The request to a program: one prompt and some of its completions.

use serde::{Deserialize, Serialize};

use crate::ids::{ItemId, UserId};

/// A request. Equal requests have equal JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Identifies the request. A repeated request has the same id.
    pub id: String,
    /// Name of the term.
    pub reward: String,
    /// Lowest permitted value.
    pub min: f64,
    /// Highest permitted value.
    pub max: f64,
    /// The step, from 0.
    pub step: u64,
    /// Position of the prompt in the step's batch, from 0.
    pub index: u32,
    /// Attempt of dynamic sampling at that position, from 0.
    pub attempt: u32,
    /// The user of the data set.
    pub user: UserId,
    /// The system message of the prompt, if there is one.
    pub system: Option<String>,
    /// The user message of the prompt.
    pub prompt: String,
    /// The history in the prompt, oldest first.
    pub history: Vec<Item>,
    /// The candidates, in the order of the prompt.
    pub candidates: Vec<Item>,
    /// Id of the target, which is one of the candidates.
    pub target: ItemId,
    /// The completions, all well-formed.
    pub completions: Vec<RequestCompletion>,
}

impl Request {
    /// Returns the request as JSON on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a request is numbers, texts and lists")
    }
}

/// An item of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its id.
    pub id: ItemId,
    /// Its title.
    pub title: String,
    /// Its caption, if it has one.
    pub caption: Option<String>,
}

/// A completion of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCompletion {
    /// Its sample number in the group, from 0.
    pub index: usize,
    /// The whole text.
    pub text: String,
    /// Content of the think block; `null` without one.
    pub reasoning: Option<String>,
    /// Ids of the listed items, best first.
    pub ranking: Vec<ItemId>,
    /// Rank of the target, from 1; `null` if it is not listed.
    pub target_rank: Option<usize>,
}

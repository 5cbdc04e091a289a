//! An answer's automaton and a vocabulary together.

use std::collections::HashMap;
use std::sync::Arc;

use crate::answer::{Answer, State};
use crate::vocabulary::Vocabulary;

/// What may follow in the completions of one prompt.
#[derive(Debug)]
pub struct Constraint {
    vocabulary: Arc<Vocabulary>,
    answer: Answer,
    /// For each item and number of its bytes, whether tokens can spell the rest.
    live: Vec<Vec<bool>>,
    known: HashMap<State, Arc<[u32]>>,
}

impl Constraint {
    /// The constraint of `answer` on tokens of `vocabulary`.
    pub fn new(vocabulary: Arc<Vocabulary>, answer: Answer) -> Self {
        let live = answer.items().map(|item| vocabulary.spellable_from(item)).collect();
        Self { vocabulary, answer, live, known: HashMap::new() }
    }

    /// The state before the first token.
    pub fn start(&self) -> State {
        self.answer.start()
    }

    /// The state after one more token.
    pub fn after(&self, state: &State, token: u32) -> State {
        self.answer.after(state, self.vocabulary.text(token))
    }

    /// The tokens that may follow, ascending; `None`: all. Empty where the vocabulary has no token to go on with, which
    /// cannot be where it has a token for every byte.
    pub fn allowed(&mut self, state: &State) -> Option<Arc<[u32]>> {
        if state.is_free() {
            return None;
        }
        if state.is_end() {
            return Some(self.vocabulary.stops().clone());
        }
        if let Some(known) = self.known.get(state) {
            return Some(known.clone());
        }
        let allowed: Arc<[u32]> = self.vocabulary.leading(&self.answer, state, &self.live).into();
        self.known.insert(state.clone(), allowed.clone());
        Some(allowed)
    }
}

/// Number of tokens up to and with the one that ends a completion's reasoning; `None` where it has none, or none that
/// ends.
pub fn reasoning_end(vocabulary: &Vocabulary, answer: &Answer, token_ids: &[u32]) -> Option<usize> {
    let mut state = answer.start();
    let mut reasoning = false;
    for (token, read) in token_ids.iter().zip(1..) {
        reasoning |= state.is_reasoning();
        state = answer.after(&state, vocabulary.text(*token));
        if reasoning && state.is_in_list() {
            return Some(read);
        }
    }
    None
}

/// The completions of a prompt that are being sampled.
#[derive(Debug)]
pub struct Completions {
    constraint: Constraint,
    /// For each completion its state and after how many tokens it was reached.
    states: Vec<(State, usize)>,
}

impl Completions {
    /// `count` completions without tokens.
    pub fn new(constraint: Constraint, count: usize) -> Self {
        let states = vec![(constraint.start(), 0); count];
        Self { constraint, states }
    }

    /// The tokens that may follow `token_ids` of completion `sample`; `None`: all. A completion's tokens only ever grow.
    pub fn allowed(&mut self, sample: usize, token_ids: &[u32]) -> Option<Arc<[u32]>> {
        let (state, read) = &mut self.states[sample];
        for token in &token_ids[*read..] {
            *state = self.constraint.after(state, *token);
        }
        *read = token_ids.len();
        self.constraint.allowed(state)
    }
}

//! Combines the automaton of an answer with a vocabulary.

use std::collections::HashMap;
use std::sync::Arc;

use crate::answer::{Answer, State};
use crate::vocabulary::Vocabulary;

/// Determines the tokens that may follow in completions of one prompt.
#[derive(Debug)]
pub struct Constraint {
    vocabulary: Arc<Vocabulary>,
    answer: Answer,
    /// For each item and number of its bytes, whether tokens can spell the rest.
    live: Vec<Vec<bool>>,
    known: HashMap<State, Arc<[u32]>>,
}

impl Constraint {
    /// Constrains tokens of `vocabulary` to `answer`.
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

    /// Returns the tokens that may follow, ascending; `None` for all tokens. Empty if no token of the vocabulary can
    /// follow, which is impossible if every byte has a token.
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

/// Returns the number of tokens up to and including the token that ends the reasoning; `None` if no reasoning
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
    /// For each completion its state and the number of tokens consumed.
    states: Vec<(State, usize)>,
}

impl Completions {
    /// Creates `count` completions without tokens.
    pub fn new(constraint: Constraint, count: usize) -> Self {
        let states = vec![(constraint.start(), 0); count];
        Self { constraint, states }
    }

    /// Returns the tokens that may follow `token_ids` of completion `sample`; `None` for all tokens. The tokens of a
    /// completion may only grow between calls.
    pub fn allowed(&mut self, sample: usize, token_ids: &[u32]) -> Option<Arc<[u32]>> {
        let (state, read) = &mut self.states[sample];
        for token in &token_ids[*read..] {
            *state = self.constraint.after(state, *token);
        }
        *read = token_ids.len();
        self.constraint.allowed(state)
    }
}

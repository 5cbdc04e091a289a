//! Tokens of a policy and the bytes that they add to a text.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use crate::answer::{Answer, State};
use crate::texts::Texts;

/// The tokens of a policy. Built once per tokenizer.
#[derive(Debug)]
pub struct Vocabulary {
    /// The texts of the tokens that may be part of an answer, ascending.
    texts: Texts,
    /// Token id of each text.
    ids: Vec<u32>,
    /// Index in `texts` for every token id; `None` for tokens that add no text or end a completion.
    positions: Vec<Option<u32>>,
    /// The tokens that end a completion and add nothing to its text, ascending.
    stops: Arc<[u32]>,
}

impl Vocabulary {
    /// `texts`: for every token id the bytes that it adds to a text, `None` if it adds nothing. `stop_token_ids`: the
    /// tokens that end a completion.
    pub fn new(texts: &[Option<Vec<u8>>], stop_token_ids: &[u32]) -> Self {
        let stops: BTreeSet<u32> = stop_token_ids.iter().copied().collect();
        let mut tokens: Vec<(&[u8], u32)> = texts
            .iter()
            .zip(0..)
            .filter_map(|(text, id)| Some((text.as_deref().filter(|text| !text.is_empty())?, id)))
            .filter(|(_, id)| !stops.contains(id))
            .collect();
        tokens.sort_unstable();
        let mut positions = vec![None; texts.len()];
        for ((_, id), position) in tokens.iter().zip(0..) {
            positions[*id as usize] = Some(position);
        }
        let silent = |id: &u32| texts.get(*id as usize).is_some_and(Option::is_none);
        Self {
            texts: Texts::new(tokens.iter().map(|(text, _)| *text)),
            ids: tokens.iter().map(|(_, id)| *id).collect(),
            positions,
            stops: stops.iter().copied().filter(silent).collect(),
        }
    }

    /// The tokens that end a completion and add nothing to its text, ascending.
    pub(crate) fn stops(&self) -> &Arc<[u32]> {
        &self.stops
    }

    /// Returns the bytes that a token adds to a text; empty if it adds nothing or ends the completion.
    pub(crate) fn text(&self, token: u32) -> &[u8] {
        let position = self.positions.get(token as usize).copied().flatten();
        position.map_or(&[], |position| self.texts.get(position as usize))
    }

    /// Returns the tokens that lead `answer` from `state` to a state from which it can be completed, ascending.
    pub(crate) fn leading(&self, answer: &Answer, state: &State, live: &[Vec<bool>]) -> Vec<u32> {
        let mut found = Vec::new();
        let mut nodes: Vec<(Range<usize>, usize, State)> = vec![(0..self.texts.len(), 0, state.clone())];
        while let Some((node, depth, state)) = nodes.pop() {
            let ending = self.texts.ending(node.clone(), depth);
            if state.is_live(live) {
                found.extend_from_slice(&self.ids[ending.clone()]);
            }
            let mut rest = ending.end..node.end;
            while !rest.is_empty() {
                let byte = self.texts.get(rest.start)[depth];
                let child = self.texts.child(rest.clone(), depth, byte);
                rest.start = child.end;
                if let Some(state) = answer.step(&state, byte) {
                    nodes.push((child, depth + 1, state));
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// For each number of bytes of `text`, whether tokens can spell the rest.
    pub(crate) fn spellable_from(&self, text: &[u8]) -> Vec<bool> {
        let mut live = vec![false; text.len() + 1];
        live[text.len()] = true;
        for start in (0..text.len()).rev() {
            let mut node = 0..self.texts.len();
            for depth in 0..text.len() - start {
                node = self.texts.child(node, depth, text[start + depth]);
                if node.is_empty() {
                    break;
                }
                if live[start + depth + 1] && !self.texts.ending(node.clone(), depth + 1).is_empty() {
                    live[start] = true;
                    break;
                }
            }
        }
        live
    }
}

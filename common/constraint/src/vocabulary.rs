//! The tokens of a policy, by the bytes that they add to a text.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use crate::answer::{Answer, State};
use crate::texts::Texts;

/// The tokens of a policy. Made once for a tokenizer.
#[derive(Debug)]
pub struct Vocabulary {
    /// The texts of the tokens that may be part of an answer, ascending.
    texts: Texts,
    /// Their tokens.
    ids: Vec<u32>,
    /// Place in `texts` of every token id; none for tokens that add no text, or end a completion.
    places: Vec<Option<u32>>,
    /// The tokens that end a completion and add nothing to its text, ascending.
    stops: Arc<[u32]>,
}

impl Vocabulary {
    /// `texts`: for every token id the bytes that the token adds to a text, `None` where it adds nothing.
    /// `stop_token_ids`: the tokens that end a completion.
    pub fn new(texts: &[Option<Vec<u8>>], stop_token_ids: &[u32]) -> Self {
        let stops: BTreeSet<u32> = stop_token_ids.iter().copied().collect();
        let mut tokens: Vec<(&[u8], u32)> = texts
            .iter()
            .zip(0..)
            .filter_map(|(text, id)| Some((text.as_deref().filter(|text| !text.is_empty())?, id)))
            .filter(|(_, id)| !stops.contains(id))
            .collect();
        tokens.sort_unstable();
        let mut places = vec![None; texts.len()];
        for ((_, id), place) in tokens.iter().zip(0..) {
            places[*id as usize] = Some(place);
        }
        let silent = |id: &u32| texts.get(*id as usize).is_some_and(Option::is_none);
        Self {
            texts: Texts::new(tokens.iter().map(|(text, _)| *text)),
            ids: tokens.iter().map(|(_, id)| *id).collect(),
            places,
            stops: stops.iter().copied().filter(silent).collect(),
        }
    }

    /// The tokens that end a completion and add nothing to its text, ascending.
    pub(crate) fn stops(&self) -> &Arc<[u32]> {
        &self.stops
    }

    /// The bytes that a token adds to a text; none where it adds nothing or ends the completion.
    pub(crate) fn text(&self, token: u32) -> &[u8] {
        let place = self.places.get(token as usize).copied().flatten();
        place.map_or(&[], |place| self.texts.get(place as usize))
    }

    /// The tokens whose bytes lead `answer` from `state` to a state from which it can be finished, ascending.
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

    /// For each number of bytes of `text`, whether tokens can spell what comes after them.
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

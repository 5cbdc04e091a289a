//! Constrained answers in the tokens of Qwen3: the tokenizer's own tokens are allowed, and all samples are
//! well-formed.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use podium_constraint::{Answer, Completions, Constraint, Reasoning, Vocabulary};
use podium_grpo::rng::Stream;
use podium_recsys::completion::{self, Expected, Layout, Options, ThinkingStart};
use podium_recsys::{Catalogue, Item, ItemId};
use podium_tokenizer::Tokenizer;

use crate::reference::shared;

const CANDIDATES: usize = 100;
const ROUNDS: u64 = 40;

/// All titles of MovieLens-100K.
fn catalogue(tokenizer: &Tokenizer) -> Result<Catalogue> {
    let bytes = fs::read(shared("data/movielens-100k")?.join("u.item"))?;
    // Latin-1: every byte is the code point of its character.
    let text: String = bytes.into_iter().map(char::from).collect();
    let items = text.lines().map(|line| {
        let mut fields = line.split('|');
        let id: ItemId = fields.next().context("no id")?.parse()?;
        let title = tokenizer.normalized(fields.next().context("no title")?)?;
        Ok(Item { id, title, caption: None, interactions: 0 })
    });
    Ok(Catalogue::new(items.collect::<Result<Vec<_>>>()?))
}

#[test]
fn qwen3_spells_answers_within_the_constraint() -> Result<()> {
    let tokenizer = Tokenizer::load(&shared("qwen3-tokenizer")?)?;
    let catalogue = catalogue(&tokenizer)?;
    let began = Instant::now();
    let texts = tokenizer.token_texts()?;
    let vocabulary = Arc::new(Vocabulary::new(&texts, tokenizer.stop_token_ids()));
    eprintln!("\nQwen3's {} tokens by their bytes: {:.2?}", texts.len(), began.elapsed());

    let thinking = tokenizer.encode("<think>\nso\n</think>")?;
    let mut ids: Vec<ItemId> = catalogue.items().iter().map(|item| item.id).collect();
    let mut stream = Stream::new(1, "parity/constraint", &[]);
    let (mut sets, mut members, mut largest, began) = (0, 0, 0, Instant::now());
    for round in 0..ROUNDS {
        let layout = if round % 2 == 0 { Layout::Titled } else { Layout::Ids };
        let options = Options { list_length: 10, layout, require_thinking: true };
        stream.shuffle(&mut ids);
        let candidates = &ids[..CANDIDATES];
        let entries: Vec<String> =
            candidates.iter().map(|id| completion::entry(*id, &catalogue, layout)).collect();
        let entries = entries.iter().map(String::as_str);
        let answer = Answer::new(entries, options.list_length, layout == Layout::Titled, Reasoning::First)?;
        let mut completions = Completions::new(Constraint::new(vocabulary.clone(), answer), 2);

        let written = completion::write(Some("so"), &candidates[..10], &catalogue, layout);
        let own = tokenizer.encode(&written)?;
        for (position, token) in own.iter().enumerate() {
            if let Some(allowed) = completions.allowed(0, &own[..position]) {
                ensure!(allowed.contains(token), "token {position} of {written:?} is not allowed");
            }
        }
        let end = completions.allowed(0, &own).context("the answer continues")?;
        ensure!(*end == *tokenizer.stop_token_ids(), "after {written:?}: {end:?}");

        let mut sampled = thinking.clone();
        while !tokenizer.stop_token_ids().contains(sampled.last().context("no token")?) {
            let allowed = completions.allowed(1, &sampled).context("the answer is free")?;
            (sets, members, largest) = (sets + 1, members + allowed.len(), largest.max(allowed.len()));
            sampled.push(allowed[stream.below(allowed.len() as u64) as usize]);
        }
        let (text, _) = tokenizer.decode_with_ends(&sampled)?;
        let thinking_start = ThinkingStart::Absent;
        let expected = Expected { options: &options, candidates, catalogue: &catalogue, thinking_start };
        let form = completion::parse(&text, &expected).form;
        ensure!(form.is_well_formed(), "{form}: {text:?}");
    }
    let took = began.elapsed();
    eprintln!(
        "{sets} sets of {} tokens on average, {largest} at most; {took:.2?} with all else",
        members / sets
    );
    Ok(())
}

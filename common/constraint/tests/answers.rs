//! The constraint allows exactly the answers that the parser accepts as well-formed, in any tokenization.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::sync::Arc;

use podium_constraint::{Answer, Completions, Constraint, Error, Reasoning, Vocabulary};
use podium_recsys::completion::{self, Expected, Form, Layout, Options, ThinkingStart};
use podium_recsys::{Catalogue, Item, ItemId};
use podium_tokenizer::Tokenizer;
use proptest::prelude::*;
use serde_json::json;

/// The token that ends a completion. Smaller ids are bytes, larger ids are longer texts.
const STOP: u32 = 256;

/// A vocabulary with a token for every byte and for each of `texts`.
fn vocabulary(texts: &[Vec<u8>]) -> Arc<Vocabulary> {
    let bytes = (0..=u8::MAX).map(|byte| Some(vec![byte]));
    let texts: Vec<_> = bytes.chain([None]).chain(texts.iter().cloned().map(Some)).collect();
    Arc::new(Vocabulary::new(&texts, &[STOP]))
}

#[derive(Debug, Clone)]
struct Case {
    catalogue: Catalogue,
    candidates: Vec<ItemId>,
    options: Options,
    start: ThinkingStart,
}

impl Case {
    fn reasoning(&self) -> Reasoning {
        match self.start {
            ThinkingStart::Opened { .. } => Reasoning::First,
            ThinkingStart::Closed { .. } => Reasoning::Over,
            ThinkingStart::Absent if self.options.require_thinking => Reasoning::First,
            ThinkingStart::Absent => Reasoning::Optional,
        }
    }

    fn constraint(&self, vocabulary: &Arc<Vocabulary>) -> Constraint {
        let entry = |id: &ItemId| completion::entry(*id, &self.catalogue, self.options.layout);
        let entries: Vec<String> = self.candidates.iter().map(entry).collect();
        let lines = self.options.layout == Layout::Titled;
        let count = self.options.list_length;
        let answer = Answer::new(entries.iter().map(String::as_str), count, lines, self.reasoning()).unwrap();
        Constraint::new(vocabulary.clone(), answer)
    }

    fn form(&self, text: &str) -> Form {
        let expected = Expected {
            options: &self.options,
            candidates: &self.candidates,
            catalogue: &self.catalogue,
            thinking_start: self.start,
        };
        completion::parse(text, &expected).form
    }

    fn written(&self, thinking: Option<&str>, first: usize) -> String {
        let mut ranking = self.candidates.clone();
        ranking.rotate_left(first % self.candidates.len());
        ranking.truncate(self.options.list_length);
        let whole = completion::write(thinking, &ranking, &self.catalogue, self.options.layout);
        completion::after(self.start, &whole, self.options.layout).unwrap()
    }
}

/// Titles with shared prefixes, titles that look like items or tags, and arbitrary text.
fn title() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("The ".to_owned()),
        Just("The Matrix".to_owned()),
        Just(" (1999)".to_owned()),
        Just("[ITEM_".to_owned()),
        Just("[ITEM_3]".to_owned()),
        Just("]".to_owned()),
        Just("\"".to_owned()),
        Just("<think>".to_owned()),
        Just("</think>".to_owned()),
        Just("\n".to_owned()),
        Just("\r\u{2028}".to_owned()),
        Just("é日本\u{200F}👍".to_owned()),
        ".{0,6}",
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

fn case() -> impl Strategy<Value = Case> {
    let titles = prop::collection::btree_map(0..130_u64, title(), 1..9);
    let prompt = prop::sample::select(vec!["", "<think>", "<think>\n", "<think>\n\n</think>\n\n"]);
    (titles, any::<prop::sample::Index>(), any::<bool>(), any::<bool>(), prompt).prop_map(
        |(titles, length, titled, require_thinking, prompt)| {
            let start = ThinkingStart::of(prompt);
            let require_thinking = require_thinking && !start.is_closed();
            let item =
                |(id, title): (u64, String)| Item { id: ItemId(id), title, caption: None, interactions: 0 };
            let candidates: Vec<ItemId> = titles.keys().copied().map(ItemId).collect();
            let layout = if titled { Layout::Titled } else { Layout::Ids };
            let list_length = 1 + length.index(candidates.len());
            let options = Options { list_length, layout, require_thinking };
            Case { catalogue: Catalogue::new(titles.into_iter().map(item)), candidates, options, start }
        },
    )
}

/// Pieces of valid answers, so that tokens cross all boundaries in them.
fn pieces(case: &Case, cuts: &[(prop::sample::Index, usize)]) -> Vec<Vec<u8>> {
    let thinking = (!case.start.is_closed()).then_some("so");
    let text = format!("{}\n{}", case.written(thinking, 0), case.written(None, 1));
    let cut = |(start, length): &(prop::sample::Index, usize)| {
        let start = start.index(text.len());
        text.as_bytes()[start..text.len().min(start + length)].to_vec()
    };
    cuts.iter().map(cut).collect()
}

fn bytes_of(token: u32, pieces: &[Vec<u8>]) -> Vec<u8> {
    match token {
        STOP => Vec::new(),
        byte if byte < STOP => vec![byte as u8],
        piece => pieces[piece as usize - 257].clone(),
    }
}

proptest! {
    #[test]
    fn every_sampled_answer_is_well_formed(
        case in case(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 1..12_usize), 0..40),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 1..50),
    ) {
        let pieces = pieces(&case, &cuts);
        let mut completions = Completions::new(case.constraint(&vocabulary(&pieces)), 1);
        let mut tokens: Vec<u32> = match (case.start, case.reasoning()) {
            (ThinkingStart::Absent, Reasoning::First) => b"<think>so</think>".map(u32::from).to_vec(),
            _ => Vec::new(),
        };
        let mut choices = choices.iter().cycle();
        while tokens.last() != Some(&STOP) {
            // Only the reasoning is unconstrained; it has to end at some point.
            let closing: Vec<u32> = b"x</think>".map(u32::from).to_vec();
            match completions.allowed(0, &tokens) {
                None => tokens.extend(closing),
                Some(allowed) => {
                    prop_assert!(allowed.is_sorted() && !allowed.is_empty());
                    tokens.push(allowed[choices.next().unwrap().index(allowed.len())]);
                }
            }
            prop_assert!(tokens.len() < 10_000, "an answer ends");
        }
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| bytes_of(*token, &pieces)).collect();
        let text = String::from_utf8(bytes).unwrap();
        prop_assert_eq!(case.form(&text), Form::WellFormed, "{:?}", text);
    }

    #[test]
    fn every_written_answer_is_allowed_in_any_tokenization(
        case in case(),
        first in 0..9_usize,
        thinking: bool,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 1..12_usize), 0..40),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 1..50),
    ) {
        let pieces = pieces(&case, &cuts);
        let thinking = (thinking || case.options.require_thinking) && !case.start.is_closed();
        let thinking = thinking.then_some("so it is");
        let text = case.written(thinking, first);
        prop_assert_eq!(case.form(&text), Form::WellFormed);
        let mut completions = Completions::new(case.constraint(&vocabulary(&pieces)), 1);
        let (mut tokens, mut rest) = (Vec::new(), text.as_bytes());
        let mut choices = choices.iter().cycle();
        while !rest.is_empty() {
            let fitting: Vec<u32> = (0..257 + pieces.len() as u32)
                .filter(|token| *token != STOP && rest.starts_with(&bytes_of(*token, &pieces)))
                .collect();
            let token = fitting[choices.next().unwrap().index(fitting.len())];
            if let Some(allowed) = completions.allowed(0, &tokens) {
                prop_assert!(allowed.contains(&token), "{:?} at {:?}", token, String::from_utf8_lossy(rest));
            }
            rest = &rest[bytes_of(token, &pieces).len()..];
            tokens.push(token);
        }
        prop_assert_eq!(&*completions.allowed(0, &tokens).unwrap(), &[STOP]);
    }
}

fn items(texts: &[&str]) -> Constraint {
    let answer = Answer::new(texts.iter().copied(), 2, false, Reasoning::First).unwrap();
    Constraint::new(vocabulary(&[b">[".to_vec(), b">!".to_vec(), b"]".to_vec()]), answer)
}

#[test]
fn reasoning_is_unconstrained_until_its_closing_tag() {
    let mut constraint = items(&["[1]", "[2]"]);
    let read = |constraint: &Constraint, text: &[u8]| {
        text.iter().fold(constraint.start(), |state, byte| constraint.after(&state, u32::from(*byte)))
    };
    for free in ["", "<think>[1]", "<think></think", "<</thin</thin", "[1][2]"] {
        let state = read(&constraint, free.as_bytes());
        assert_eq!(constraint.allowed(&state), None, "{free:?}");
    }
    let begins: Vec<u32> = [b'\n', b' ', b'['].map(u32::from).to_vec();
    for closed in ["<think>a</think>", "</think>", "<<</think>"] {
        let state = read(&constraint, closed.as_bytes());
        assert_eq!(*constraint.allowed(&state).unwrap(), begins, "{closed:?}");
    }
    // A token may close the reasoning and continue. A text that no answer starts with is invalid and unconstrained
    // again.
    let almost = read(&constraint, b"<think></think");
    let begun = constraint.after(&almost, 257);
    assert_eq!(*constraint.allowed(&begun).unwrap(), [u32::from(b'1'), u32::from(b'2')]);
    let lost = constraint.after(&almost, 258);
    assert_eq!(constraint.allowed(&lost), None);
}

#[test]
fn word_tokens_lead_to_no_dead_end() {
    let words = [" [1]", " [2]", " [3]", " a", " b", " </think>"];
    let texts: Vec<_> = words.iter().map(|word| Some(word.as_bytes().to_vec())).chain([None]).collect();
    let vocabulary = Arc::new(Vocabulary::new(&texts, &[6]));
    let answer =
        |items: &[&str], lines| Answer::new(items.iter().copied(), 2, lines, Reasoning::First).unwrap();
    let allowed = |answer, tokens: &[u32]| {
        Completions::new(Constraint::new(vocabulary.clone(), answer), 1).allowed(0, tokens).unwrap().to_vec()
    };
    let titled = ["[1] a", "[2] b a", "[3] c"];
    assert_eq!(allowed(answer(&titled, false), &[5]), [0, 1], "no word spells the third title");
    assert_eq!(allowed(answer(&titled, false), &[5, 1]), [4]);
    assert_eq!(allowed(answer(&titled, false), &[5, 1, 4, 3]), [0]);
    assert_eq!(allowed(answer(&titled, false), &[5, 1, 4, 3, 0, 3]), [6]);
    assert_eq!(allowed(answer(&titled, true), &[5, 0, 3]), [0_u32; 0], "no token ends a line");
}

#[test]
fn items_that_cannot_be_listed_are_rejected() {
    let refused = |items: &[&str], count| {
        Answer::new(items.iter().copied(), count, true, Reasoning::First).unwrap_err()
    };
    assert_eq!(refused(&["a"], 0), Error::Count { count: 0, items: 1 });
    assert_eq!(refused(&["a"], 2), Error::Count { count: 2, items: 1 });
    assert!(matches!(refused(&["ab", "b", "a"], 1), Error::Beginning { text } if text == "a"));
    assert!(matches!(refused(&["a", "a"], 1), Error::Beginning { .. }));
    for text in ["", " a", "\na", "<b>", "a</think>", "a\nb"] {
        assert!(matches!(refused(&["c", text], 1), Error::Item { text: named, .. } if named == text));
    }
}

/// A normalising byte-level tokenizer with merges across item boundaries. Its think tags are special tokens.
fn tokenizer() -> Tokenizer {
    let letters: Vec<char> = (0..256_u32).map(letter).collect();
    let mut vocabulary: Vec<String> = letters.iter().map(char::to_string).collect();
    let mut merges = Vec::new();
    for pair in [
        ("[", "I"),
        ("[I", "T"),
        ("E", "M"),
        ("[IT", "EM"),
        ("]", "Ċ"),
        ("]Ċ", "["),
        ("Ċ", "Ċ"),
        ("t", "h"),
        ("Ġ", "T"),
    ] {
        vocabulary.push(format!("{}{}", pair.0, pair.1));
        merges.push(json!([pair.0, pair.1]));
    }
    let end = vocabulary.len();
    let added = |id: usize, content: &str, special: bool| {
        json!({"id": id, "content": content, "special": special, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false})
    };
    let vocabulary: serde_json::Map<_, _> =
        vocabulary.into_iter().zip(0..).map(|(text, id)| (text, json!(id))).collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let file = json!({
        "version": "1.0",
        "added_tokens": [added(end, "<end>", true), added(end + 1, "<think>", true), added(end + 2, "</think>", true)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    });
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    let settings = json!({"eos_token": "<end>"}).to_string();
    fs::write(folder.path().join("tokenizer_config.json"), settings).unwrap();
    Tokenizer::load(folder.path()).unwrap()
}

/// The character of a byte in byte-level vocabularies.
fn letter(byte: u32) -> char {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let code = if printable(&byte) {
        byte
    } else {
        256 + (0..byte).filter(|other| !printable(other)).count() as u32
    };
    char::from_u32(code).unwrap()
}

#[test]
fn the_tokenization_of_the_tokenizer_is_allowed() {
    let tokenizer = tokenizer();
    let titles = ["The thé\u{301}", "The", "日本 (1954)", "e\u{301}", "\"[x]\" & co."];
    let item = |(title, id): (&str, u64)| Item {
        id: ItemId(id),
        title: tokenizer.normalized(title).unwrap(),
        caption: None,
        interactions: 0,
    };
    let catalogue = Catalogue::new(titles.into_iter().zip(9..).map(item));
    let candidates: Vec<ItemId> = (9..14).map(ItemId).collect();
    let texts = tokenizer.token_texts().unwrap();
    let vocabulary = Arc::new(Vocabulary::new(&texts, tokenizer.stop_token_ids()));
    for layout in [Layout::Ids, Layout::Titled] {
        let options = Options { list_length: 4, layout, require_thinking: true };
        let start = ThinkingStart::Absent;
        let case = Case { catalogue: catalogue.clone(), candidates: candidates.clone(), options, start };
        for first in 0..5 {
            let text = case.written(Some("so"), first);
            let tokens = tokenizer.encode(&text).unwrap();
            assert!(tokens.len() < text.len(), "some tokens are longer than a byte");
            let mut completions = Completions::new(case.constraint(&vocabulary), 1);
            let mut restricted = 0;
            for length in 0..tokens.len() {
                if let Some(allowed) = completions.allowed(0, &tokens[..length]) {
                    restricted += 1;
                    assert!(allowed.contains(&tokens[length]), "{text:?}");
                }
            }
            assert!(restricted > 4);
            assert_eq!(&*completions.allowed(0, &tokens).unwrap(), tokenizer.stop_token_ids());
            assert_eq!(tokenizer.decode_with_ends(&tokens).unwrap().0, text);
        }
    }
}

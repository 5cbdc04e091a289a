//! The real tokenizer and chat template of Qwen3: the same ids and the same text as Transformers.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use podium_tests::{path_text, rows};
use podium_tokenizer::{Message, Tokenizer, Variables};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::reference::{self, repository, shared};

/// A text's tokens by Transformers.
#[derive(Deserialize)]
struct Encoded {
    text: String,
    ids: Vec<u32>,
    decoded: String,
    without_special: String,
    /// Text of the first half of the ids.
    half: String,
}

/// A conversation's text and tokens by Transformers.
#[derive(Deserialize)]
struct Chat {
    messages: Vec<Message>,
    variables: Map<String, Value>,
    text: String,
    ids: Vec<u32>,
}

/// The beginning of a text that may be long.
fn beginning(text: &str) -> String {
    format!("{:?} ({} bytes)", text.chars().take(80).collect::<String>(), text.len())
}

#[test]
fn qwen3_texts_and_conversations_become_the_same_tokens() -> Result<()> {
    let (folder, qwen3) = (tempfile::tempdir()?, shared("qwen3-tokenizer")?);
    let (texts, chats) = (folder.path().join("texts.jsonl"), folder.path().join("chats.jsonl"));
    let movielens = shared("data/movielens-100k")?;
    let paths = ["--tokenizer", path_text(&qwen3), "--movielens", path_text(&movielens)];
    let files = ["--texts", path_text(&texts), "--chats", path_text(&chats)];
    reference::run(&repository().join("tests/parity/tokenization.py"), &[paths, files].concat())?;

    let tokenizer = Tokenizer::load(&qwen3)?;
    let stop_token_ids = tokenizer.stop_token_ids();
    ensure!(stop_token_ids == [151_643, 151_645], "stop tokens: {stop_token_ids:?}");
    let mut failures = Vec::new();
    let mut seen = HashSet::new();
    for row in rows(&texts)? {
        let row: Encoded = serde_json::from_value(row)?;
        let half = &row.ids[..row.ids.len() / 2];
        for (what, same) in [
            ("encoded", tokenizer.encode(&row.text)? == row.ids),
            ("decoded", tokenizer.decode(&row.ids, false)? == row.decoded),
            ("decoded without special tokens", tokenizer.decode(&row.ids, true)? == row.without_special),
            ("half decoded", tokenizer.decode(half, false)? == row.half),
        ] {
            if !same {
                failures.push(format!("{what}: {}", beginning(&row.text)));
            }
        }
        seen.insert(row.text);
    }
    let conversations = rows(&chats)?;
    for row in &conversations {
        let chat: Chat = serde_json::from_value(row.clone())?;
        let variables = Variables { extra: chat.variables, ..Variables::default() };
        let rendered = tokenizer.render(&chat.messages, &variables)?;
        if rendered != chat.text || tokenizer.encode_chat(&chat.messages, &variables)? != chat.ids {
            failures.push(format!("rendered: {rendered:?}, expected {:?}", chat.text));
        }
    }
    eprintln!("\nQwen3's tokenizer: {} texts and {} conversations compared", seen.len(), conversations.len());
    ensure!(seen.len() >= 2000, "{} different texts, expected at least 2000", seen.len());
    ensure!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

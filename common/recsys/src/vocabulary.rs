//! Tokenizers with one token a word and one token an item, in the files that Hugging Face tokenizers have: for small
//! policies that are trained from random weights.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::dataset;
use crate::dataset::write::{file, pretty};
use crate::ids::ItemId;

/// Tokens that are cut out of a text before words are, with whether decoding leaves them out.
const ADDED: [(&str, bool); 5] = [
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<think>", false),
    ("</think>", false),
];
/// Id of the token that ends a turn of a chat.
pub const END_OF_TURN: u32 = 2;
/// Id of the token that fills batches up, and ends a text.
pub const PADDING: u32 = 0;
const UNKNOWN: &str = "<unk>";
/// Words of the chat template and of the prompts `compact` and `ids`.
const WORDS: [&str; 5] = ["system", "user", "assistant", "history", "candidates"];
/// Like Qwen3's, without tools.
const CHAT_TEMPLATE: &str = include_str!("../templates/chatml.jinja");

/// All tokens: those of chats and prompts, `words`, and one for each of `items`. A token's id is its place. White space
/// separates words and is not kept.
pub fn tokens<'a>(
    words: impl IntoIterator<Item = &'a str>,
    items: impl IntoIterator<Item = ItemId>,
) -> Vec<String> {
    let added = ADDED.iter().map(|&(token, _)| token);
    let words = added.chain([UNKNOWN]).chain(WORDS).chain(words).map(str::to_owned);
    words.chain(items.into_iter().map(|id| id.to_string())).collect()
}

/// Writes `tokenizer.json`, `tokenizer_config.json` and `generation_config.json` of [`tokens`] into the folder `dir`,
/// which is made if need be, byte for byte the same each time.
pub fn write(tokens: Vec<String>, dir: &Path) -> Result<(), dataset::Error> {
    let vocabulary: Map<String, Value> =
        (0..).zip(tokens).map(|(id, token): (u64, String)| (token, json!(id))).collect();
    let added: Vec<Value> = (0..)
        .zip(ADDED)
        .map(|(id, (content, special)): (u64, _)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            })
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": UNKNOWN },
    });
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": null,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": UNKNOWN,
        "clean_up_tokenization_spaces": false,
        "chat_template": CHAT_TEMPLATE,
    });
    let generation = json!({ "eos_token_id": [END_OF_TURN, PADDING], "pad_token_id": PADDING });
    std::fs::create_dir_all(dir).map_err(|source| dataset::Error::Io {
        action: "make",
        path: dir.to_path_buf(),
        source,
    })?;
    for (name, content) in [
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", config),
        ("generation_config.json", generation),
    ] {
        file(&dir.join(name), pretty(&content).as_bytes())?;
    }
    Ok(())
}

//! Writes tokenizers with one token for each word and each item, as Hugging Face tokenizer files. Small
//! policies that are trained from random weights use them.

use std::path::Path;

use podium_files::durable;
use serde_json::{Map, Value, json};

use crate::configuration::{GENERATION_CONFIG, TOKENIZER, TOKENIZER_CONFIG};
use crate::error::Error;

/// Tokens that are split off before words, and whether decoding omits them.
const ADDED: [(&str, bool); 5] = [
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<think>", false),
    ("</think>", false),
];
/// Id of the token that ends a turn of a chat.
pub const END_OF_TURN: u32 = 2;
/// Id of the token that pads batches and ends a text.
pub const PADDING: u32 = 0;
const UNKNOWN: &str = "<unk>";
/// Words of the chat template and of the prompts `compact` and `ids`.
const WORDS: [&str; 5] = ["system", "user", "assistant", "history", "candidates"];
/// Qwen3's template without tools.
const CHAT_TEMPLATE: &str = include_str!("../templates/chatml.jinja");

/// Returns all tokens: those of chats and prompts, then `words`. A token's id is its index. White space separates words
/// and is not stored.
pub fn tokens(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let added = ADDED.iter().map(|&(token, _)| token);
    added.chain([UNKNOWN]).chain(WORDS).map(str::to_owned).chain(words).collect()
}

/// Writes `tokenizer.json`, `tokenizer_config.json` and `generation_config.json` of [`tokens`] into the
/// folder `dir`, which is created if necessary. The bytes are a function of the tokens.
pub fn write(tokens: Vec<String>, dir: &Path) -> Result<(), Error> {
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
    durable::create_folder(dir)?;
    for (name, content) in
        [(TOKENIZER, tokenizer), (TOKENIZER_CONFIG, config), (GENERATION_CONFIG, generation)]
    {
        durable::write(&dir.join(name), format!("{content:#}\n").as_bytes())?;
    }
    Ok(())
}

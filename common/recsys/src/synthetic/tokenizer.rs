//! The embedded policy's tokenizer: one token a word, one token an item, in the files that Hugging Face tokenizers have.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::universe::{LOOKS, THEMES};
use super::{Error, World, write_files};
use crate::dataset::write::pretty;
use crate::ids::ItemId;

/// Tokens that are cut out of a text before words are, with whether decoding leaves them out.
const ADDED: [(&str, bool); 5] = [
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<think>", false),
    ("</think>", false),
];
const UNKNOWN: &str = "<unk>";
/// Words of the chat template and of the compact prompt.
const WORDS: [&str; 5] = ["system", "user", "assistant", "history", "candidates"];
/// Like Qwen3's, without tools.
const CHAT_TEMPLATE: &str = include_str!("../../templates/chatml.jinja");

/// All tokens; a token's id is its place. White space separates words and is not kept.
pub fn vocabulary(world: &World) -> Vec<String> {
    let added = ADDED.iter().map(|&(token, _)| token);
    let looks = LOOKS.iter().copied().take(world.looks);
    let themes = THEMES.iter().copied().take(world.themes);
    let words = added.chain([UNKNOWN]).chain(WORDS).chain(looks).chain(themes).map(str::to_owned);
    let items = (0..world.items() as u64).map(|id| ItemId(id).to_string());
    words.chain(items).collect()
}

/// Writes `tokenizer.json`, `tokenizer_config.json` and `generation_config.json` into `dir`, byte for byte the same
/// each time.
pub fn write_tokenizer(world: &World, dir: &Path) -> Result<(), Error> {
    world.check()?;
    let vocabulary: Map<String, Value> =
        (0..).zip(vocabulary(world)).map(|(id, token): (u64, String)| (token, json!(id))).collect();
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
    let generation = json!({ "eos_token_id": [2, 0], "pad_token_id": 0 });
    write_files(
        dir,
        &[
            ("tokenizer.json", pretty(&tokenizer)),
            ("tokenizer_config.json", pretty(&config)),
            ("generation_config.json", pretty(&generation)),
        ],
    )
}

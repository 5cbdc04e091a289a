//! Reads the tokenizer of the embedded policy with the tokenizers library.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use podium_recsys::synthetic::{self, World};
use podium_tokenizer::word_level;
use tokenizers::Tokenizer;

#[test]
fn prompts_and_completions_survive_the_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let vocabulary = word_level::tokens(synthetic::words(&World::default()).unwrap());
    word_level::write(vocabulary.clone(), dir.path()).unwrap();
    let tokenizer = Tokenizer::from_file(dir.path().join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.get_vocab_size(true), vocabulary.len());

    let text = "<|im_start|>user\nhistory [ITEM_3] crimson desert candidates [ITEM_95]<|im_end|>\n<|im_start|>assistant\n";
    let tokens = tokenizer.encode(text, false).unwrap();
    assert_eq!(
        tokens.get_tokens(),
        [
            "<|im_start|>",
            "user",
            "history",
            "[ITEM_3]",
            "crimson",
            "desert",
            "candidates",
            "[ITEM_95]",
            "<|im_end|>",
            "<|im_start|>",
            "assistant"
        ]
    );
    for (&id, token) in tokens.get_ids().iter().zip(tokens.get_tokens()) {
        assert_eq!(&vocabulary[id as usize], token);
    }

    let completion = "<think> crimson desert </think> [ITEM_3] [ITEM_95] [ITEM_0]";
    let ids: Vec<u32> =
        tokenizer.encode(format!("{completion}<|im_end|>"), false).unwrap().get_ids().to_vec();
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), completion);
    assert_eq!(tokenizer.encode("elsewhere", false).unwrap().get_tokens(), ["<unk>"]);
}

#[test]
fn the_same_words_give_the_same_bytes() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for folder in &folders {
        // The folder is created if it is missing.
        word_level::write(word_level::tokens(["new".to_owned()]), &folder.path().join("policy")).unwrap();
    }
    let read = |index: usize, name: &str| std::fs::read(folders[index].path().join("policy").join(name));
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        assert_eq!(read(0, name).unwrap(), read(1, name).unwrap(), "{name}");
    }
}

//! The files of a tokenizer, separated by zero bytes; an empty part is a missing file.
#![no_main]

use std::sync::LazyLock;
use std::{fs, panic};

use libfuzzer_sys::fuzz_target;
use podium_tokenizer::{Message, Tokenizer, Variables};
use tempfile::TempDir;

const FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder for the files"));

/// Leaves panics in libraries to the crate, which converts them to errors; all others abort. A panic that cannot unwind
/// aborts after this: the log then ends with its message.
static PANICS: LazyLock<()> = LazyLock::new(|| {
    let end = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let file = info.location().map_or("", |location| location.file());
        if file.contains("/registry/") || file.starts_with("/rustc/") {
            eprintln!("a library panicked: {info}");
        } else {
            end(info);
        }
    }));
});

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&PANICS);
    let mut parts = bytes.split(|byte| *byte == 0);
    for name in FILES {
        let path = FOLDER.path().join(name);
        match parts.next() {
            None | Some([]) => _ = fs::remove_file(path),
            Some(part) => fs::write(path, part).expect("a file is written"),
        }
    }
    let Ok(tokenizer) = Tokenizer::load(FOLDER.path()) else { return };
    if let Ok(ids) = tokenizer.encode("Red, red\u{301} 1234 <end> \u{1f600}") {
        assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        let _ = tokenizer.decode(&ids, true);
    }
    let _ = tokenizer.decode(&[0, 1, 5, u32::MAX], false);
    let messages = [Message::new("system", "Rank."), Message::new("user", "<b>red\n</b>")];
    let variables = Variables { add_generation_prompt: true, ..Variables::default() };
    let _ = tokenizer.encode_chat(&messages, &variables);
});

//! The endpoint's key is sent, and occurs nowhere else.

use std::path::Path;

use crate::captions::caption_of;
use crate::server::{Conduct, Server};
use crate::shop::{KEY, KEY_VARIABLE, Shop, run};

#[test]
fn the_key_is_in_no_store_log_or_output() {
    let shop = Shop::new();
    // An endpoint that quotes the key in errors and in an answer.
    let server = Server::start(
        |body| format!("{} {KEY}", caption_of(body)),
        |_, before, total| match (before, total % 3) {
            (0, 0) => Conduct::Status(500, "you sent KEY"),
            (_, 1) if before < 3 => Conduct::Status(400, "you sent KEY"),
            _ => Conduct::Answer,
        },
    );
    let mut command = shop.asking(&server, &["caption"]);
    command.env("PODIUM_LOG", "trace");
    let ended = run(command).expect(1);
    assert!(ended.output.contains("400 Bad Request: you sent Bearer [key]"), "{}", ended.output);
    for text in [&ended.output, &ended.logs] {
        assert!(!text.contains(KEY), "{text}");
    }
    let mut files = 0;
    search(shop.path(), &mut files);
    assert!(files > 40, "the whole folder was searched");
    assert!(shop.read("shop_captions.json").contains("[key]"));

    // Without a key in the environment none is sent.
    let server = Server::start(caption_of, |_, _, _| Conduct::Status(401, "key: KEY"));
    let mut command = shop.asking(&server, &["caption", "--corrections", "0"]);
    command.env_remove(KEY_VARIABLE);
    assert!(run(command).expect(1).logs.contains("key: none"));
}

#[test]
fn a_placeholder_key_is_not_hidden_in_replies() {
    let shop = Shop::new();
    for word in ["1", "EMPTY", "role"] {
        let server = Server::start(|body| format!("EMPTY {}", caption_of(body)), |_, _, _| Conduct::Answer);
        let store = shop.file(&format!("{word}.redb"));
        let mut command = shop.asking(&server, &["caption", "--store", store.to_str().unwrap()]);
        command.env(KEY_VARIABLE, word);
        let ended = run(command).expect(0);
        assert!(ended.output.contains("40 asked, 0 from the store, 0 repeated"), "{word}: {}", ended.output);
        for entry in shop.json("shop_captions.json").as_object().unwrap().values() {
            assert!(entry["caption"].as_str().unwrap().starts_with("EMPTY Something"), "{word}: {entry}");
        }
    }
}

fn search(folder: &Path, files: &mut usize) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, files);
        } else {
            *files += 1;
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

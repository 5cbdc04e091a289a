//! Existing files are preserved: outputs of earlier runs, entries of others, models and data sets.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::captions::{caption_of, picture_of};
use crate::reasoning::{answer, assessed, caption, captioned, steps};
use crate::server::{Conduct, Server, words};
use crate::shop::{Ended, ITEMS, Shop, USERS, items_of, run, title};

#[test]
fn a_run_without_successes_preserves_existing_files() {
    let (shop, _server) = assessed();
    let outputs: [(&[&str], &str); 3] = [
        (&["reason", "--from", "images"], "shop_reasoning_images"),
        (&["refine"], "shop_reasoning_refined"),
        (&["assess"], "shop_assessment"),
    ];
    for (arguments, output) in outputs {
        let before = shop.read(&format!("{output}.json"));
        for status in [301, 400, 403, 405] {
            let server = Server::start(answer, move |_, _, _| Conduct::Status(status, "no"));
            let store = shop.file(&format!("{status}.redb"));
            let arguments = [arguments, &["--store", store.to_str().unwrap()]].concat();
            let ended = run(shop.asking(&server, &arguments)).expect(1);
            assert!(!ended.output.contains("wrote"), "{}", ended.output);
            assert_eq!(shop.read(&format!("{output}.json")), before, "{status}");
        }
        let failures = shop.json(&format!("{output}.failures.json"));
        assert_eq!(failures.as_array().unwrap().len() as u64, USERS, "status 400 is of one request");
    }
}

#[test]
fn failed_users_keep_their_existing_reasoning() {
    let shop = captioned();
    let row = |user: u64| json!({ "user_id": user, "reasoning": steps(&format!("old {user}")) });
    let old: Value = (1..=USERS).map(row).collect();
    let commands: [(&[&str], &str); 2] = [
        (&["reason", "--from", "captions"], "shop_reasoning_captions.json"),
        (&["refine", "--draft", "DRAFT"], "shop_reasoning_refined.json"),
    ];
    for (arguments, output) in commands {
        shop.write(output, old.to_string());
        shop.write("drafts.json", old.to_string());
        let draft = shop.file("drafts.json");
        let arguments: Vec<&str> = arguments
            .iter()
            .map(|&text| if text == "DRAFT" { draft.to_str().unwrap() } else { text })
            .collect();
        let of_third = caption(items_of(3)[0]);
        let server = Server::start(answer, move |body, _, _| {
            // Only the third user has this item first.
            let words = words(body);
            if words.contains(&format!("\n1. {of_third}")) || words.contains(&format!("— {of_third}\n2.")) {
                Conduct::Status(400, "not this one")
            } else {
                Conduct::Answer
            }
        });
        let ended = run(shop.asking(&server, &arguments)).expect(1);
        assert!(ended.output.contains("failed: user 3:"), "{}", ended.output);
        let rows = shop.json(output);
        assert_eq!(rows.as_array().unwrap().len() as u64, USERS);
        for (user, row) in (1_u64..).zip(rows.as_array().unwrap()) {
            assert_eq!(row["user_id"], user);
            assert_eq!(row["reasoning"] == steps(&format!("old {user}")), user == 3, "user {user}: {row}");
        }
    }
}

#[test]
fn the_captions_file_preserves_other_entries() {
    let shop = Shop::new();
    let old = json!({
        "999": { "title": "Elsewhere", "caption": "of another shop" },
        "3": { "title": "Mine", "caption": "old", "source": "by hand" },
        "4": { "title": title(4), "caption": "old too" },
    });
    shop.write("shop_captions.json", old.to_string());
    let server = Server::start(caption_of, |body, _, _| {
        if body.to_string().contains(&picture_of(4)) {
            Conduct::Status(400, "not this one")
        } else {
            Conduct::Answer
        }
    });
    run(shop.asking(&server, &["caption"])).expect(1);
    let captions = shop.json("shop_captions.json");
    assert_eq!(captions.as_object().unwrap().len() as u64, ITEMS + 1);
    assert_eq!(captions["999"], old["999"]);
    assert_eq!(captions["4"], old["4"]);
    assert_eq!(
        (&captions["3"]["title"], &captions["3"]["source"]),
        (&old["3"]["title"], &old["3"]["source"])
    );
    assert!(captions["3"]["caption"].as_str().unwrap().starts_with("Something drawn"));

    // A run without changes does not rewrite the file.
    let compact = captions.to_string();
    shop.write("shop_captions.json", &compact);
    run(shop.asking(&server, &["caption"])).expect(1);
    assert_eq!(shop.read("shop_captions.json"), compact);
}

/// `podium-curator embedded --out <out>`.
fn embedded(out: &Path) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podium-curator"));
    command.arg("embedded").arg("--out").arg(out);
    command.output().unwrap().into()
}

#[test]
fn the_embedded_data_set_replaces_only_itself() {
    let shop = Shop::new();
    let before = shop.read("train.tsv");
    let ended = embedded(shop.path()).expect(1);
    assert!(ended.logs.contains("contains another data set"), "{}", ended.logs);
    assert_eq!(shop.read("train.tsv"), before);
    assert!(!shop.file("world.json").exists());
    for _ in 0..2 {
        embedded(&shop.file("embedded")).expect(0);
    }
}

#[test]
fn a_vocabulary_replaces_itself_and_no_model() {
    let shop = Shop::new();
    let out = shop.file("policy");
    let vocabulary = || run(shop.command(&["vocabulary", "--out", out.to_str().unwrap()]));
    vocabulary().expect(0);
    let config = shop.read("policy/config.json");
    vocabulary().expect(0);
    assert_eq!(shop.read("policy/config.json"), config);

    shop.write("policy/config.json", "{}");
    shop.write("policy/model.safetensors", "weights");
    let ended = vocabulary().expect(1);
    assert!(ended.logs.contains("model.safetensors belongs to a model"), "{}", ended.logs);
    assert_eq!(shop.read("policy/config.json"), "{}");
}

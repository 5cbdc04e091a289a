//! Tokens and templates that are declared outside of `tokenizer.json`. The expected values are the results of
//! Transformers 5.23 for the same folders (`AutoTokenizer`, `apply_chat_template`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use podium_tokenizer::{Error, Message, Tokenizer, Variables, copy_files};
use serde_json::{Value, json};
use tempfile::TempDir;

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";

fn tokenizer_json() -> Value {
    let added = |id: u32, content: &str, special: bool| {
        json!({
            "id": id, "content": content, "special": special,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    json!({
        "version": "1.0",
        "added_tokens": [added(4, "<end>", true), added(5, "<think>", false)],
        "pre_tokenizer": { "type": "Whitespace" },
        "model": {
            "type": "WordLevel",
            "vocab": { "<unknown>": 0, "red": 1, "green": 2, "blue": 3, "<end>": 4 },
            "unk_token": "<unknown>",
        },
    })
}

/// A folder with these files beside `tokenizer.json`; JSON strings are written as raw text.
fn folder(files: &[(&str, Value)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer_json().to_string()).unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.as_str().map_or_else(|| content.to_string(), str::to_owned)).unwrap();
    }
    folder
}

fn load(files: &[(&str, Value)]) -> Tokenizer {
    Tokenizer::load(folder(files).path()).unwrap()
}

fn load_error(files: &[(&str, Value)]) -> Error {
    Tokenizer::load(folder(files).path()).unwrap_err()
}

/// A token as Transformers 5 writes it into its configuration.
fn typed(content: &str) -> Value {
    json!({
        "__type": "AddedToken", "content": content, "special": true,
        "lstrip": false, "rstrip": false, "normalized": false, "single_word": false,
    })
}

fn plain(content: &str, special: bool) -> Value {
    json!({ "content": content, "special": special, "lstrip": false, "rstrip": false, "normalized": false, "single_word": false })
}

fn render(tokenizer: &Tokenizer) -> Result<String, Error> {
    tokenizer.render(&[Message::new("user", "hi")], &Variables::default())
}

/// A template that prints the named tokens.
const NAMES: &str = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ image_token }}|{{ boi_token }}|\
    {{ extra_special_tokens }}|{{ additional_special_tokens }}";

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn declared_tokens_get_the_ids_that_transformers_gives_them() {
    // The ids of <end>, <think>, <new>, <img> and <x> that the tokenizer assigns; the stop tokens; the template's
    // output.
    type Expected = ([Option<u32>; 3], &'static [u32], &'static str);
    type Case<'a> = (&'a str, Value, &'a [(&'a str, Value)], Expected);
    let cases: [Case<'_>; 22] = [
        ("a known end", json!({ "eos_token": "<end>" }), &[], ([None, None, None], &[4], "|<end>|||||")),
        (
            "a typed end",
            json!({ "eos_token": typed("<end>") }),
            &[],
            ([None, None, None], &[4], "|<end>|||||"),
        ),
        ("a new end", json!({ "eos_token": "<new>" }), &[], ([Some(6), None, None], &[6], "|<new>|||||")),
        (
            "the map takes precedence",
            json!({ "eos_token": "<end>" }),
            &[(MAP, json!({ "eos_token": "<new>" }))],
            ([Some(6), None, None], &[6], "|<new>|||||"),
        ),
        (
            "null in the map takes precedence",
            json!({ "eos_token": "<end>" }),
            &[(MAP, json!({ "eos_token": null }))],
            ([None; 3], &[], "||||||"),
        ),
        (
            "the map alone",
            json!({}),
            &[(MAP, json!({ "eos_token": plain("<end>", true) }))],
            ([None; 3], &[4], "|<end>|||||"),
        ),
        (
            "a decoder takes precedence over the map",
            json!({ "eos_token": "<end>", "added_tokens_decoder": { "4": plain("<end>", true) } }),
            &[(MAP, json!({ "eos_token": "<new>", "pad_token": "<x>" })), (ADDED, json!({ "<img>": 6 }))],
            ([None; 3], &[4], "|<end>|||||"),
        ),
        (
            "a decoder with new tokens",
            json!({ "eos_token": "<end>", "added_tokens_decoder": { "7": plain("<img>", false), "6": plain("<new>", true) } }),
            &[],
            ([Some(6), Some(7), None], &[4], "|<end>|||||"),
        ),
        (
            "added tokens",
            json!({ "eos_token": "<end>" }),
            &[(ADDED, json!({ "<img>": 7, "<new>": 6 }))],
            ([Some(6), Some(7), None], &[4], "|<end>|||||"),
        ),
        (
            "an end among the added tokens",
            json!({ "eos_token": "<new>" }),
            &[(ADDED, json!({ "<new>": 6, "<img>": 7 }))],
            ([Some(6), Some(7), None], &[6], "|<new>|||||"),
        ),
        (
            "additional tokens",
            json!({ "eos_token": "<end>", "additional_special_tokens": ["<new>", "<think>"] }),
            &[],
            ([Some(6), None, None], &[4], "|<end>|||||"),
        ),
        (
            "extra tokens",
            json!({ "eos_token": "<end>", "extra_special_tokens": ["<new>", "<img>"] }),
            &[],
            ([Some(6), Some(7), None], &[4], "|<end>|||||"),
        ),
        (
            "extra tokens by name",
            json!({ "eos_token": "<end>", "extra_special_tokens": { "image_token": "<img>", "boi_token": "<new>" } }),
            &[],
            ([Some(7), Some(6), None], &[4], "|<end>||<img>|<new>||"),
        ),
        (
            "extra tokens take precedence over additional ones",
            json!({ "eos_token": "<end>", "additional_special_tokens": ["<new>"], "extra_special_tokens": ["<img>"] }),
            &[],
            ([None, Some(6), None], &[4], "|<end>|||||"),
        ),
        (
            "extra tokens by name beside additional ones",
            json!({
                "eos_token": "<end>", "additional_special_tokens": ["<new>"],
                "extra_special_tokens": { "image_token": typed("<img>") },
            }),
            &[],
            ([Some(7), Some(6), None], &[4], "|<end>||<img>|||"),
        ),
        (
            "an extra token named as the end",
            json!({ "eos_token": "<end>", "extra_special_tokens": { "eos_token": "<new>" } }),
            &[],
            ([Some(6), None, None], &[6], "|<new>|||||"),
        ),
        (
            "a model-specific name",
            json!({ "eos_token": "<end>", "image_token": "<img>" }),
            &[],
            ([None, Some(6), None], &[4], "|<end>||<img>|||"),
        ),
        (
            "a model-specific name in the map",
            json!({ "eos_token": "<end>" }),
            &[(MAP, json!({ "image_token": plain("<img>", true) }))],
            ([None, Some(6), None], &[4], "|<end>||<img>|||"),
        ),
        (
            "no token",
            json!({ "eos_token": "<end>", "image_token": 3, "boi_token": plain("<new>", true) }),
            &[],
            ([None; 3], &[4], "|<end>|||||"),
        ),
        (
            "extra tokens in both files",
            json!({ "eos_token": "<end>", "extra_special_tokens": ["<new>"] }),
            &[(MAP, json!({ "extra_special_tokens": ["<img>"] }))],
            ([Some(6), Some(7), None], &[4], "|<end>|||||"),
        ),
        (
            "additional tokens in both files",
            json!({ "eos_token": "<end>", "additional_special_tokens": ["<new>"] }),
            &[(MAP, json!({ "additional_special_tokens": ["<img>"] }))],
            ([Some(6), None, None], &[4], "|<end>|||||"),
        ),
        ("an empty end", json!({ "eos_token": "" }), &[], ([None; 3], &[], "||||||")),
    ];
    for (what, mut config, files, (ids, stop, template)) in cases {
        config["chat_template"] = json!(NAMES);
        let tokenizer = load(&[&[(CONFIG, config)], files].concat());
        let found = ["<new>", "<img>", "<x>"].map(|token| tokenizer.token_id(token));
        assert_eq!(found, ids, "{what}");
        assert_eq!(tokenizer.stop_token_ids(), stop, "{what}");
        assert_eq!(render(&tokenizer).unwrap(), template, "{what}");
        for (token, id) in
            ["<new>", "<img>"].into_iter().zip(ids).filter_map(|(token, id)| Some((token, id?)))
        {
            assert_eq!(tokenizer.encode(&format!("red {token} blue")).unwrap(), [1, id, 3], "{what}");
        }
    }
}

#[test]
fn special_tokens_can_be_split_like_text() {
    let config = |split: bool| json!({ "eos_token": "<end>", "split_special_tokens": split });
    assert_eq!(load(&[(CONFIG, config(false))]).encode("red <end>").unwrap(), [1, 4]);
    assert_eq!(load(&[(CONFIG, config(true))]).encode("red <end>").unwrap(), [1, 0, 0, 0]);
}

#[test]
fn unsupported_values_are_rejected_by_file_key_and_value() {
    let cases: [(&str, Value, &str, &str); 10] = [
        (CONFIG, json!({ "eos_token": 4 }), "eos_token", "4"),
        (
            CONFIG,
            json!({ "extra_special_tokens": { "image_token": 3 } }),
            "extra_special_tokens.image_token",
            "3",
        ),
        (CONFIG, json!({ "additional_special_tokens": "<x>" }), "additional_special_tokens", "\"<x>\""),
        (
            CONFIG,
            json!({ "added_tokens_decoder": { "x": plain("<x>", true) } }),
            "added_tokens_decoder.x",
            "{",
        ),
        (CONFIG, json!({ "added_tokens_decoder": { "6": "<x>" } }), "added_tokens_decoder.6", "\"<x>\""),
        (MAP, json!({ "pad_token": ["<x>"] }), "pad_token", "[\"<x>\"]"),
        (ADDED, json!({ "<x>": -1 }), "<x>", "-1"),
        ("generation_config.json", json!({ "eos_token_id": "x" }), "eos_token_id", "\"x\""),
        (CONFIG, json!({ "chat_template": 3 }), "chat_template", "3"),
        (CONFIG, json!({ "chat_template": { "default": 3 } }), "chat_template.default", "3"),
    ];
    for (file, content, expected_key, expected_value) in cases {
        let error = load_error(&[(file, content)]);
        let Error::Value { path, key, value, .. } = &error else { panic!("{file}: {error}") };
        assert!(
            path.ends_with(file) && **key == *expected_key && value.starts_with(expected_value),
            "{error}"
        );
    }
    // Transformers assigns the id 6, independent of the declared id.
    for (file, content) in [
        (ADDED, json!({ "<new>": 9 })),
        (CONFIG, json!({ "added_tokens_decoder": { "9": plain("<new>", true) } })),
    ] {
        let error = load_error(&[(file, content)]);
        assert!(
            matches!(&error, Error::TokenId { path, declared: 9, found: Some(6), .. } if path.ends_with(file)),
            "{error}"
        );
    }
}

#[test]
fn templates_are_chosen_as_transformers_chooses_them() {
    type Case<'a> = (&'a str, &'a [(&'a str, Value)], Option<&'a str>);
    let (own, rag) = ("chat_template.jinja", "additional_chat_templates/rag.jinja");
    let default = "additional_chat_templates/default.jinja";
    let list = |names: &[&str]| {
        let templates: Vec<Value> =
            names.iter().map(|name| json!({ "name": name, "template": name })).collect();
        json!({ "chat_template": templates })
    };
    let cases: [Case<'_>; 14] = [
        ("a list", &[(CONFIG, list(&["tool_use", "default"]))], Some("default")),
        ("a list without default", &[(CONFIG, list(&["tool_use", "rag"]))], None),
        ("a list of one that is not the default", &[(CONFIG, list(&["rag"]))], None),
        ("an empty list", &[(CONFIG, list(&[]))], None),
        (
            "a list with two defaults",
            &[(
                CONFIG,
                json!({ "chat_template": [
                { "name": "default", "template": "1" }, { "name": "default", "template": "2" },
            ] }),
            )],
            Some("2"),
        ),
        ("a dictionary", &[(CONFIG, json!({ "chat_template": { "default": "d", "rag": "r" } }))], Some("d")),
        ("a dictionary without default", &[(CONFIG, json!({ "chat_template": { "a": "d" } }))], None),
        ("a file", &[(CONFIG, json!({ "chat_template": "c" })), (own, "f".into())], Some("f")),
        ("a file and a folder", &[(own, "f".into()), (rag, "{% if %}".into())], Some("f")),
        ("a folder alone", &[(CONFIG, json!({ "chat_template": "c" })), (rag, "r".into())], None),
        (
            "a default in the folder",
            &[(CONFIG, json!({ "chat_template": "c" })), (default, "d".into())],
            Some("d"),
        ),
        ("a default in the folder beside a file", &[(own, "f".into()), (default, "d".into())], Some("d")),
        ("nothing", &[(CONFIG, json!({ "chat_template": null }))], None),
        ("an empty template", &[(CONFIG, json!({ "chat_template": "" }))], Some("")),
    ];
    for (what, files, expected) in cases {
        let folder = folder(files);
        let copy = tempfile::tempdir().unwrap();
        copy_files(folder.path(), copy.path()).unwrap();
        for folder in [&folder, &copy] {
            let rendered = render(&Tokenizer::load(folder.path()).unwrap());
            match expected {
                Some(text) => assert_eq!(rendered.unwrap(), text, "{what}"),
                None => assert!(
                    matches!(rendered, Err(Error::NoDefaultTemplate { .. } | Error::NoTemplate { .. })),
                    "{what}"
                ),
            }
        }
    }
}

#[test]
fn newlines_are_normalized() {
    let template = "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc\rd'\r\n\r\n";
    let file = load(&[("chat_template.jinja", template.into())]);
    let config = load(&[(CONFIG, json!({ "chat_template": template }))]);
    assert_eq!(render(&file).unwrap(), "a\nb\nc\nd'\n");
    assert_eq!(render(&config).unwrap(), "a\nb\nc\nd'\n");
}

#[test]
fn a_template_that_is_not_utf_8_is_rejected() {
    let folder = folder(&[]);
    fs::write(folder.path().join("chat_template.jinja"), b"ab\xFFc").unwrap();
    let error = Tokenizer::load(folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::Encoding { path, byte: 2 } if path.ends_with("chat_template.jinja")),
        "{error}"
    );
}

#[test]
fn a_stop_token_is_required() {
    let silent = load(&[(CONFIG, json!({ "chat_template": "t" }))]);
    assert!(matches!(silent.check_for_training(), Err(Error::NoStopToken { .. })));
    let config = json!({ "chat_template": "t", "eos_token": "<end>" });
    load(&[(CONFIG, config)]).check_for_training().unwrap();
    let wordless = load(&[(CONFIG, json!({ "eos_token": "<end>" }))]);
    assert!(matches!(wordless.check_for_training(), Err(Error::NoTemplate { .. })));
    wordless.check_stop_tokens().unwrap();
}

#[test]
fn tools_and_documents_are_none_and_messages_are_required() {
    let template =
        "{{ tools }}{{ documents is none }}{% if tools is iterable %}x{% endif %}{{ messages[0] }}";
    let tokenizer = load(&[("chat_template.jinja", template.into())]);
    assert_eq!(render(&tokenizer).unwrap(), "NoneTrue{'role': 'user', 'content': 'hi'}");
    assert!(matches!(tokenizer.render(&[], &Variables::default()), Err(Error::NoMessages)));
}

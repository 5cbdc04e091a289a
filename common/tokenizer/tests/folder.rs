//! Model folders: encoding, decoding, templates, stop tokens, and rejected files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use podium_tokenizer::{Error, Message, Tokenizer, Variables, copy_files};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Words split at spaces; `<end>` is special, `<think>` is added but not special.
fn tokenizer_json() -> Value {
    let added = |id: u32, content: &str, special: bool| {
        json!({
            "id": id, "content": content, "special": special,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    json!({
        "version": "1.0",
        "truncation": { "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 },
        "padding": {
            "strategy": { "Fixed": 8 }, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<unknown>",
        },
        "added_tokens": [added(4, "<end>", true), added(5, "<think>", false)],
        "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": null,
        "decoder": null,
        "model": {
            "type": "WordLevel",
            "vocab": { "<unknown>": 0, "red": 1, "green": 2, "blue": 3, "<end>": 4 },
            "unk_token": "<unknown>",
        },
    })
}

fn folder(files: &[(&str, Value)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer_json().to_string()).unwrap();
    for (name, content) in files {
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn load(folder: &TempDir) -> Tokenizer {
    Tokenizer::load(folder.path()).unwrap()
}

fn load_error(tokenizer_json: &str) -> Error {
    Tokenizer::load(folder(&[("tokenizer.json", tokenizer_json.into())]).path()).unwrap_err()
}

fn with_template(template: &str) -> Tokenizer {
    load(&folder(&[("tokenizer_config.json", json!({ "chat_template": template, "eos_token": "<end>" }))]))
}

fn messages() -> Vec<Message> {
    vec![Message::new("system", "red"), Message::new("user", "green <tag> \"é\"")]
}

#[test]
fn texts_round_trip_through_tokens() {
    let tokenizer = load(&folder(&[]));
    let ids = tokenizer.encode("blue <think> red green <end> what").unwrap();
    assert_eq!(ids, [3, 5, 1, 2, 4, 0], "neither padded nor truncated");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "blue <think> red green <end> <unknown>");
    assert_eq!(tokenizer.decode(&ids[..5], true).unwrap(), "blue <think> red green");
    assert_eq!(tokenizer.encode("").unwrap(), [0_u32; 0]);
    assert_eq!(tokenizer.vocab_size(), 6);
    assert_eq!((tokenizer.token_id("<end>"), tokenizer.token_id("no")), (Some(4), None));
}

#[test]
fn decoding_returns_the_end_of_each_token() {
    let stop = ("tokenizer_config.json", json!({ "eos_token": "<end>" }));
    let tokenizer = load(&folder(std::slice::from_ref(&stop)));
    // "blue <think> red" surrounded by stop tokens and unknown ids.
    let (text, ends) = tokenizer.decode_with_ends(&[4, 3, 5, 99, 1, 4]).unwrap();
    assert_eq!((text.as_str(), ends), ("blue <think> red", vec![0, 4, 12, 12, 16, 16]));
    assert_eq!(tokenizer.decode_with_ends(&[4]).unwrap(), (String::new(), vec![0]));
    assert_eq!(tokenizer.decode_with_ends(&[]).unwrap(), (String::new(), vec![]));

    // Words include the space before them, except for the first; byte tokens spell other characters.
    let mut llama = tokenizer_json();
    llama["model"] = json!({
        "type": "BPE", "byte_fallback": true, "unk_token": null, "merges": [],
        "vocab": { "▁red": 0, "▁": 1, "x": 2, "<0xE2>": 3, "<end>": 4, "<think>": 5, "<0x82>": 6, "<0xAC>": 7 },
    });
    let part = |name: &str| json!({ "type": name });
    llama["decoder"] = json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
        part("ByteFallback"), part("Fuse"),
        { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
    ] });
    let tokenizer = load(&folder(&[("tokenizer.json", llama), stop]));
    for (ids, text, ends) in [
        (&[0, 0, 2][..], "red redx", &[3, 7, 8][..]),
        (&[1, 0, 1, 2], " red x", &[0, 4, 5, 6]),
        (&[4, 0, 4, 0, 4], "red red", &[0, 3, 3, 7, 7]),
        (&[2, 3, 6, 7, 0], "x€ red", &[1, 1, 1, 4, 8]),
    ] {
        assert_eq!(tokenizer.decode_with_ends(ids).unwrap(), (text.to_owned(), ends.to_vec()));
    }
}

/// A tokenizer in which all added tokens are special: think tags, an item, padding.
fn with_special_tokens(eos: &str, padding: &str) -> Tokenizer {
    let mut file = tokenizer_json();
    let added: Vec<Value> = ["<end>", "<think>", "</think>", "[ITEM_7]", "<pad>", "<|im_start|>"]
        .into_iter()
        .zip(4..)
        .map(|(content, id)| {
            json!({
                "id": id, "content": content, "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    file["added_tokens"] = json!(added);
    let config = json!({ "eos_token": eos, "pad_token": padding });
    load(&folder(&[("tokenizer.json", file), ("tokenizer_config.json", config)]))
}

#[test]
fn completions_include_special_tokens_except_stop_and_padding() {
    let tokenizer = with_special_tokens("<end>", "<pad>");
    let ids = [8, 5, 3, 6, 7, 9, 8, 4];
    let (text, ends) = tokenizer.decode_with_ends(&ids).unwrap();
    assert_eq!(text, "<think> blue </think> [ITEM_7] <|im_start|>");
    assert_eq!(ends, [0, 7, 12, 21, 30, 43, 43, 43]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "blue", "as Transformers decodes");
    let texts = tokenizer.token_texts().unwrap();
    assert_eq!(texts[5].as_deref(), Some(b" <think>".as_slice()));
    assert_eq!(texts[7].as_deref(), Some(b" [ITEM_7]".as_slice()));
    assert_eq!((&texts[4], &texts[8]), (&None, &None));

    // Any stop token ends a completion; a padding token from the vocabulary remains text.
    let words = with_special_tokens("green", "red");
    assert_eq!(words.decode_with_ends(&[1, 3, 2]).unwrap(), ("red blue".to_owned(), vec![3, 8, 8]));
    assert_eq!((&words.token_texts().unwrap()[2], words.stop_token_ids()), (&None, &[2_u32][..]));

    let by_id = folder(&[
        ("generation_config.json", json!({ "pad_token_id": -1, "eos_token_id": 1 })),
        ("config.json", json!({ "pad_token_id": 4 })),
    ]);
    assert_eq!(load(&by_id).decode_with_ends(&[3, 4, 1]).unwrap().0, "blue");
}

#[test]
fn the_generation_prompt_follows_the_messages() {
    let plain = "{% for message in messages %}{{ message.content | trim }}<end>{% endfor %}";
    let asks = |end: &str| format!("{plain}{{% if add_generation_prompt %}}{end}{{% endif %}}");
    let conversation = vec![Message::new("system", "red"), Message::new("user", "blue <think> \n")];
    let prompt = |template: &str, enable_thinking| {
        let variables = Variables { add_generation_prompt: true, enable_thinking, ..Variables::default() };
        with_template(template).generation_prompt(&conversation, &variables).unwrap()
    };
    let opens = asks("<a>{{ '\n<think>\n' }}");
    assert_eq!(prompt(&opens, None), "<a>\n<think>\n");
    let switch = asks("<a>{% if enable_thinking is false %}<think></think>{% endif %}");
    assert_eq!(prompt(&switch, None), "<a>");
    assert_eq!(prompt(&switch, Some(false)), "<a><think></think>");
    // Templates that ignore add_generation_prompt, reject it, or render differently without it.
    assert_eq!(prompt(&format!("{plain}<a><think>"), None), "<end><a><think>");
    assert_eq!(prompt(plain, None), "<end>", "a user's tag does not belong to the template");
    let refuses = "{% if not add_generation_prompt %}{{ raise_exception('no') }}{% endif %}";
    assert_eq!(prompt(&format!("{refuses}{plain}<a>"), None), "<end><a>");
    let ends = format!("{plain}{{% if add_generation_prompt %}}<think>{{% else %}}over{{% endif %}}");
    assert_eq!(prompt(&ends, None), "<end><think>");
    assert_eq!(prompt("the same for all <think>", None), "", "the template does not render messages");
}

#[test]
fn stop_tokens_come_from_all_files() {
    assert_eq!(load(&folder(&[])).stop_token_ids(), [0_u32; 0]);
    let tokenizer = load(&folder(&[
        ("generation_config.json", json!({ "eos_token_id": [9, 2] })),
        ("config.json", json!({ "eos_token_id": 2 })),
        ("tokenizer_config.json", json!({ "eos_token": { "content": "<end>", "special": true } })),
    ]));
    assert_eq!(tokenizer.stop_token_ids(), [2, 4, 9]);
}

#[test]
fn templates_receive_messages_variables_and_special_tokens() {
    let tokenizer = with_template(
        "{%- for message in messages %}\n\
         {{- message.role.upper() + ':' + message['content'] + eos_token }}\n\
         {%- endfor %}\n\
         {% if add_generation_prompt %}\n  {% if enable_thinking is defined and enable_thinking is false %}\n\
         none{% endif %}\n[{{ colour }}]{{ add_generation_prompt }}{% endif %}\n",
    );
    let extra = json!({ "colour": "red" }).as_object().unwrap().clone();
    let mut variables = Variables { add_generation_prompt: true, enable_thinking: None, extra };
    let said = "SYSTEM:red<end>USER:green <tag> \"é\"<end>";
    assert_eq!(tokenizer.render(&messages(), &variables).unwrap(), format!("{said}[red]True"));
    variables.enable_thinking = Some(false);
    assert_eq!(tokenizer.render(&messages(), &variables).unwrap(), format!("{said}none[red]True"));
    assert_eq!(tokenizer.render(&messages(), &Variables::default()).unwrap(), said);
    let ids = tokenizer.encode_chat(&messages()[..1], &Variables::default()).unwrap();
    assert_eq!(ids, tokenizer.encode("SYSTEM:red<end>").unwrap());
}

#[test]
fn json_matches_python() {
    let tokenizer = with_template("{{ messages | tojson }}{{ messages[1].content.split('<')[0].rstrip() }}");
    assert_eq!(
        tokenizer.render(&messages(), &Variables::default()).unwrap(),
        r#"[{"role": "system", "content": "red"}, {"role": "user", "content": "green <tag> \"é\""}]green"#
    );
    let tokenizer = with_template("{{ messages[:1] | tojson(indent=2) }}{{ none }}");
    assert_eq!(
        tokenizer.render(&messages(), &Variables::default()).unwrap(),
        "[\n  {\n    \"role\": \"system\",\n    \"content\": \"red\"\n  }\n]None"
    );
}

#[test]
fn a_template_can_reject_messages() {
    let tokenizer = with_template("{{ raise_exception('roles must alternate') }}");
    let error = tokenizer.render(&messages(), &Variables::default()).unwrap_err();
    assert!(matches!(&error, Error::Render { path, source }
        if path.ends_with("tokenizer_config.json") && source.message.contains("roles must alternate")));
}

#[test]
fn unusable_folders_are_rejected_by_file() {
    let refused = |files: &[(&str, Value)]| Tokenizer::load(folder(files).path()).unwrap_err();
    let missing = Tokenizer::load(Path::new("/no/such/folder")).unwrap_err();
    assert!(matches!(missing, Error::File { path, .. } if path.ends_with("tokenizer.json")));
    let tokenizer = refused(&[("tokenizer.json", json!({ "model": 3 }))]);
    assert!(matches!(tokenizer, Error::Tokenizer { path, .. } if path.ends_with("tokenizer.json")));
    let config = refused(&[("tokenizer_config.json", "{".into())]);
    assert!(matches!(config, Error::Json { path, .. } if path.ends_with("tokenizer_config.json")));
    let end = refused(&[("generation_config.json", json!({ "eos_token_id": "x" }))]);
    assert!(matches!(end, Error::Value { path, .. } if path.ends_with("generation_config.json")));
    let template = refused(&[("chat_template.jinja", "a\n{% if %}".into())]);
    assert!(
        matches!(&template, Error::Template { path, source } if path.ends_with("chat_template.jinja") && source.line == 2),
        "{template}"
    );
    let silent = load(&folder(&[])).render(&messages(), &Variables::default()).unwrap_err();
    assert!(matches!(silent, Error::NoTemplate { .. }));
}

#[test]
fn library_panics_become_errors() {
    let cut = load_error(r#"{"decoder":{"type":"#);
    assert!(matches!(&cut, Error::Library { library: "the tokenizer", .. }), "{cut}");

    // Sixty characters match in 2^60 ways: the regular expression library gives up.
    let mut hostile = tokenizer_json();
    let pattern = json!({ "Regex": "^(?:a|a)*$" });
    hostile["pre_tokenizer"] =
        json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false });
    let tokenizer = load(&folder(&[("tokenizer.json", hostile)]));
    let hopeless = tokenizer.encode(&format!("{}b", "a".repeat(60))).unwrap_err();
    assert!(
        matches!(&hopeless, Error::Library { message, .. } if message.contains("retry-limit")),
        "{hopeless}"
    );
    assert_eq!(tokenizer.encode("red").unwrap(), [1], "the tokenizer still works");
}

#[test]
fn tokenizer_files_are_copied_with_a_policy() {
    let from =
        folder(&[("chat_template.jinja", "{{ messages[0].content }}".into()), ("config.json", json!({}))]);
    let to = tempfile::tempdir().unwrap();
    copy_files(from.path(), to.path()).unwrap();
    assert_eq!(load(&to).render(&messages(), &Variables::default()).unwrap(), "red");
    assert!(!to.path().join("config.json").exists(), "the model's configuration is written with its weights");
}

/// Checks that the concatenated bytes of the tokens equal the decoded text.
fn assert_texts_add_up(tokenizer: &Tokenizer, text: &str) {
    let texts = tokenizer.token_texts().unwrap();
    assert_eq!(texts.len(), tokenizer.vocab_size());
    let ids = tokenizer.encode(text).unwrap();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| texts[*id as usize].clone().unwrap_or_default()).collect();
    let joined = String::from_utf8_lossy(&bytes).into_owned();
    assert_eq!(joined.trim_start_matches(' '), tokenizer.decode_with_ends(&ids).unwrap().0);
}

fn byte_level() -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false })
}

/// Returns a tokenizer with this decoder and these additional tokens, and the text of each of these.
fn with_decoder(decoder: &Value, tokens: &[&str]) -> (Tokenizer, Vec<Vec<u8>>) {
    let mut file = tokenizer_json();
    file["decoder"] = decoder.clone();
    file["added_tokens"] = json!([]);
    for (token, id) in tokens.iter().zip(5..) {
        file["model"]["vocab"][*token] = json!(id);
    }
    let tokenizer = load(&folder(&[("tokenizer.json", file)]));
    let texts = tokenizer.token_texts().unwrap().split_off(5);
    (tokenizer, texts.into_iter().flatten().collect())
}

#[test]
fn each_token_has_its_own_text() {
    let words = load(&folder(&[("tokenizer_config.json", json!({ "eos_token": "<end>" }))]));
    assert_texts_add_up(&words, "blue <think> red <end> green");
    assert_texts_add_up(&load(&folder(&[])), "blue <think> red <end> green");
    assert_eq!(words.token_texts().unwrap()[4], None, "stop tokens have no text");
    assert_eq!(words.token_texts().unwrap()[5].as_deref(), Some(b" <think>".as_slice()));

    let (tokenizer, texts) = with_decoder(&byte_level(), &["Ġred", "Ċ", "Ã", "©", "ÿ", "Ń", "日"]);
    let expected: [&[u8]; 7] = [b" red", b"\n", &[0xC3], &[0xA9], &[0xFF], &[0xAD], "日".as_bytes()];
    assert_eq!(texts, expected);
    assert_eq!(tokenizer.decode(&[5, 6, 7, 8], true).unwrap(), " red\né");

    let replace = json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " });
    let strip = json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 });
    let parts = json!([replace, { "type": "ByteFallback" }, { "type": "Fuse" }, strip]);
    let pieces = json!({ "type": "Sequence", "decoders": parts });
    let (tokenizer, texts) = with_decoder(&pieces, &["▁red", "<0xC3>", "<0xA9>", "é▁"]);
    let expected: [&[u8]; 4] = [b" red", &[0xC3], &[0xA9], "é ".as_bytes()];
    assert_eq!(texts, expected);
    assert_eq!(tokenizer.decode(&[5, 5, 6, 7, 8], true).unwrap(), "red redéé ");

    let mut file = tokenizer_json();
    file["decoder"] = json!({ "type": "WordPiece", "prefix": "##", "cleanup": true });
    let pieces = load(&folder(&[("tokenizer.json", file)])).token_texts();
    assert!(matches!(pieces, Err(Error::Dependent { decoder: "WordPiece", .. })));
}

#[test]
fn byte_level_texts_are_normalised() {
    let mut file = tokenizer_json();
    file["normalizer"] = json!({ "type": "NFC" });
    let words = load(&folder(&[("tokenizer.json", file.clone())]));
    assert_eq!(words.normalized("e\u{301}").unwrap(), "e\u{301}", "word-level text is not normalised");
    file["decoder"] = byte_level();
    assert_eq!(load(&folder(&[("tokenizer.json", file)])).normalized("e\u{301}").unwrap(), "é");
}

#[test]
fn git_lfs_pointers_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 11422654\n";
    fs::write(folder.path().join("tokenizer.json"), pointer).unwrap();
    let error = Tokenizer::load(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("tokenizer.json is a Git LFS pointer") && error.contains("git lfs pull"),
        "{error}"
    );
}

use serde_json::json;

use super::*;

const TEMPLATE: &str = "{%- for message in messages %}\n{{- '<s> ' + message.role + ' ' + message.content.strip() + ' </s> ' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<s> assistant' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- ' <think> </think>' }}\n    {%- endif %}\n{%- endif %}";

fn folder(template: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let added = |id: u32, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": special})
    };
    let vocabulary = json!({"<s>": 0, "</s>": 1, "<think>": 2, "</think>": 3, "<unk>": 4, "user": 5, "assistant": 6, "red": 7});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "decoder": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "added_tokens": [added(0, "<s>", true), added(1, "</s>", true), added(2, "<think>", false), added(3, "</think>", false)],
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    });
    let config = json!({"chat_template": template, "eos_token": {"content": "</s>"}, "pad_token": "<s>"});
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [3, 1]}"#).unwrap();
    folder
}

fn user(content: &str) -> Vec<Message> {
    vec![Message { role: "user".into(), content: content.into() }]
}

#[test]
fn messages_become_ids_and_ids_text() {
    let folder = folder(TEMPLATE);
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    let start = Variables { add_generation_prompt: true, ..Variables::default() };
    assert_eq!(tokenizer.render(&user(" red\n"), &start).unwrap(), "<s> user red </s> <s> assistant");
    assert_eq!(tokenizer.encode_chat(&user("red blue"), &start).unwrap(), [0, 5, 7, 4, 1, 0, 6]);
    let silent = Variables { enable_thinking: Some(false), ..start };
    assert!(tokenizer.render(&user("red"), &silent).unwrap().ends_with("<think> </think>"));
    assert_eq!(tokenizer.decode(&[2, 7, 3, 7, 1], true).unwrap(), "<think> red </think> red");
    assert_eq!(tokenizer.decode(&[7, 1], false).unwrap(), "red </s>");
    assert_eq!((tokenizer.stop_token_ids(), tokenizer.vocab_size()), (&[3, 1][..], 8));
}

#[test]
fn templates_have_what_transformers_gives_them() {
    let render = |template: &str| {
        let folder = folder(template);
        Tokenizer::load(folder.path()).unwrap().render(&user("red"), &Variables::default())
    };
    assert_eq!(render("{{ eos_token }}").unwrap(), "</s>");
    assert_eq!(render("{{ messages[0] | tojson }}").unwrap(), r#"{"role": "user", "content": "red"}"#);
    assert_eq!(render("{{ [1, '<é>'] | tojson }}").unwrap(), "[1, \"<é>\"]");
    assert!(render("{{ raise_exception('no system') }}").unwrap_err().to_string().contains("no system"));
}

#[test]
fn broken_folders_are_named() {
    let broken = folder("{% if %}");
    assert!(matches!(Tokenizer::load(broken.path()), Err(Error::Template { .. })));
    std::fs::write(broken.path().join("tokenizer.json"), "{").unwrap();
    assert!(Tokenizer::load(broken.path()).unwrap_err().to_string().contains("tokenizer.json"));

    let plain = folder("x");
    std::fs::write(plain.path().join("tokenizer_config.json"), "{}").unwrap();
    let tokenizer = Tokenizer::load(plain.path()).unwrap();
    assert!(matches!(tokenizer.render(&user("red"), &Variables::default()), Err(Error::NoTemplate { .. })));
    std::fs::write(plain.path().join("tokenizer_config.json"), r#"{"eos_token": "<end>"}"#).unwrap();
    assert!(Tokenizer::load(plain.path()).unwrap_err().to_string().contains("\"<end>\""));
}

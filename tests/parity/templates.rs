//! The chat templates of the installed trl package, and those of `common/jinja/tests`: the same text as
//! Transformers, or refused as docs/design/evidence.md documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use podium_tests::{path_text, rows};
use podium_tokenizer::{Message, Tokenizer, Variables};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::reference::{self, repository};

/// The text of a conversation by Transformers; `None` if the template raises.
#[derive(Deserialize)]
struct Chat {
    template: String,
    messages: Vec<Message>,
    variables: Map<String, Value>,
    text: Option<String>,
    /// The text without `strftime_now`.
    dayless: Option<String>,
}

/// Writes a tokenizer of one word, with the special tokens that templates use.
fn write_tokenizer(folder: &std::path::Path) -> Result<()> {
    let model = json!({ "type": "WordLevel", "vocab": { "a": 0 }, "unk_token": "a" });
    let tokenizer = json!({ "version": "1.0", "added_tokens": [], "model": model });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string())?;
    let tokens = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "a",
    });
    Ok(fs::write(folder.join("tokenizer_config.json"), tokens.to_string())?)
}

/// The table of docs/guides/models.md: template and result of its conversations.
fn documented() -> Result<BTreeSet<(String, String)>> {
    let page = fs::read_to_string(repository().join("docs/design/evidence.md"))?;
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let name = cells.next()?.trim().strip_suffix("`")?.strip_suffix(".jinja")?;
        let fate = cells.next()?.trim();
        matches!(fate, "refused" | "without the current date").then(|| (name.to_owned(), fate.to_owned()))
    });
    Ok(rows.collect())
}

#[test]
fn templates_of_trl_render_the_same_text_or_are_refused_as_documented() -> Result<()> {
    let script = repository().join("tests/parity/templates.py");
    let (templates, folders) = (tempfile::tempdir()?, tempfile::tempdir()?);
    reference::run(&script, &["--copy", path_text(templates.path())])?;
    let mut tokenizers = BTreeMap::new();
    for entry in fs::read_dir(templates.path())? {
        let path = entry?.path();
        let name = path.file_stem().context("a template has a name")?.to_string_lossy().into_owned();
        let folder = folders.path().join(&name);
        fs::create_dir(&folder)?;
        write_tokenizer(&folder)?;
        fs::copy(&path, folder.join("chat_template.jinja"))?;
        tokenizers.insert(name, Tokenizer::load(&folder)?);
    }
    let chats = templates.path().join("chats.jsonl");
    reference::run(&script, &["--folders", path_text(folders.path()), "--chats", path_text(&chats)])?;

    let (mut compared, mut failures, mut found) = (0, Vec::new(), BTreeSet::new());
    for row in rows(&chats)? {
        let Chat { template, messages, variables, text, dayless } = serde_json::from_value(row)?;
        let variables = Variables { extra: variables, ..Variables::default() };
        let rendered = tokenizers[&template].render(&messages, &variables);
        compared += 1;
        match (&rendered, &text, &dayless) {
            (Ok(rendered), Some(text), _) if rendered == text => {}
            (Err(_), None, _) => {}
            (Ok(rendered), Some(_), Some(dayless)) if rendered == dayless => {
                found.insert((template, "without the current date".to_owned()));
            }
            (Err(_), Some(_), None) => {
                found.insert((template, "refused".to_owned()));
            }
            _ => failures.push(format!(
                "{template}: {messages:?} {:?}: {rendered:?}, expected {text:?}",
                variables.extra
            )),
        }
    }
    eprintln!("\nchat templates of trl: {} with {compared} conversations compared", tokenizers.len());
    ensure!(compared >= 30 * tokenizers.len() && tokenizers.len() >= 50, "only {compared} conversations");
    ensure!(
        failures.is_empty(),
        "{} differences:\n{}",
        failures.len(),
        failures[..failures.len().min(20)].join("\n")
    );
    let documented = documented()?;
    ensure!(found == documented, "docs/design/evidence.md says {documented:?}, found {found:?}");
    Ok(())
}

#[test]
fn the_cases_of_the_template_engine_are_those_of_transformers() -> Result<()> {
    let cases = repository().join("common/jinja/tests/cases.jsonl");
    reference::run(&repository().join("tests/parity/templates.py"), &["--cases", path_text(&cases)])
}

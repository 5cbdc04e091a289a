use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::completion;
use crate::dataset::{Catalogue, Item};
use crate::ids::{ItemId, UserId};

fn catalogue() -> Catalogue {
    let item = |id, title: &str, caption: Option<&str>| Item {
        id: ItemId(id),
        title: title.to_owned(),
        caption: caption.map(str::to_owned),
        interactions: 0,
    };
    Catalogue::new([
        item(1, "Dunes & <Storms>", Some("crimson desert")),
        item(2, "The \"Quoted\"", None),
        item(3, "Reef", Some("teal ocean")),
    ])
}

fn write(template: &str, base: &Path) -> Result<String, Error> {
    let options = Options { template: template.to_owned(), ..Options::default() };
    write_with(&options, base, None).map(|(prompt, _)| prompt.user)
}

fn write_with(
    options: &Options,
    base: &Path,
    measure: Option<Arc<Measure>>,
) -> Result<(Prompt, Shortening), Error> {
    let mut prompts = Prompts::new(options, &completion::Options::default(), base)?;
    if let Some(measure) = measure {
        prompts.measure_with(measure);
    }
    prompts.write(&catalogue(), UserId(4), &[ItemId(1), ItemId(2)], &[ItemId(3), ItemId(2)])
}

#[test]
fn a_prompt_is_shortened_to_its_budget() {
    let compact = Options { template: "compact".to_owned(), ..Options::default() };
    let words: Arc<Measure> = Arc::new(|prompt: &Prompt| Ok(prompt.user.split_whitespace().count()));
    let tokens = |limit| {
        let options = Options { max_tokens: Some(limit), ..compact.clone() };
        write_with(&options, Path::new(""), Some(words.clone()))
            .map(|(prompt, shortening)| (prompt.user, shortening))
    };
    assert!(!tokens(8).unwrap().1.any());
    let (prompt, shortening) = tokens(7).unwrap();
    assert_eq!(prompt, "history [ITEM_1] crimson [ITEM_2] candidates [ITEM_3] [ITEM_2]");
    assert_eq!(shortening.history_left_out, 0);
    assert_eq!(tokens(6).unwrap().0, "history [ITEM_1] [ITEM_2] candidates [ITEM_3] [ITEM_2]");
    let (prompt, shortening) = tokens(5).unwrap();
    assert_eq!(prompt, "history [ITEM_2] candidates [ITEM_3] [ITEM_2]");
    assert_eq!(shortening, Shortening { caption_chars: Some(0), history_left_out: 1, title_chars: None });
    let error = tokens(4).unwrap_err();
    assert!(matches!(
        error,
        Error::TooLong { user: UserId(4), whole: 8, least: 5, limit: 4, unit: Unit::Tokens }
    ));

    let chars = Options { max_chars: Some(50), ..compact.clone() };
    let (prompt, _) = write_with(&chars, Path::new(""), None).unwrap();
    assert_eq!(prompt.user, "history [ITEM_2] candidates [ITEM_3] [ITEM_2]");
    let unmeasured = Options { max_tokens: Some(50), ..compact };
    assert!(matches!(write_with(&unmeasured, Path::new(""), None), Err(Error::NoMeasure)));
}

#[test]
fn a_prompt_without_candidates_mentions_none() {
    let write = |template: &str| {
        let options = Options { template: template.to_owned(), ..Options::default() };
        let prompts = Prompts::new(&options, &completion::Options::default(), Path::new("")).unwrap();
        prompts.write(&catalogue(), UserId(4), &[ItemId(1), ItemId(2)], &[]).unwrap().0.user
    };
    assert_eq!(write("compact"), "history [ITEM_1] crimson desert [ITEM_2]");
    assert_eq!(write("ids"), "history [ITEM_1] [ITEM_2]");
    let words = write("words");
    assert!(
        words.contains("[ITEM_2] The \"Quoted\"\n\nOne item of the catalogue comes next.\n\nFirst reason"),
        "{words}"
    );
    assert!(words.contains("list the 3 items of the catalogue most likely to come next"), "{words}");
    assert!(!words.contains("candidate"), "{words}");
}

#[test]
fn titles_are_truncated_last() {
    let long = "Été à la campagne, ".repeat(400);
    let item =
        |id, title: &str| Item { id: ItemId(id), title: title.to_owned(), caption: None, interactions: 0 };
    let catalogue = Catalogue::new([item(1, "Dunes"), item(2, "Reef"), item(3, long.trim())]);
    let write = |max_chars| {
        let options = Options { max_chars: Some(max_chars), ..Options::default() };
        let prompts = Prompts::new(&options, &completion::Options::default(), Path::new("")).unwrap();
        prompts.write(&catalogue, UserId(4), &[ItemId(1), ItemId(2)], &[ItemId(3), ItemId(2)])
    };
    let (whole, shortening) = write(100_000).unwrap();
    assert!(!shortening.any() && whole.user.contains(long.trim()));
    let (prompt, shortening) = write(600).unwrap();
    assert!((500..=600).contains(&prompt.chars()), "{prompt:?}");
    assert_eq!((shortening.caption_chars, shortening.history_left_out), (None, 1));
    assert!(shortening.title_chars.is_some_and(|chars| chars >= 16));
    assert!(prompt.user.contains("[ITEM_3] Été à la campagne") && prompt.user.contains("[ITEM_2] Reef"));
    assert!(matches!(write(100), Err(Error::TooLong { limit: 100, .. })));
}

#[test]
fn the_compact_template_is_one_line() {
    let prompt = write("compact", Path::new("")).unwrap();
    assert_eq!(prompt, "history [ITEM_1] crimson desert [ITEM_2] candidates [ITEM_3] [ITEM_2]");
}

#[test]
fn the_ids_template_contains_only_ids() {
    let prompt = write("ids", Path::new("")).unwrap();
    assert_eq!(prompt, "history [ITEM_1] [ITEM_2] candidates [ITEM_3] [ITEM_2]");
}

#[test]
fn the_words_template_lists_items_and_instructs() {
    let prompt = write("words", Path::new("")).unwrap();
    let lines: Vec<&str> = prompt.lines().collect();
    assert_eq!(
        lines[..8],
        [
            "A user interacted with these items, oldest first:",
            "1. [ITEM_1] Dunes & <Storms> — crimson desert",
            "2. [ITEM_2] The \"Quoted\"",
            "",
            "One of these candidates comes next:",
            "[ITEM_3] Reef — teal ocean",
            "[ITEM_2] The \"Quoted\"",
            "",
        ]
    );
    assert!(lines[8].contains("list the 3 candidates"), "{prompt}");
    assert_eq!(lines[9], "[ITEM_<id>] <title>");
    assert_eq!(lines.len(), 10);
}

#[test]
fn a_custom_template_is_read_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine.jinja"), "{{ candidates | length }} of {{ history[0].title }}").unwrap();
    assert_eq!(write("mine.jinja", dir.path()).unwrap(), "2 of Dunes & <Storms>");

    assert!(matches!(write("absent.jinja", dir.path()), Err(Error::Read { .. })));
    fs::write(dir.path().join("open.jinja"), "{% for x in").unwrap();
    assert!(matches!(write("open.jinja", dir.path()), Err(Error::Parse { .. })));
    fs::write(dir.path().join("leak.jinja"), "{{ target }}").unwrap();
    assert!(matches!(write("leak.jinja", dir.path()), Err(Error::Render { .. })));
}

#[test]
fn an_unknown_item_is_an_error() {
    let prompts = Prompts::new(&Options::default(), &completion::Options::default(), Path::new("")).unwrap();
    assert!(matches!(
        prompts.write(&catalogue(), UserId(4), &[ItemId(9)], &[]),
        Err(Error::UnknownItem(ItemId(9)))
    ));
}

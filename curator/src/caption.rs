//! `podium-curator caption`: describes pictures in at most fifty words without naming the title.
//!
//! The model sees only the picture. Captions are validated here, since a caption that names the title would add no
//! information to it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use anyhow::Context;
use clap::Args;
use podium_files::durable;
use podium_recsys::ItemId;
use podium_service::output_line;
use serde_json::{Map, Value, json};

use crate::endpoint::{Message, Part};
use crate::naming::names;
use crate::pictures::{self, Pictures};
use crate::session::{self, Outcome, Question};
use crate::source;
use crate::wording;

/// Maximum length of a caption in words.
const MOST_WORDS: usize = 50;
/// Number of unusable files that are listed.
const SHOWN: usize = 20;
/// Token budget of a caption with some reasoning before it.
const MAX_TOKENS: u64 = 1024;

const INSTRUCTION: &str = "Describe this picture in at most 50 words: what is to be seen, its style, mood and colours, \
    and what kind of thing it seems to advertise. Do not give the name or title of anything, also where it is written \
    in the picture. Write one paragraph and nothing else.";

/// Describes the pictures of a data set's items.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::Arguments,
    #[command(flatten)]
    session: session::Arguments,
    /// Folder of the pictures. Default: images in the data folder.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
}

impl Arguments {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let source = self.source.load()?;
        let catalogue = &source.dataset.catalogue;
        let folder = self.images.clone().unwrap_or_else(|| source.folder.join("images"));
        let pictures = Pictures::list(&folder, catalogue)?;
        for (path, reason) in pictures.skipped.iter().take(SHOWN) {
            output_line!("skipped: {}: {reason}", path.display());
        }
        output_line!(
            "{} pictures of {} items, {} files skipped, {} items without a picture",
            pictures.of_items.len(),
            catalogue.len(),
            pictures.skipped.len(),
            catalogue.len() - pictures.of_items.len(),
        );
        let session = self.session.session("caption", &source.folder, MAX_TOKENS)?;

        let items: Vec<(ItemId, PathBuf)> = pictures.of_items.into_iter().collect();
        let title = |item: ItemId| catalogue.get(item).map_or("", |item| item.title.as_str());
        let results = session
            .each(&items, async |index| {
                let (item, path) = &items[index];
                let parts = vec![Part::Text(INSTRUCTION.to_owned()), Part::Picture(pictures::address(path)?)];
                let question = Question { messages: vec![Message::parts(parts)], sample: None };
                session.ask(&question, |answer| caption(answer, title(*item))).await
            })
            .await;
        let mut outcome = Outcome::default();
        let captions = outcome.sort(&items, results, |(item, _)| item.to_string());

        let output = source.file("captions.json");
        outcome.finish(&session, &output, || {
            let mut entries = entries(&output)?;
            let mut any = false;
            for ((item, _), caption) in items.iter().zip(captions) {
                any |= caption.is_some_and(|caption| enter(&mut entries, *item, title(*item), &caption));
            }
            if any {
                // Sorted by item number, as the importer writes them; other entries come last.
                let mut sorted: Vec<_> = entries.into_iter().collect();
                sorted.sort_by_key(|(key, _)| key.parse::<u64>().unwrap_or(u64::MAX));
                let text = format!("{:#}\n", Value::Object(sorted.into_iter().collect()));
                durable::write(&output, text.as_bytes())?;
            }
            Ok(any)
        })
    }
}

/// Reads the captions file; empty if it does not exist.
fn entries(path: &Path) -> anyhow::Result<Map<String, Value>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        Ok(bytes) => serde_json::from_slice(bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes))
            .with_context(|| format!("{}: expected a JSON object with one entry per item", path.display())),
    }
}

/// Sets the caption in the item's entry and preserves its other fields. Returns whether the entry changed.
fn enter(entries: &mut Map<String, Value>, item: ItemId, title: &str, caption: &str) -> bool {
    let entry = entries.entry(item.0.to_string()).or_insert(Value::Null);
    if let Value::Object(fields) = entry {
        let old = fields.insert("caption".to_owned(), caption.into());
        return old.is_none_or(|old| old != caption);
    }
    *entry = json!({ "title": title, "caption": caption });
    true
}

/// Validates a caption; the error is the violated rule.
fn caption(answer: &str, title: &str) -> Result<String, String> {
    let caption = answer.split_whitespace().collect::<Vec<_>>().join(" ");
    let count = wording::count(&caption);
    if caption.is_empty() {
        Err("it is empty".to_owned())
    } else if count > MOST_WORDS {
        Err(format!("it has {count} words and may have at most {MOST_WORDS}"))
    } else if names(&caption, title) {
        Err("it gives the title away; describe what is to be seen without naming it".to_owned())
    } else {
        Ok(caption)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_validated() {
        assert_eq!(caption(" a cat\n on a mat ", "Dogs").unwrap(), "a cat on a mat");
        assert_eq!(caption("", "Dogs"), Err("it is empty".to_owned()));
        assert!(caption(&"word ".repeat(50), "Dogs").is_ok());
        assert!(caption(&"word ".repeat(51), "Dogs").unwrap_err().contains("51 words"));
        assert!(caption("The Night Train at noon", "Night Train").unwrap_err().contains("title"));
        assert!(caption("海报上写着卧虎藏龙", "卧虎藏龙").unwrap_err().contains("title"));
        // Texts of fifty and of a hundred words, in scripts without spaces.
        for sentence in ["黑色的猫和红色的狗", "黒い猫と赤い犬が", "แมวสีดำและหมาสีแดง"]
        {
            let words = wording::count(sentence);
            assert!((5..=8).contains(&words), "{sentence}: {words}");
            assert!(caption(&sentence.repeat(50 / words - 1), "Dogs").is_ok(), "{sentence}");
            assert!(
                caption(&sentence.repeat(100 / words), "Dogs").unwrap_err().contains("at most 50"),
                "{sentence}"
            );
        }
    }
}

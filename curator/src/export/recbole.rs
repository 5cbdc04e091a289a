//! RecBole's atomic files.
//!
//! RecBole sorts a user's interactions by `timestamp`; here it is the position in the user's sequence.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use podium_files::durable;
use podium_recsys::Dataset;

use super::interactions::Sequence;

/// Writes the files and returns their names.
pub(super) fn write(
    folder: &Path,
    data: &Dataset,
    sequences: &[Sequence<'_>],
) -> Result<Vec<String>, durable::Error> {
    let name = &data.name;
    let files = ["inter", "item", "user"].map(|suffix| format!("{name}.{suffix}"));
    let [inter, item, user] = &files;
    table(&folder.join(inter), |rows| {
        let header = ["user_id:token", "item_id:token", "timestamp:float", "part:token", "target:token"];
        rows.write_record(header)?;
        for sequence in sequences {
            let user = sequence.user.0.to_string();
            for one in sequence.interactions() {
                let target = if one.target { "1" } else { "0" };
                let (item, position) = (one.item.0.to_string(), one.position.to_string());
                rows.write_record([user.as_str(), &item, &position, one.part.name(), target])?;
            }
        }
        Ok(())
    })?;
    let items = data.catalogue.items();
    let captions = items.iter().any(|item| item.caption.is_some());
    let width = if captions { 3 } else { 2 };
    table(&folder.join(item), |rows| {
        rows.write_record(&["item_id:token", "title:token_seq", "caption:token_seq"][..width])?;
        for item in items {
            let (id, caption) = (item.id.0.to_string(), item.caption.as_deref().unwrap_or_default());
            rows.write_record(&[id.as_str(), &words(&item.title), &words(caption)][..width])?;
        }
        Ok(())
    })?;
    table(&folder.join(user), |rows| {
        rows.write_record(["user_id:token", "parts:token_seq"])?;
        for sequence in sequences {
            let parts: Vec<&str> = sequence.rows.iter().map(|(part, _)| part.name()).collect();
            rows.write_record([sequence.user.0.to_string().as_str(), &parts.join(" ")])?;
        }
        Ok(())
    })?;
    Ok(files.into())
}

/// Writes a table with tabs. Fields with quotes are quoted, as RecBole's reader expects.
fn table(
    path: &Path,
    fill: impl FnOnce(&mut csv::Writer<BufWriter<&mut File>>) -> csv::Result<()>,
) -> Result<(), durable::Error> {
    let write = |file: &mut File| {
        let to = BufWriter::with_capacity(1 << 18, file);
        let mut rows = csv::WriterBuilder::new().delimiter(b'\t').from_writer(to);
        fill(&mut rows)?;
        rows.flush()
    };
    durable::write_with(path, write)
}

/// Separates the words of a text by single spaces: a sequence of tokens.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

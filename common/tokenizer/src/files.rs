//! The tokenizer's files in a model folder.

use std::fs;
use std::path::Path;

use crate::configuration::{GENERATION_CONFIG, TOKENIZER, TOKENIZER_CONFIG};
use crate::error::Error;
use crate::templates::{ADDITIONAL, CHAT_TEMPLATE, further};

/// Tokenizer files that are copied into every policy version, in addition to the folder of additional templates. The
/// model's own files are not included.
const COPIED: [&str; 8] = [
    TOKENIZER,
    TOKENIZER_CONFIG,
    CHAT_TEMPLATE,
    GENERATION_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// Returns the existing tokenizer files of a model folder, by their paths within it, such as `tokenizer.json` and
/// `additional_chat_templates/tool_use.jinja`.
pub fn tokenizer_files(folder: &Path) -> Result<Vec<String>, Error> {
    let own = COPIED.into_iter().filter(|name| folder.join(name).is_file()).map(str::to_owned);
    let further = further(folder)?.into_iter();
    Ok(own.chain(further.map(|(name, _)| format!("{ADDITIONAL}/{name}.jinja"))).collect())
}

/// Copies the existing tokenizer files from one model folder into another.
pub fn copy_files(from: &Path, to: &Path) -> Result<(), Error> {
    for name in tokenizer_files(from)? {
        let (source_path, path) = (from.join(&name), to.join(&name));
        let copied =
            path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::copy(&source_path, &path));
        copied.map_err(|source| Error::File { action: "write", path, source })?;
    }
    Ok(())
}

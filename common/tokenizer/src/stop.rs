//! Which tokens end an answer.

use std::path::Path;

use serde::Deserialize;

use crate::{Error, read_json};

#[derive(Deserialize)]
struct Ends {
    #[serde(default)]
    eos_token_id: Option<Ids>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Several(Vec<u32>),
}

#[derive(Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    eos_token: Option<Token>,
}

/// A token by its text, in either of the two forms that files have.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Object { content: String },
}

/// The stop tokens of a folder, in the order of [`crate::Tokenizer::stop_token_ids`].
pub(crate) fn read(folder: &Path, tokenizer: &tokenizers::Tokenizer) -> Result<Vec<u32>, Error> {
    let mut ids = Vec::new();
    for name in ["generation_config.json", "config.json"] {
        match read_json::<Ends>(&folder.join(name))?.and_then(|ends| ends.eos_token_id) {
            Some(Ids::One(id)) => ids.push(id),
            Some(Ids::Several(several)) => ids.extend(several),
            None => {}
        }
    }
    let path = folder.join("tokenizer_config.json");
    if let Some(token) = read_json::<TokenizerConfig>(&path)?.and_then(|config| config.eos_token) {
        let (Token::Text(token) | Token::Object { content: token }) = token;
        let id = tokenizer.token_to_id(&token).ok_or(Error::UnknownToken { path, token })?;
        ids.push(id);
    }
    let mut seen = std::collections::BTreeSet::new();
    ids.retain(|id| seen.insert(*id));
    Ok(ids)
}

//! Tokens that are declared outside of `tokenizer.json`, with the precedence of Transformers 5: if
//! `tokenizer_config.json` has `added_tokens_decoder`, the legacy files `special_tokens_map.json` and
//! `added_tokens.json` are ignored; otherwise `special_tokens_map.json` takes precedence over it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

use crate::configuration::{Config, TOKENIZER_CONFIG, read_config, wrong};
use crate::error::Error;

const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";

/// Names that every tokenizer of Transformers has, in the order in which Transformers adds their tokens.
const STANDARD: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

const EXTRA: &str = "extra_special_tokens";
/// The name of [`EXTRA`] before Transformers 5.
const ADDITIONAL: &str = "additional_special_tokens";
const DECODER: &str = "added_tokens_decoder";
const MODEL_SPECIFIC: &str = "model_specific_special_tokens";

/// Declarations in the files other than `tokenizer.json`.
#[derive(Debug, Default)]
pub(crate) struct Declarations {
    /// Named tokens, which are also variables of templates.
    named: Vec<(String, AddedToken)>,
    /// Special tokens without a name.
    extra: Vec<AddedToken>,
    /// Tokens with a declared id, and the file and key of the declaration.
    numbered: Vec<(u32, AddedToken, PathBuf, String)>,
    /// Whether the legacy files are read.
    legacy: bool,
}

impl Declarations {
    pub(crate) fn read(folder: &Path, config: &Config) -> Result<Self, Error> {
        let path = folder.join(TOKENIZER_CONFIG);
        let mut declared = Self::default();
        let mut standard: Vec<Option<AddedToken>> = Vec::new();
        for name in STANDARD {
            standard.push(config.get(name).map(|value| token(&path, name, value)).transpose()?.flatten());
        }
        let mut specific = specific_of(&path, config, false)?;
        // A dictionary names its tokens; the list, if any, has the other key.
        let by_name = config.get(EXTRA).is_some_and(Value::is_object);
        let elsewhere = by_name || is_empty(config.get(EXTRA));
        let key = if elsewhere && config.contains_key(ADDITIONAL) { ADDITIONAL } else { EXTRA };
        let extra = config.get(key).filter(|extra| !(extra.is_null() || by_name && key == EXTRA));
        declared.extra = extra.map(|extra| list(&path, key, extra)).transpose()?.unwrap_or_default();

        if let Some(decoder) = config.get(DECODER) {
            declared.read_decoder(&path, decoder)?;
        } else {
            let path = folder.join(SPECIAL_TOKENS_MAP);
            let legacy = read_config(&path)?;
            for (name, slot) in STANDARD.iter().zip(&mut standard) {
                if let Some(value) = legacy.get(*name) {
                    *slot = token(&path, name, value)?;
                }
            }
            merge(&mut specific, specific_of(&path, &legacy, true)?);
            match legacy.get(EXTRA) {
                Some(more @ Value::Array(_)) => {
                    for token in list(&path, EXTRA, more)? {
                        if !declared.extra.contains(&token) {
                            declared.extra.push(token);
                        }
                    }
                }
                Some(Value::Object(_)) => declared.extra.clear(),
                Some(other) if !other.is_null() => return Err(wrong(&path, EXTRA, other, "tokens")),
                _ => {}
            }
            let is_free = legacy.get(EXTRA).is_none() && (by_name || !config.contains_key(EXTRA));
            if let Some(extra) = legacy.get(ADDITIONAL).filter(|extra| !extra.is_null()) {
                let extra = list(&path, ADDITIONAL, extra)?;
                if is_free && !config.contains_key(ADDITIONAL) {
                    declared.extra = extra;
                }
            }
            declared.legacy = true;
            let named = STANDARD.iter().map(|name| (*name).to_owned()).zip(standard.iter().cloned());
            declared.named = named.filter_map(|(name, token)| Some((name, token?))).collect();
            declared.read_added(&folder.join(ADDED_TOKENS))?;
        }
        let named = STANDARD.iter().map(|name| (*name).to_owned()).zip(standard);
        declared.named = named.filter_map(|(name, token)| Some((name, token?))).collect();
        merge(&mut declared.named, specific);
        declared.numbered.sort_by_key(|(id, ..)| *id);
        Ok(declared)
    }

    fn read_decoder(&mut self, path: &Path, decoder: &Value) -> Result<(), Error> {
        let expected = "tokens by id";
        let tokens = decoder.as_object().ok_or_else(|| wrong(path, DECODER, decoder, expected))?;
        for (id, value) in tokens {
            let key = format!("{DECODER}.{id}");
            let number = id.parse().map_err(|_| wrong(path, &key, value, expected))?;
            let token =
                detailed(value, false).ok_or_else(|| wrong(path, &key, value, "a token with its content"))?;
            self.numbered.push((number, token, path.to_owned(), key));
        }
        Ok(())
    }

    fn read_added(&mut self, path: &Path) -> Result<(), Error> {
        let special: Vec<String> = self
            .named
            .iter()
            .map(|(_, token)| token)
            .chain(&self.extra)
            .map(|token| token.content.clone())
            .collect();
        for (content, id) in &read_config(path)? {
            let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let number = number.ok_or_else(|| wrong(path, content, id, "the token's id"))?;
            let token = AddedToken::from(content.as_str(), special.contains(content));
            self.numbered.push((number, token, path.to_owned(), content.clone()));
        }
        Ok(())
    }

    /// Adds the tokens that the tokenizer lacks. Fails if a token gets another id than the declared one.
    pub(crate) fn add_to(&self, tokenizer: &mut Tokenizer) -> Result<(), Error> {
        let mut tokens: Vec<AddedToken> = self.numbered.iter().map(|(_, token, ..)| token.clone()).collect();
        let known = tokenizer.get_added_tokens_decoder();
        let names: Vec<&AddedToken> = self.named.iter().map(|(_, token)| token).collect();
        for token in names.iter().copied().chain(&self.extra) {
            let same = |other: &AddedToken| other.content == token.content;
            if !known.values().any(same) && !tokens.iter().any(same) {
                tokens.push(token.clone());
            }
        }
        if self.legacy {
            // Transformers then adds the tokens of tokenizer.json again and marks the named ones as special.
            tokens.extend(known.values().filter(|token| !token.special).cloned());
        }
        for token in &mut tokens {
            token.special |= names.iter().any(|name| name.content == token.content);
        }
        tokens.retain(|token| known.values().all(|other| other != token));
        tokenizer.add_tokens(&tokens);
        for (id, token, path, key) in &self.numbered {
            let found = tokenizer.token_to_id(&token.content);
            if found != Some(*id) {
                return Err(Error::TokenId {
                    path: path.clone(),
                    key: key.as_str().into(),
                    token: token.content.as_str().into(),
                    declared: *id,
                    found,
                });
            }
        }
        Ok(())
    }

    /// Returns the named tokens and their texts.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        self.named.iter().map(|(name, token)| (name.clone(), token.content.clone())).collect()
    }
}

/// Whether the value is false in Python.
fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(entries)) => entries.is_empty(),
        Some(_) => false,
    }
}

/// Tokens under model-specific names: every key that ends in `_token`, and dictionaries of tokens. `untyped`: whether
/// an object with a token's properties is a token without `__type`.
fn specific_of(path: &Path, config: &Config, untyped: bool) -> Result<Vec<(String, AddedToken)>, Error> {
    let mut tokens = Vec::new();
    // Transformers takes tokens with properties first, and otherwise only strings.
    let is_typed = |value: &Value| value.get(if untyped { "content" } else { "__type" }).is_some();
    for typed in [true, false] {
        for (name, value) in config {
            let own = name.ends_with("_token") && !STANDARD.contains(&name.as_str());
            if own && if typed { is_typed(value) } else { value.is_string() } {
                tokens.extend(token(path, name, value)?.map(|token| (name.clone(), token)));
            }
        }
    }
    let has_strings = tokens.iter().any(|(name, _)| config[name.as_str()].is_string());
    let extra = config.get(EXTRA).and_then(Value::as_object);
    let specific =
        config.get(MODEL_SPECIFIC).and_then(Value::as_object).filter(|_| !has_strings && extra.is_none());
    for (key, dictionary) in [(EXTRA, extra), (MODEL_SPECIFIC, specific)] {
        let mut more = Vec::new();
        for (name, value) in dictionary.into_iter().flatten() {
            let key = format!("{key}.{name}");
            let token = token(path, &key, value)?;
            more.push((name.clone(), token.ok_or_else(|| wrong(path, &key, value, "a token"))?));
        }
        merge(&mut tokens, more);
    }
    Ok(tokens)
}

/// Adds `more`; its values replace those with the same name.
fn merge(tokens: &mut Vec<(String, AddedToken)>, more: Vec<(String, AddedToken)>) {
    for (name, token) in more {
        match tokens.iter_mut().find(|(found, _)| *found == name) {
            Some(entry) => entry.1 = token,
            None => tokens.push((name, token)),
        }
    }
}

fn list(path: &Path, key: &str, value: &Value) -> Result<Vec<AddedToken>, Error> {
    let tokens = value.as_array().ok_or_else(|| wrong(path, key, value, "a list of tokens"))?;
    let token = |value| token(path, key, value)?.ok_or_else(|| wrong(path, key, value, "a token"));
    tokens.iter().map(token).collect()
}

/// Parses a special token, given as text or with its properties; `None` for null.
fn token(path: &Path, key: &str, value: &Value) -> Result<Option<AddedToken>, Error> {
    match value {
        Value::Null => Ok(None),
        Value::String(content) => Ok(Some(AddedToken::from(content.as_str(), true))),
        value => detailed(value, true)
            .map(Some)
            .ok_or_else(|| wrong(path, key, value, "a token, or its properties")),
    }
}

/// Parses a token with its properties. `special`: the default of that property.
fn detailed(value: &Value, special: bool) -> Option<AddedToken> {
    let content = value.get("content")?.as_str()?;
    let flag = |name: &str, default: bool| match value.get(name) {
        None => Some(default),
        Some(flag) => flag.as_bool(),
    };
    let special = flag("special", special)?;
    Some(AddedToken {
        content: content.to_owned(),
        single_word: flag("single_word", false)?,
        lstrip: flag("lstrip", false)?,
        rstrip: flag("rstrip", false)?,
        normalized: flag("normalized", !special)?,
        special,
    })
}

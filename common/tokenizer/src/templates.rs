//! Selects the chat template of a folder by the rules of Transformers: files take precedence over
//! `tokenizer_config.json`, and of several templates the one named `default` is used.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::configuration::{Config, TOKENIZER_CONFIG, wrong};
use crate::error::Error;

pub(crate) const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// The folder of additional templates.
pub(crate) const ADDITIONAL: &str = "additional_chat_templates";

/// The extension of their names.
const JINJA: &str = ".jinja";

/// The chat template of a folder.
#[derive(Debug)]
pub(crate) enum Choice<T> {
    /// The selected template.
    Template(T),
    /// There is no template.
    None,
    /// There are several templates without a default: their location and names.
    NoDefault(PathBuf, Vec<String>),
}

impl<T> Choice<T> {
    /// Converts the template, if there is one.
    pub(crate) fn try_map<U, E>(self, map: impl FnOnce(T) -> Result<U, E>) -> Result<Choice<U>, E> {
        Ok(match self {
            Self::Template(template) => Choice::Template(map(template)?),
            Self::None => Choice::None,
            Self::NoDefault(path, names) => Choice::NoDefault(path, names),
        })
    }
}

/// Selects the same template as Transformers, with its file.
pub(crate) fn choose(folder: &Path, config: &Config) -> Result<Choice<(PathBuf, String)>, Error> {
    let own = folder.join(CHAT_TEMPLATE);
    let further = further(folder)?;
    if own.exists() || !further.is_empty() {
        // A file named default in the folder takes precedence over chat_template.jinja.
        let default = further.iter().find(|(name, _)| name == "default").map(|(_, path)| path.clone());
        let Some(path) = default.or_else(|| own.exists().then_some(own)) else {
            let names = further.into_iter().map(|(name, _)| name).collect();
            return Ok(Choice::NoDefault(folder.join(ADDITIONAL), names));
        };
        let source = read_text(&path)?;
        return Ok(Choice::Template((path, source)));
    }
    let path = folder.join(TOKENIZER_CONFIG);
    let key = "chat_template";
    let expected = "a template, or templates by name";
    let named: Vec<(&str, &Value)> = match config.get(key) {
        None | Some(Value::Null) => return Ok(Choice::None),
        Some(Value::String(source)) => return Ok(Choice::Template((path, source.clone()))),
        Some(Value::Object(templates)) => {
            templates.iter().map(|(name, template)| (name.as_str(), template)).collect()
        }
        Some(Value::Array(templates)) => {
            let all: Option<Vec<_>> = templates
                .iter()
                .map(|one| Some((one.get("name")?.as_str()?, one.get("template")?)))
                .collect();
            all.ok_or_else(|| wrong(&path, key, &config[key], expected))?
        }
        Some(other) => return Err(wrong(&path, key, other, expected)),
    };
    // Of equal names the last one is used.
    match named.iter().rev().find(|(name, _)| *name == "default") {
        Some((_, Value::String(source))) => Ok(Choice::Template((path, source.clone()))),
        Some((name, other)) => Err(wrong(&path, &format!("{key}.{name}"), other, "a template")),
        None => Ok(Choice::NoDefault(path, named.into_iter().map(|(name, _)| name.to_owned()).collect())),
    }
}

/// Returns the additional templates of a folder by name.
pub(crate) fn further(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let path = folder.join(ADDITIONAL);
    let failed = |source| Error::File { action: "read", path: path.clone(), source };
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(source) => return Err(failed(source)),
    };
    let mut templates = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(JINJA)
            && entry.path().is_file()
        {
            templates.push((name.to_owned(), entry.path()));
        }
    }
    templates.sort();
    Ok(templates)
}

/// Reads a text file, which has to be UTF-8.
fn read_text(path: &Path) -> Result<String, Error> {
    let bytes =
        fs::read(path).map_err(|source| Error::File { action: "read", path: path.to_owned(), source })?;
    String::from_utf8(bytes)
        .map_err(|error| Error::Encoding { path: path.to_owned(), byte: error.utf8_error().valid_up_to() })
}

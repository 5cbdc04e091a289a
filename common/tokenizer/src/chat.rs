//! Chat templates: Jinja as Transformers renders it.

use std::path::Path;

use minijinja::{Environment, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::{Error, read, read_json};

const NAME: &str = "chat";

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

/// What a template can ask for beside the messages.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Variables {
    /// Ends the text with the start of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Qwen3's switch; absent for templates that know no such thing, and for their own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_thinking: Option<bool>,
    /// Anything else that a template reads.
    #[serde(flatten)]
    pub extra: Map<String, serde_json::Value>,
}

/// A compiled template with the special tokens that it may name.
#[derive(Debug)]
pub(crate) struct Template {
    environment: Option<Environment<'static>>,
    folder: std::path::PathBuf,
    special_tokens: Map<String, serde_json::Value>,
}

impl Template {
    pub(crate) fn load(folder: &Path) -> Result<Self, Error> {
        let config: Map<String, serde_json::Value> =
            read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let file = folder.join("chat_template.jinja");
        let source = if file.exists() {
            Some(read(&file)?)
        } else {
            config.get("chat_template").and_then(default_template)
        };
        let environment = source.map(compile).transpose()?;
        let special_tokens = config
            .into_iter()
            .filter(|(key, _)| key.ends_with("_token"))
            .filter_map(|(key, token)| {
                let text = token.get("content").unwrap_or(&token).as_str()?.to_owned();
                Some((key, text.into()))
            })
            .collect();
        Ok(Self { environment, folder: folder.to_owned(), special_tokens })
    }

    pub(crate) fn render(&self, messages: &[Message], variables: &Variables) -> Result<String, Error> {
        let environment =
            self.environment.as_ref().ok_or_else(|| Error::NoTemplate { folder: self.folder.clone() })?;
        let template = environment.get_template(NAME)?;
        let named = context! { messages, ..Value::from_serialize(variables) };
        Ok(template.render(context! { ..named, ..Value::from_serialize(&self.special_tokens) })?)
    }
}

/// A `chat_template` is a text, or a list of named ones of which `default` is meant.
fn default_template(entry: &serde_json::Value) -> Option<String> {
    let text = match entry {
        serde_json::Value::Array(named) => named
            .iter()
            .find(|template| template["name"] == "default")
            .map(|template| &template["template"])?,
        text => text,
    };
    text.as_str().map(str::to_owned)
}

/// The settings and functions that Transformers gives its templates.
fn compile(source: String) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_filter("tojson", to_json);
    environment.add_template_owned(NAME, source)?;
    Ok(environment)
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`: unlike Jinja's own filter it escapes nothing for HTML.
fn to_json(value: &Value, options: minijinja::value::Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let failed =
        |error: serde_json::Error| minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string());
    let mut text = Vec::new();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width);
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value
                .serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))
                .map_err(failed)?;
        }
        None => {
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Spaced)).map_err(failed)?
        }
    }
    Ok(String::from_utf8(text).expect("serde_json writes UTF-8"))
}

/// One line with a space after commas and colons, as Python writes it.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

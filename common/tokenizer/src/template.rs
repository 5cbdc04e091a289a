//! Chat templates: Jinja as Transformers renders it.
//!
//! `strftime_now` is left undefined although Transformers has it: a prompt must not depend on the day. Templates that
//! use it fall back to a date of their own, or take one from [`Variables::extra`].

use std::collections::BTreeMap;
use std::io;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, ErrorKind, Output, State, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter};

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of the role `system`, `user` or `assistant`.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into() }
    }
}

/// What a template knows besides the messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variables {
    /// Whether the text ends where the assistant is to begin.
    pub add_generation_prompt: bool,
    /// Whether the assistant is to reason first; none leaves it to the template.
    pub enable_thinking: Option<bool>,
    /// Further variables of the template. They win over those above.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Variables {
    /// Those of a prompt, after which the assistant is to begin.
    pub fn prompt(enable_thinking: Option<bool>, extra: &BTreeMap<String, serde_json::Value>) -> Self {
        let extra = extra.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { add_generation_prompt: true, enable_thinking, extra }
    }
}

const NAME: &str = "chat";

/// Instructions of one rendering. A message takes some dozens; a template that loops without end is stopped.
const MOST_INSTRUCTIONS: u64 = 10_000_000;

/// Spaces by which JSON is indented.
const WIDEST_INDENT: usize = 32;

#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    pub(crate) fn new(
        source: String,
        special_tokens: BTreeMap<String, String>,
    ) -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.set_formatter(write_as_python);
        environment.set_fuel(Some(MOST_INSTRUCTIONS));
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        environment.add_template_owned(NAME, source)?;
        Ok(Self { environment, special_tokens })
    }

    pub(crate) fn render(
        &self,
        messages: &[Message],
        variables: &Variables,
    ) -> Result<String, minijinja::Error> {
        let mut context: BTreeMap<&str, Value> =
            self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token))).collect();
        context.insert("messages", Value::from_serialize(messages));
        context.insert("add_generation_prompt", variables.add_generation_prompt.into());
        if let Some(enable_thinking) = variables.enable_thinking {
            context.insert("enable_thinking", enable_thinking.into());
        }
        for (name, value) in &variables.extra {
            context.insert(name, Value::from_serialize(value));
        }
        self.environment.get_template(NAME)?.render(context! { ..Value::from_serialize(context) })
    }
}

/// Writes a value as Python's `str` does.
fn write_as_python(output: &mut Output, state: &State, value: &Value) -> Result<(), minijinja::Error> {
    let text = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(output, state, value),
    };
    Ok(output.write_str(text)?)
}

/// A template's way to refuse messages.
fn raise_exception(message: &str) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

/// JSON as Python's `json.dumps(ensure_ascii=False)` writes it, without the escapes for HTML of Jinja's own filter.
#[allow(clippy::needless_pass_by_value, reason = "the template engine passes named arguments by value")]
fn to_json(value: &Value, arguments: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = arguments.get("indent")?;
    // Transformers' default, accepted as such.
    let _: Option<bool> = arguments.get("ensure_ascii")?;
    arguments.assert_all_used()?;
    if indent.is_some_and(|indent| indent > WIDEST_INDENT) {
        let message = format!("indent is {indent:?}, expected at most {WIDEST_INDENT}");
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, message));
    }
    let mut bytes = Vec::new();
    let written = match indent {
        Some(indent) => {
            let indent = vec![b' '; indent];
            serialize(value, &mut bytes, PrettyFormatter::with_indent(&indent))
        }
        None => serialize(value, &mut bytes, PythonFormatter),
    };
    let failed = |message| minijinja::Error::new(ErrorKind::BadSerialization, message);
    written.map_err(|error| failed("a value cannot be written as JSON").with_source(error))?;
    let text = String::from_utf8(bytes).map_err(|error| failed("JSON is UTF-8").with_source(error))?;
    Ok(Value::from_safe_string(text))
}

fn serialize(value: &Value, bytes: &mut Vec<u8>, formatter: impl Formatter) -> Result<(), serde_json::Error> {
    value.serialize(&mut serde_json::Serializer::with_formatter(bytes, formatter))
}

/// The separators of Python: `, ` and `: `.
struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

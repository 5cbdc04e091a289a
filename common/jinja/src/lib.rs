//! Chat templates: Jinja2 as Transformers renders it.
//!
//! A template that renders here renders to the same text there, character by character; what cannot be rendered so is
//! refused with its line. That is why this is no engine for templates in general: values behave as Python's (`1 == true`,
//! floor division, what is printed for lists and floats, what is iterable, which operations raise), names have the scopes
//! of Jinja's compiled code, and the sandbox of Transformers forbids the same.
//!
//! Pure: knows nothing of files, tokens or the day. `strftime_now` is undefined although Transformers has it: a prompt must
//! not depend on the day, and templates fall back to a date of their own.
//!
//! From text to tokens (`lexer`), to a tree (`parser`, `statements`, at a `cursor`), to text (`render`, `expressions`); the other modules
//! are Python's library as far as templates see it.

mod arguments;
mod collections;
mod cursor;
mod expressions;
mod fault;
mod filters;
mod format;
mod functions;
mod json;
mod lexer;
mod literals;
mod lookup;
mod methods;
mod operators;
mod parser;
mod render;
mod statements;
mod strings;
mod tests;
mod text;
mod tree;
mod value;

use std::sync::Arc;

pub use fault::Error;

/// A chat template, ready to be rendered.
#[derive(Debug)]
pub struct Template {
    statements: Vec<tree::Statement>,
}

impl Template {
    /// Reads a template. One that is malformed is refused, and so is one with a tag, a filter or a test that is not
    /// supported.
    pub fn new(source: &str) -> Result<Self, Error> {
        let statements = parser::parse(source).map_err(fault::Fault::public)?;
        Ok(Self { statements })
    }

    /// The text for variables by name. Of equal names the last one counts.
    pub fn render<'v>(
        &self,
        variables: impl IntoIterator<Item = (&'v str, &'v serde_json::Value)>,
    ) -> Result<String, Error> {
        let variables = variables.into_iter().map(|(name, value)| {
            let value = value::Value::of_json(value)?;
            Ok((Arc::from(name), value))
        });
        let rendered = variables
            .collect::<fault::Result<Vec<_>>>()
            .and_then(|variables| render::Renderer::default().render(&self.statements, variables));
        rendered.map_err(fault::Fault::public)
    }
}

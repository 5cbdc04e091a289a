//! Chat templates: Jinja2 as Transformers renders it.
//!
//! A template renders to the same text as in Transformers, character by character; unsupported templates are
//! rejected with the line. The crate is therefore not a general template engine. Values behave as in Python (`1 ==
//! true`, floor division, printing of lists and floats, iteration, failing operations). Names have the scopes of
//! Jinja's compiled code, and the sandbox of Transformers defines the forbidden operations.
//!
//! The crate is pure: it does not use files, tokens or the date. `strftime_now` is undefined although Transformers has
//! it: a prompt must not depend on the date, and templates fall back to a fixed date.
//!
//! `lexer` splits the text into tokens, and `parser` and `statements` build the tree from a `cursor`. `render` executes
//! statements, `expressions` evaluates expressions in a `scope`, and `meter` limits both. The other modules implement the
//! parts of Python's library that templates can use.

mod arguments;
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
mod meter;
mod methods;
mod number;
mod operators;
mod parser;
mod render;
mod scope;
mod statements;
mod strings;
mod tests;
mod text;
mod tree;
mod value;

use std::sync::Arc;

pub use fault::Error;

/// A parsed chat template.
#[derive(Debug)]
pub struct Template {
    statements: Vec<tree::Statement>,
}

impl Template {
    /// Parses a template. Fails if it is malformed or uses an unsupported tag, filter or test.
    pub fn new(source: &str) -> Result<Self, Error> {
        let statements = parser::parse(source).map_err(fault::Fault::public)?;
        Ok(Self { statements })
    }

    /// Renders the template with variables by name. Of equal names the last one is used.
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

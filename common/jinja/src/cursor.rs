//! Position of a parser in its tokens.

use std::sync::Arc;

use crate::fault::{Fault, Result, fault};
use crate::lexer::Token;
use crate::tree::DEEPEST;

pub(crate) struct Parser {
    pub(crate) tokens: Vec<(usize, Token)>,
    pub(crate) at: usize,
    pub(crate) depth: usize,
    /// Whether the position is inside a loop, where `break` and `continue` are valid.
    pub(crate) in_loop: bool,
    /// Whether the current macro refers to `caller`.
    pub(crate) caller_seen: bool,
    /// Number of enclosing macros.
    pub(crate) macros: usize,
}

impl Parser {
    pub(crate) fn line(&self) -> usize {
        self.tokens[self.at].0
    }

    pub(crate) fn current(&self) -> &Token {
        &self.tokens[self.at].1
    }

    pub(crate) fn next_token(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].1
    }

    /// Returns the current token and advances.
    pub(crate) fn take(&mut self) -> Token {
        let token = self.current().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub(crate) fn is_operator(&self, operator: &str) -> bool {
        matches!(self.current(), Token::Operator(found) if *found == operator)
    }

    pub(crate) fn is_name(&self, name: &str) -> bool {
        matches!(self.current(), Token::Name(found) if found == name)
    }

    pub(crate) fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        if found {
            self.take();
        }
        found
    }

    pub(crate) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.take();
        }
        found
    }

    pub(crate) fn unexpected(&self, expected: &str) -> Fault {
        fault(format!("expected {expected}, found {}", self.current().describe())).at(self.line())
    }

    pub(crate) fn expect_operator(&mut self, operator: &str) -> Result<()> {
        if self.skip_operator(operator) { Ok(()) } else { Err(self.unexpected(&format!("{operator:?}"))) }
    }

    pub(crate) fn expect_name(&mut self) -> Result<Arc<str>> {
        match self.current() {
            Token::Name(name) => {
                let name = Arc::from(name.as_str());
                self.take();
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// Runs `parse` one nesting level deeper.
    pub(crate) fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= DEEPEST {
            return Err(fault(format!("the template is nested more than {DEEPEST} deep")).at(self.line()));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }
}

//! Parses statements by Jinja's grammar, with the extensions of Transformers: `generation`, `break` and `continue`.

use std::sync::Arc;

use crate::cursor::Parser;
use crate::fault::{Result, fault, unsupported};
use crate::lexer::Token;
use crate::tree::{Expression, FilterCall, For, Kind, Macro, Statement, Target};

/// Constants, which cannot be assigned to.
const CONSTANTS: [&str; 6] = ["true", "false", "none", "True", "False", "None"];

impl Parser {
    /// Parses statements up to one of the tags `ends`, whose name becomes the next token, or to the end of the
    /// template.
    pub(crate) fn statements(&mut self, ends: &[&str]) -> Result<Vec<Statement>> {
        self.deeper(|parser| parser.statements_here(ends))
    }

    fn statements_here(&mut self, ends: &[&str]) -> Result<Vec<Statement>> {
        let mut statements = Vec::new();
        loop {
            match self.take() {
                Token::Data(text) => statements.push(Statement::Text(text)),
                Token::VariableBegin => {
                    statements.push(Statement::Output(self.tuple(true, false)?));
                    if *self.current() != Token::VariableEnd {
                        return Err(self.unexpected("the end of the expression"));
                    }
                    self.take();
                }
                Token::BlockBegin => {
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(statements);
                    }
                    statements.push(self.statement()?);
                    self.block_end()?;
                }
                Token::End if ends.is_empty() => return Ok(statements),
                Token::End => {
                    let expected = ends.join(" or ");
                    return Err(fault(format!("the block has no end: expected {expected}")));
                }
                token => {
                    return Err(fault(format!("unexpected {}", token.describe())).at(self.line()));
                }
            }
        }
    }

    fn block_end(&mut self) -> Result<()> {
        if *self.current() != Token::BlockEnd {
            return Err(self.unexpected("the end of the block"));
        }
        self.take();
        Ok(())
    }

    /// Parses the body of a block up to one of the tags `ends`, whose name becomes the next token.
    fn body_to(&mut self, ends: &[&str]) -> Result<Vec<Statement>> {
        // Jinja accepts a colon here, as in Python.
        self.skip_operator(":");
        self.block_end()?;
        self.statements(ends)
    }

    /// Parses the body of a block up to and including the tag `end`.
    fn body(&mut self, end: &str) -> Result<Vec<Statement>> {
        let statements = self.body_to(&[end])?;
        self.take();
        Ok(statements)
    }

    fn statement(&mut self) -> Result<Statement> {
        let line = self.line();
        let name = self.expect_name()?;
        let statement = match &*name {
            "for" => self.for_loop(line),
            "if" => self.condition(),
            "set" => self.assignment(),
            "with" => self.with(),
            "macro" => {
                let name = self.expect_name()?;
                let parameters = self.signature()?;
                let definition = self.macro_body(line, name, parameters, "endmacro")?;
                Ok(Statement::Macro(definition))
            }
            "call" => {
                let parameters = if self.is_operator("(") { self.signature()? } else { Vec::new() };
                let call = self.expression()?;
                if !matches!(call.kind, Kind::Call(..)) {
                    return Err(fault("expected a call").at(line));
                }
                let body = self.macro_body(line, "caller".into(), parameters, "endcall")?;
                Ok(Statement::CallBlock(call, body))
            }
            "filter" => {
                let filters = self.filter_chain(true)?;
                Ok(Statement::FilterBlock(filters, self.body("endfilter")?))
            }
            "generation" => {
                // The body is a separate function in Python.
                let in_loop = std::mem::take(&mut self.in_loop);
                let body = self.body("endgeneration")?;
                self.in_loop = in_loop;
                Ok(Statement::Generation(body))
            }
            "break" | "continue" if !self.in_loop => Err(fault(format!("{name:?} is outside of a loop"))),
            "break" => Ok(Statement::Break),
            "continue" => Ok(Statement::Continue),
            "include" | "import" | "from" | "extends" | "block" | "autoescape" | "print" => {
                Err(unsupported(format!("the tag {name:?}")))
            }
            _ => Err(fault(format!("the tag {name:?} is unknown"))),
        };
        statement.map_err(|fault| fault.at(line))
    }

    fn for_loop(&mut self, line: usize) -> Result<Statement> {
        let target = self.target(false)?;
        if !self.skip_name("in") {
            return Err(self.unexpected("\"in\""));
        }
        let iterable = self.tuple(false, false)?;
        let condition = if self.skip_name("if") { Some(self.expression()?) } else { None };
        if self.is_name("recursive") {
            return Err(unsupported("a recursive loop").at(line));
        }
        let in_loop = std::mem::replace(&mut self.in_loop, true);
        let body = self.body_to(&["endfor", "else"])?;
        self.in_loop = in_loop;
        let otherwise = if self.skip_name("else") {
            self.body("endfor")?
        } else {
            self.take();
            Vec::new()
        };
        Ok(Statement::For(Box::new(For { line, target, iterable, condition, body, otherwise })))
    }

    fn condition(&mut self) -> Result<Statement> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple(false, false)?;
            branches.push((condition, self.body_to(&["elif", "else", "endif"])?));
            if self.skip_name("elif") {
                continue;
            }
            let otherwise = if self.skip_name("else") {
                self.body("endif")?
            } else {
                self.take();
                Vec::new()
            };
            return Ok(Statement::If(branches, otherwise));
        }
    }

    fn assignment(&mut self) -> Result<Statement> {
        let target = self.target(true)?;
        if self.skip_operator("=") {
            return Ok(Statement::Set(target, self.tuple(true, false)?));
        }
        let filters = self.filter_chain(false)?;
        Ok(Statement::SetBlock(target, filters, self.body("endset")?))
    }

    fn with(&mut self) -> Result<Statement> {
        let mut assignments = Vec::new();
        while *self.current() != Token::BlockEnd {
            if !assignments.is_empty() {
                self.expect_operator(",")?;
            }
            let target = Target::Name(self.assignable()?);
            self.expect_operator("=")?;
            assignments.push((target, self.expression()?));
        }
        Ok(Statement::With(assignments, self.body("endwith")?))
    }

    /// Parses consecutive filters. `first`: whether the first one has no bar before it.
    fn filter_chain(&mut self, first: bool) -> Result<Vec<FilterCall>> {
        let (mut filters, mut expected) = (Vec::new(), first);
        while expected || self.skip_operator("|") {
            let line = self.line();
            filters.push(FilterCall { line, call: self.filter()? });
            expected = false;
        }
        Ok(filters)
    }

    fn assignable(&mut self) -> Result<Arc<str>> {
        let line = self.line();
        let name = self.expect_name()?;
        if CONSTANTS.contains(&&*name) {
            return Err(fault(format!("cannot assign to {name:?}")).at(line));
        }
        Ok(name)
    }

    /// Parses an assignment target. `namespaces`: whether an attribute of a namespace is allowed.
    fn target(&mut self, namespaces: bool) -> Result<Target> {
        let (mut targets, mut is_tuple) = (Vec::new(), false);
        while !self.is_name("in") && !self.is_operator("=") && !self.is_operator(")") {
            targets.push(if self.skip_operator("(") {
                let inner = self.deeper(|parser| parser.target(namespaces))?;
                self.expect_operator(")")?;
                inner
            } else {
                let name = self.assignable()?;
                if namespaces && self.skip_operator(".") {
                    Target::Namespace(name, self.expect_name()?)
                } else {
                    Target::Name(name)
                }
            });
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
        }
        match targets.pop() {
            Some(target) if !is_tuple => Ok(target),
            Some(last) => {
                targets.push(last);
                Ok(Target::Tuple(targets))
            }
            None => Err(self.unexpected("a name")),
        }
    }

    fn signature(&mut self) -> Result<Vec<(Arc<str>, Option<Expression>)>> {
        self.expect_operator("(")?;
        let mut parameters: Vec<(Arc<str>, Option<Expression>)> = Vec::new();
        while !self.skip_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            let name = self.assignable()?;
            let default = if self.skip_operator("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|(_, default)| default.is_some()) {
                return Err(fault("a parameter without a default follows one with a default").at(self.line()));
            }
            parameters.push((name, default));
        }
        Ok(parameters)
    }

    fn macro_body(
        &mut self,
        line: usize,
        name: Arc<str>,
        parameters: Vec<(Arc<str>, Option<Expression>)>,
        end: &str,
    ) -> Result<Arc<Macro>> {
        let in_loop = std::mem::take(&mut self.in_loop);
        let caller_seen = std::mem::take(&mut self.caller_seen);
        self.macros += 1;
        let body = self.body(end)?;
        self.macros -= 1;
        self.in_loop = in_loop;
        let takes_caller = std::mem::replace(&mut self.caller_seen, caller_seen);
        Ok(Arc::new(Macro { line, name, parameters, body, takes_caller }))
    }
}

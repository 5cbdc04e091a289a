//! Evaluation of expressions.

use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use crate::arguments::Given;
use crate::fault::{Result, fault, unsupported};
use crate::functions;
use crate::lookup::{attribute, item, slice};
use crate::methods;
use crate::operators::{binary, contains, negative};
use crate::render::{Renderer, Scope};
use crate::tests;
use crate::text::write_str;
use crate::tree::{Arguments, Comparison, Expression, Kind};
use crate::value::{Value, equal, order};

impl Renderer {
    /// Evaluates an expression in `scope`.
    pub(crate) fn value(&self, expression: &Expression, scope: &Rc<Scope>) -> Result<Value> {
        let value = self.deeper(|| self.evaluate(expression, scope));
        value.map_err(|fault| fault.at(expression.line))
    }

    fn evaluate(&self, expression: &Expression, scope: &Rc<Scope>) -> Result<Value> {
        match &expression.kind {
            Kind::None => Ok(Value::None),
            Kind::Bool(value) => Ok(Value::Bool(*value)),
            Kind::Integer(number) => Ok(Value::Integer(*number)),
            Kind::Float(number) => Ok(Value::Float(*number)),
            Kind::Text(text) => Ok(Value::text(text)),
            Kind::Variable(name) => scope.get(name).map_or_else(|| functions::named(name), Ok),
            Kind::List(items) => Value::list(self.values(items, scope)?),
            Kind::Tuple(items) => Value::tuple(self.values(items, scope)?),
            Kind::Dict(entries) => {
                let entry = |(key, value)| Ok((self.value(key, scope)?, self.value(value, scope)?));
                let entries: Result<Vec<_>> =
                    entries.iter().map(|(key, value)| entry((key, value))).collect();
                Value::dict(entries?)
            }
            Kind::Attribute(of, name) => attribute(&self.value(of, scope)?, name),
            Kind::Item(of, key) => item(&self.value(of, scope)?, &self.value(key, scope)?),
            Kind::Slice(of, bounds) => {
                let of = self.value(of, scope)?;
                let bound = |at: usize| match &bounds[at] {
                    Some(bound) => self.value(bound, scope),
                    None => Ok(Value::None),
                };
                slice(&of, &[bound(0)?, bound(1)?, bound(2)?])
            }
            Kind::Call(..) => self.call_with(expression, None, scope),
            Kind::Filter(of, call) => {
                let of = self.value(of, scope)?;
                self.filter(&call.name, &of, self.given(&call.arguments, scope)?)
            }
            Kind::Test(of, call) => {
                let of = self.value(of, scope)?;
                Ok(Value::Bool(tests::test(&call.name, &of, self.given(&call.arguments, scope)?)?))
            }
            Kind::Not(of) => Ok(Value::Bool(!self.value(of, scope)?.is_true())),
            Kind::Negative(of) => negative(&self.value(of, scope)?),
            Kind::Positive(of) => match self.value(of, scope)? {
                Value::Float(number) => Ok(Value::Float(number)),
                other => other
                    .as_integer()
                    .map(Value::Integer)
                    .ok_or_else(|| fault(format!("+ of a {} is not defined", other.kind()))),
            },
            Kind::And(left, right) => {
                let left = self.value(left, scope)?;
                if left.is_true() { self.value(right, scope) } else { Ok(left) }
            }
            Kind::Or(left, right) => {
                let left = self.value(left, scope)?;
                if left.is_true() { Ok(left) } else { self.value(right, scope) }
            }
            Kind::Concat(parts) => self.concat(parts, scope),
            Kind::Binary(left, operator, right) => {
                let value = binary(&self.value(left, scope)?, *operator, &self.value(right, scope)?)?;
                self.spend(
                    value.as_text().map_or_else(|| value.length().unwrap_or(0), |text| text.len() / 64),
                )?;
                Ok(value)
            }
            Kind::Compare(first, others) => self.compare(first, others, scope),
            Kind::Conditional(both, otherwise) => {
                let [condition, value] = &**both;
                match (self.value(condition, scope)?.is_true(), otherwise) {
                    (true, _) => self.value(value, scope),
                    (false, Some(otherwise)) => self.value(otherwise, scope),
                    (false, None) => Ok(Value::undefined("the condition is false, and there is no else")),
                }
            }
        }
    }

    fn values(&self, expressions: &[Expression], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        expressions.iter().map(|expression| self.value(expression, scope)).collect()
    }

    fn concat(&self, parts: &[Expression], scope: &Rc<Scope>) -> Result<Value> {
        let mut text = String::new();
        // All operands are evaluated before one is printed, as in Python.
        for value in self.values(parts, scope)? {
            write_str(&mut text, &value)?;
        }
        self.spend(text.len() / 64)?;
        Ok(Value::text(&text))
    }

    fn compare(
        &self,
        first: &Expression,
        others: &[(Comparison, Expression)],
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let mut left = self.value(first, scope)?;
        for (comparison, right) in others {
            let right = self.value(right, scope)?;
            if !compare(&left, *comparison, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    /// Evaluates arguments.
    pub(crate) fn given(&self, arguments: &Arguments, scope: &Rc<Scope>) -> Result<Given> {
        let positional = self.values(&arguments.positional, scope)?;
        let named = arguments.named.iter().map(|(name, value)| Ok((name.clone(), self.value(value, scope)?)));
        Ok(Given { positional, named: named.collect::<Result<_>>()? })
    }

    /// Evaluates a call. `caller`: the macro of a call block.
    pub(crate) fn call_with(
        &self,
        call: &Expression,
        caller: Option<Value>,
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let Kind::Call(callee, arguments) = &call.kind else { return Err(fault("expected a call")) };
        let callee = self.value(callee, scope)?;
        let mut given = self.given(arguments, scope)?;
        given.named.extend(caller.map(|caller| (Arc::from("caller"), caller)));
        let value = match &callee {
            Value::Macro(closure) => self.call_macro(closure, given),
            Value::Method(method) => methods::call(&method.0, &method.1, given),
            Value::Function(name) => functions::call(name, given),
            Value::Undefined(why) => Err(fault(why.to_string())),
            Value::Loop(_) => Err(unsupported("a recursive loop")),
            other => Err(fault(format!("a {} cannot be called", other.kind()))),
        };
        let value = value.map_err(|fault| fault.at(call.line))?;
        self.spend(value.as_text().map_or_else(|| value.length().unwrap_or(0), |text| text.len() / 64))?;
        Ok(value)
    }
}

/// Whether a comparison holds.
pub(crate) fn compare(left: &Value, comparison: Comparison, right: &Value) -> Result<bool> {
    let ordered = |accepted: &[Ordering]| {
        order(left, right).map(|ordering| ordering.is_some_and(|ordering| accepted.contains(&ordering)))
    };
    match comparison {
        Comparison::Equal => Ok(equal(left, right)),
        Comparison::NotEqual => Ok(!equal(left, right)),
        Comparison::Less => ordered(&[Ordering::Less]),
        Comparison::LessOrEqual => ordered(&[Ordering::Less, Ordering::Equal]),
        Comparison::Greater => ordered(&[Ordering::Greater]),
        Comparison::GreaterOrEqual => ordered(&[Ordering::Greater, Ordering::Equal]),
        Comparison::In => contains(right, left),
        Comparison::NotIn => contains(right, left).map(|contained| !contained),
    }
}

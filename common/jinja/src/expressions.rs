//! Evaluation of expressions.

use std::sync::Arc;

use crate::fault::{Result, fault, unsupported};
use crate::filters;
use crate::functions;
use crate::lookup::{attribute, item, slice};
use crate::meter::Meter;
use crate::methods;
use crate::operators::{binary, compare, negative};
use crate::scope::Scope;
use crate::tests;
use crate::text::write_str;
use crate::tree::{Arguments, Comparison, Expression, Kind};
use crate::value::{Given, Value};

/// Evaluates expressions in one scope.
pub(crate) struct Evaluator<'r> {
    meter: &'r Meter,
    scope: &'r Scope,
}

impl<'r> Evaluator<'r> {
    pub(crate) fn new(meter: &'r Meter, scope: &'r Scope) -> Self {
        Self { meter, scope }
    }

    pub(crate) fn value(&self, expression: &Expression) -> Result<Value> {
        let value = self.meter.deeper(|| self.evaluate(expression));
        value.map_err(|fault| fault.at(expression.line))
    }

    fn evaluate(&self, expression: &Expression) -> Result<Value> {
        match &expression.kind {
            Kind::None => Ok(Value::None),
            Kind::Bool(value) => Ok(Value::Bool(*value)),
            Kind::Integer(number) => Ok(Value::Integer(*number)),
            Kind::Float(number) => Ok(Value::Float(*number)),
            Kind::Text(text) => Ok(Value::text(text)),
            Kind::Variable(name) => self.scope.get(name).map_or_else(|| functions::named(name), Ok),
            Kind::List(items) => Value::list(self.values(items)?),
            Kind::Tuple(items) => Value::tuple(self.values(items)?),
            Kind::Dict(entries) => {
                let entry = |(key, value)| Ok((self.value(key)?, self.value(value)?));
                let entries: Result<Vec<_>> =
                    entries.iter().map(|(key, value)| entry((key, value))).collect();
                Value::dict(entries?)
            }
            Kind::Attribute(of, name) => attribute(&self.value(of)?, name),
            Kind::Item(of, key) => item(&self.value(of)?, &self.value(key)?),
            Kind::Slice(of, bounds) => {
                let of = self.value(of)?;
                let bound = |at: usize| match &bounds[at] {
                    Some(bound) => self.value(bound),
                    None => Ok(Value::None),
                };
                slice(&of, &[bound(0)?, bound(1)?, bound(2)?])
            }
            Kind::Call(..) => self.call_with(expression, None),
            Kind::Filter(of, call) => {
                let of = self.value(of)?;
                filters::apply(self.meter, &call.name, &of, self.given(&call.arguments)?)
            }
            Kind::Test(of, call) => {
                let of = self.value(of)?;
                Ok(Value::Bool(tests::test(&call.name, &of, self.given(&call.arguments)?)?))
            }
            Kind::Not(of) => Ok(Value::Bool(!self.value(of)?.is_true())),
            Kind::Negative(of) => negative(&self.value(of)?),
            Kind::Positive(of) => match self.value(of)? {
                Value::Float(number) => Ok(Value::Float(number)),
                other => other
                    .as_integer()
                    .map(Value::Integer)
                    .ok_or_else(|| fault(format!("+ of a {} is not defined", other.kind()))),
            },
            Kind::And(left, right) => {
                let left = self.value(left)?;
                if left.is_true() { self.value(right) } else { Ok(left) }
            }
            Kind::Or(left, right) => {
                let left = self.value(left)?;
                if left.is_true() { Ok(left) } else { self.value(right) }
            }
            Kind::Concat(parts) => self.concat(parts),
            Kind::Binary(left, operator, right) => {
                let value = binary(&self.value(left)?, *operator, &self.value(right)?)?;
                self.meter.spend_on(&value)?;
                Ok(value)
            }
            Kind::Compare(first, others) => self.compare(first, others),
            Kind::Conditional(both, otherwise) => {
                let [condition, value] = &**both;
                match (self.value(condition)?.is_true(), otherwise) {
                    (true, _) => self.value(value),
                    (false, Some(otherwise)) => self.value(otherwise),
                    (false, None) => Ok(Value::undefined("the condition is false, and there is no else")),
                }
            }
        }
    }

    fn values(&self, expressions: &[Expression]) -> Result<Vec<Value>> {
        expressions.iter().map(|expression| self.value(expression)).collect()
    }

    fn concat(&self, parts: &[Expression]) -> Result<Value> {
        let mut text = String::new();
        // All operands are evaluated before one is printed, as in Python.
        for value in self.values(parts)? {
            write_str(&mut text, &value)?;
        }
        self.meter.spend_on_text(text.len())?;
        Ok(Value::text(&text))
    }

    fn compare(&self, first: &Expression, others: &[(Comparison, Expression)]) -> Result<Value> {
        let mut left = self.value(first)?;
        for (comparison, right) in others {
            let right = self.value(right)?;
            if !compare(&left, *comparison, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    /// Evaluates arguments.
    pub(crate) fn given(&self, arguments: &Arguments) -> Result<Given> {
        let positional = self.values(&arguments.positional)?;
        let named = arguments.named.iter().map(|(name, value)| Ok((name.clone(), self.value(value)?)));
        Ok(Given { positional, named: named.collect::<Result<_>>()? })
    }

    /// Evaluates a call. `caller`: the macro of a call block.
    pub(crate) fn call_with(&self, call: &Expression, caller: Option<Value>) -> Result<Value> {
        let Kind::Call(callee, arguments) = &call.kind else { return Err(fault("expected a call")) };
        let callee = self.value(callee)?;
        let mut given = self.given(arguments)?;
        given.named.extend(caller.map(|caller| (Arc::from("caller"), caller)));
        let value = match &callee {
            Value::Macro(defined) => defined.call(given),
            Value::Method(method) => methods::call(&method.0, &method.1, given),
            Value::Function(name) => functions::call(name, given),
            Value::Undefined(why) => Err(fault(why.to_string())),
            Value::Loop(_) => Err(unsupported("a recursive loop")),
            other => Err(fault(format!("a {} cannot be called", other.kind()))),
        };
        let value = value.map_err(|fault| fault.at(call.line))?;
        self.meter.spend_on(&value)?;
        Ok(value)
    }
}

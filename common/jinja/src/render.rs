//! Rendering of statements, loops and macros.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::expressions::Evaluator;
use crate::fault::{Result, fault, unsupported};
use crate::filters;
use crate::functions;
use crate::meter::Meter;
use crate::scope::Scope;
use crate::text::{assert_length, write_str};
use crate::tree::{Expression, FilterCall, For, Macro, Statement, Target};
use crate::value::{Call, Given, Loop, Value};

/// A macro with the scope of its definition, which is dropped when the macro can no longer be called.
#[derive(Debug)]
struct Closure {
    definition: Arc<Macro>,
    scope: Weak<Scope>,
    renderer: Renderer,
}

/// Control flow after a statement.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// One rendering of a template. Clones share its limits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Renderer {
    meter: Rc<Meter>,
}

impl Renderer {
    /// Renders a template with `variables`.
    pub(crate) fn render(
        &self,
        statements: &[Statement],
        variables: Vec<(Arc<str>, Value)>,
    ) -> Result<String> {
        let context = Rc::new(Scope::default());
        for (name, value) in variables {
            context.set(&name, value);
        }
        let mut text = String::new();
        self.statements(statements, &Scope::within(&context), &mut text)?;
        Ok(text)
    }

    fn statements(&self, statements: &[Statement], scope: &Rc<Scope>, text: &mut String) -> Result<Flow> {
        for statement in statements {
            let flow = self.meter.deeper(|| self.statement(statement, scope, text))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&self, statement: &Statement, scope: &Rc<Scope>, text: &mut String) -> Result<Flow> {
        match statement {
            Statement::Text(part) => self.append(text, part)?,
            Statement::Output(expression) => {
                let value = self.value(expression, scope)?;
                let before = text.len();
                write_str(text, &value).map_err(|fault| fault.at(expression.line))?;
                self.meter.spend_on_text(text.len() - before)?;
            }
            Statement::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.value(condition, scope)?.is_true() {
                        return self.statements(body, scope, text);
                    }
                }
                return self.statements(otherwise, scope, text);
            }
            Statement::For(each) => return self.each(each, scope, text),
            Statement::Set(target, expression) => {
                let value = self.value(expression, scope)?;
                assign(target, value, scope).map_err(|fault| fault.at(expression.line))?;
            }
            Statement::SetBlock(target, filters, body) => {
                let (flow, value) = self.captured(filters, body, scope)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                assign(target, value, scope)?;
            }
            Statement::With(assignments, body) => {
                let inner = Scope::within(scope);
                for (target, expression) in assignments {
                    assign(target, self.value(expression, scope)?, &inner)?;
                }
                return self.statements(body, &inner, text);
            }
            Statement::FilterBlock(filters, body) => {
                let (flow, value) = self.captured(filters, body, scope)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                write_str(text, &value)?;
            }
            Statement::Macro(definition) => {
                scope.set(&definition.name, self.closure(definition, scope));
            }
            Statement::CallBlock(call, definition) => {
                let caller = self.closure(definition, scope);
                let value = self.evaluator(scope).call_with(call, Some(caller))?;
                write_str(text, &value).map_err(|fault| fault.at(call.line))?;
            }
            Statement::Generation(body) => {
                self.statements(body, &Scope::within(scope), text)?;
            }
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn evaluator<'r>(&'r self, scope: &'r Scope) -> Evaluator<'r> {
        Evaluator::new(&self.meter, scope)
    }

    fn value(&self, expression: &Expression, scope: &Scope) -> Result<Value> {
        self.evaluator(scope).value(expression)
    }

    fn closure(&self, definition: &Arc<Macro>, scope: &Rc<Scope>) -> Value {
        let (definition, scope) = (definition.clone(), Rc::downgrade(scope));
        Value::Macro(Rc::new(Closure { definition, scope, renderer: self.clone() }))
    }

    fn append(&self, text: &mut String, part: &str) -> Result<()> {
        text.push_str(part);
        self.meter.spend_on_text(part.len())?;
        assert_length(text.len())
    }

    /// Renders a block and applies its filters.
    fn captured(
        &self,
        filters: &[FilterCall],
        body: &[Statement],
        scope: &Rc<Scope>,
    ) -> Result<(Flow, Value)> {
        let mut inner = String::new();
        let flow = self.statements(body, &Scope::within(scope), &mut inner)?;
        let mut value = Value::text(&inner);
        for FilterCall { line, call } in filters {
            let given = self.evaluator(scope).given(&call.arguments)?;
            value =
                filters::apply(&self.meter, &call.name, &value, given).map_err(|fault| fault.at(*line))?;
        }
        Ok((flow, value))
    }

    fn each(&self, each: &For, scope: &Rc<Scope>, text: &mut String) -> Result<Flow> {
        let iterable = self.value(&each.iterable, scope)?;
        let all = iterable.items().map_err(|fault| fault.at(each.line))?;
        self.meter.spend(all.len())?;
        let inner = |item: &Value| -> Result<Rc<Scope>> {
            let inner = Scope::within(scope);
            assign(&each.target, item.clone(), &inner).map_err(|fault| fault.at(each.line))?;
            Ok(inner)
        };
        let holds = |item: &Value| match &each.condition {
            Some(condition) => {
                let scope = inner(item)?;
                Ok(self.value(condition, &scope)?.is_true())
            }
            None => Ok(true),
        };
        let kept = all.iter().map(holds).collect::<Result<Vec<bool>>>()?;
        let items: Vec<Value> =
            all.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(item, _)| item.clone()).collect();
        if items.is_empty() {
            return self.statements(&each.otherwise, &Scope::within(scope), text);
        }
        let (index, last) = (Cell::new(0), RefCell::new(None));
        let current = Rc::new(Loop { items, index, last });
        let mut at = 0;
        for (item, kept) in all.iter().zip(kept) {
            // Python evaluates the condition when it reaches the item; here its value is computed in advance.
            if each.condition.is_some() && holds(item)? != kept {
                return Err(unsupported("a loop that changes its own condition").at(each.line));
            }
            if !kept {
                continue;
            }
            current.index.set(at);
            at += 1;
            let inner = inner(item)?;
            inner.set(&Arc::from("loop"), Value::Loop(current.clone()));
            if self.statements(&each.body, &inner, text)? == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }
}

impl Call for Closure {
    fn call(&self, mut given: Given) -> Result<Value> {
        let Macro { line, name, parameters, body, takes_caller } = &*self.definition;
        let renderer = &self.renderer;
        let scope = self.scope.upgrade();
        let scope = scope
            .ok_or_else(|| unsupported(format!("calling {name} outside of the block that defines it")))?;
        let inner = Scope::within(&scope);
        if given.positional.len() > parameters.len() {
            let (found, most) = (given.positional.len(), parameters.len());
            return Err(fault(format!("macro {name} has {found} arguments, expected at most {most}")));
        }
        let mut positional = std::mem::take(&mut given.positional).into_iter();
        for (parameter, default) in parameters {
            let mut named = given.named.iter();
            let value = match (positional.next(), named.position(|(found, _)| found == parameter)) {
                (Some(value), None) => value,
                (None, Some(at)) => given.named.remove(at).1,
                (Some(_), Some(_)) => {
                    return Err(fault(format!("macro {name} has the argument {parameter:?} twice")));
                }
                (None, None) => match default {
                    Some(default) => renderer.value(default, &inner)?,
                    None => Value::undefined(&format!("parameter {parameter:?} was not provided")),
                },
            };
            inner.set(parameter, value);
        }
        let is_parameter = parameters.iter().any(|(parameter, _)| &**parameter == "caller");
        if *takes_caller && !is_parameter {
            let given_caller = given.named.iter().position(|(found, _)| &**found == "caller");
            let caller = given_caller.map(|at| given.named.remove(at).1);
            inner.set(&Arc::from("caller"), caller.unwrap_or_else(|| Value::undefined("No caller defined")));
        }
        if let Some((parameter, _)) = given.named.first() {
            return Err(fault(format!("macro {name} takes no argument {parameter:?}")));
        }
        let mut text = String::new();
        let rendered = renderer.meter.deeper(|| renderer.statements(body, &inner, &mut text));
        rendered.map_err(|fault| fault.at(*line))?;
        Ok(Value::text(&text))
    }
}

/// Assigns values to names.
fn assign(target: &Target, value: Value, scope: &Rc<Scope>) -> Result<()> {
    match target {
        Target::Name(name) => scope.set(name, value),
        Target::Tuple(targets) => {
            let items = value.items()?;
            if items.len() != targets.len() {
                let (found, expected) = (items.len(), targets.len());
                return Err(fault(format!("{found} values cannot be assigned to {expected} names")));
            }
            for (target, item) in targets.iter().zip(items) {
                assign(target, item, scope)?;
            }
        }
        Target::Namespace(name, attribute) => {
            let Some(Value::Namespace(namespace)) = scope.get(name) else {
                return Err(fault(format!(
                    "{name} is not a namespace, cannot assign to its attribute {attribute}"
                )));
            };
            functions::set_attribute(&namespace, attribute, value)?;
        }
    }
    Ok(())
}

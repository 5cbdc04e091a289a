//! Rendering of statements, scopes, loops and macros.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::arguments::Given;
use crate::fault::{Result, fault, unsupported};
use crate::functions;
use crate::text::{assert_length, write_str};
use crate::tree::{FilterCall, For, Macro, Statement, Target};
use crate::value::{LONGEST, Value};

/// Maximum number of evaluated expressions and statements per rendering. A message takes some hundreds.
const MOST_STEPS: u64 = 5_000_000;

/// Maximum evaluation depth: nested expressions, statements and macro calls.
const DEEPEST: usize = 300;

/// Names and their values, with the enclosing scope.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    values: RefCell<HashMap<Arc<str>, Value>>,
    parent: Option<Rc<Scope>>,
}

impl Scope {
    pub(crate) fn within(parent: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self { values: RefCell::default(), parent: Some(parent.clone()) })
    }

    pub(crate) fn set(&self, name: &Arc<str>, value: Value) {
        self.values.borrow_mut().insert(name.clone(), value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        let mut scope = self;
        loop {
            if let Some(value) = scope.values.borrow().get(name) {
                return Some(value.clone());
            }
            scope = scope.parent.as_ref()?;
        }
    }
}

/// The variable `loop` of a loop.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) items: Vec<Value>,
    pub(crate) index: Cell<usize>,
    /// The last argument of `changed`.
    pub(crate) last: RefCell<Option<Vec<Value>>>,
}

/// A macro with the scope of its definition, which is dropped when the macro can no longer be called.
#[derive(Debug)]
pub(crate) struct Closure {
    definition: Arc<Macro>,
    scope: Weak<Scope>,
}

/// Control flow after a statement.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Flow {
    Next,
    Break,
    Continue,
}

/// State of one rendering.
#[derive(Debug, Default)]
pub(crate) struct Renderer {
    steps: Cell<u64>,
    depth: Cell<usize>,
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

    /// Adds `count` steps.
    pub(crate) fn spend(&self, count: usize) -> Result<()> {
        let steps = self.steps.get() + count as u64;
        self.steps.set(steps);
        if steps > MOST_STEPS {
            return Err(fault(format!("the template takes more than {MOST_STEPS} steps")));
        }
        Ok(())
    }

    /// Runs `work` one nesting level deeper.
    pub(crate) fn deeper<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let depth = self.depth.get();
        if depth >= DEEPEST {
            return Err(fault(
                "the template nests expressions and macros too deeply: expected no endless recursion",
            ));
        }
        self.spend(1)?;
        self.depth.set(depth + 1);
        let done = work();
        self.depth.set(depth);
        done
    }

    pub(crate) fn statements(
        &self,
        statements: &[Statement],
        scope: &Rc<Scope>,
        text: &mut String,
    ) -> Result<Flow> {
        for statement in statements {
            let flow = self.deeper(|| self.statement(statement, scope, text))?;
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
                self.spend((text.len() - before) / 64)?;
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
                let closure = Closure { definition: definition.clone(), scope: Rc::downgrade(scope) };
                scope.set(&definition.name, Value::Macro(Rc::new(closure)));
            }
            Statement::CallBlock(call, definition) => {
                let closure = Closure { definition: definition.clone(), scope: Rc::downgrade(scope) };
                let value = self.call_with(call, Some(Value::Macro(Rc::new(closure))), scope)?;
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

    fn append(&self, text: &mut String, part: &str) -> Result<()> {
        text.push_str(part);
        self.spend(part.len() / 64)?;
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
            let given = self.given(&call.arguments, scope)?;
            value = self.filter(&call.name, &value, given).map_err(|fault| fault.at(*line))?;
        }
        Ok((flow, value))
    }

    fn each(&self, each: &For, scope: &Rc<Scope>, text: &mut String) -> Result<Flow> {
        let iterable = self.value(&each.iterable, scope)?;
        let all = iterable.items().map_err(|fault| fault.at(each.line))?;
        self.spend(all.len())?;
        let inner = |item: &Value| {
            let inner = Scope::within(scope);
            assign(&each.target, item.clone(), &inner).map_err(|fault| fault.at(each.line))?;
            Ok(inner)
        };
        let holds = |item: &Value| match &each.condition {
            Some(condition) => Ok(self.value(condition, &inner(item)?)?.is_true()),
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

    /// Renders a macro.
    pub(crate) fn call_macro(&self, closure: &Closure, mut given: Given) -> Result<Value> {
        let Macro { line, name, parameters, body, takes_caller } = &*closure.definition;
        let scope = closure.scope.upgrade();
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
                    Some(default) => self.value(default, &inner)?,
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
        self.deeper(|| self.statements(body, &inner, &mut text)).map_err(|fault| fault.at(*line))?;
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

/// Rejects sequences with too many items before they are built.
pub(crate) fn assert_items(count: Option<usize>) -> Result<usize> {
    let count = count.filter(|count| *count <= LONGEST);
    count.ok_or_else(|| fault(format!("a sequence has more than {LONGEST} items")))
}

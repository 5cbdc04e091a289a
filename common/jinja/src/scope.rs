//! Scopes: the names that statements and expressions see.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::value::Value;

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

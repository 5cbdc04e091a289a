//! Assignment of the arguments of a call to parameters.

use std::rc::Rc;

use crate::fault::{Result, fault, unsupported};
use crate::value::{Given, Value};

/// Arguments by parameter.
#[derive(Debug)]
pub(crate) struct Bound {
    of: String,
    values: Vec<(&'static str, Option<Value>)>,
}

impl Given {
    /// Assigns arguments to `parameters`, of which the first `required` ones must be given.
    pub(crate) fn bind(self, of: &str, parameters: &[&'static str], required: usize) -> Result<Bound> {
        if self.positional.len() > parameters.len() {
            let (given, most) = (self.positional.len(), parameters.len());
            return Err(fault(format!("{of} has {given} arguments, expected at most {most}")));
        }
        let mut positional = self.positional.into_iter();
        let mut values: Vec<_> = parameters.iter().map(|name| (*name, positional.next())).collect();
        for (name, value) in self.named {
            match values.iter_mut().find(|(parameter, _)| **parameter == *name) {
                Some((_, slot @ None)) => *slot = Some(value),
                Some(_) => return Err(fault(format!("{of} has the argument {name:?} twice"))),
                None => return Err(fault(format!("{of} takes no argument {name:?}"))),
            }
        }
        match values[..required].iter().find(|(_, value)| value.is_none()) {
            Some((name, _)) => Err(fault(format!("{of} lacks its argument {name:?}"))),
            None => Ok(Bound { of: of.to_owned(), values }),
        }
    }

    /// Checks that there are no arguments.
    pub(crate) fn none(self, of: &str) -> Result<()> {
        self.bind(of, &[], 0).map(|_| ())
    }
}

impl Bound {
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(parameter, _)| *parameter == name).and_then(|(_, value)| value.as_ref())
    }

    /// As [`Self::get`], but `None` for `none`.
    pub(crate) fn some(&self, name: &str) -> Option<&Value> {
        self.get(name).filter(|value| !matches!(value, Value::None))
    }

    /// Whether the argument is given and true.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(Value::is_true)
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&Rc<str>>> {
        match self.some(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Safe(_)) => Err(unsupported(format!("{} with text marked safe", self.of))),
            Some(other) => Err(self.wrong(name, other)),
        }
    }

    pub(crate) fn integer(&self, name: &str) -> Result<Option<i128>> {
        match self.some(name) {
            None => Ok(None),
            Some(value) => value.as_integer().map(Some).ok_or_else(|| self.wrong(name, value)),
        }
    }

    fn wrong(&self, name: &str, value: &Value) -> crate::fault::Fault {
        match value {
            Value::Undefined(why) => fault(why.to_string()),
            value => fault(format!("{}: the argument {name:?} is a {}", self.of, value.kind())),
        }
    }
}

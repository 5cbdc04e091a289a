//! Template values with Python's semantics. Only namespaces and iterators are mutable, as in the sandbox of
//! Transformers.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;

use crate::fault::{Fault, Result, fault, unsupported};
use crate::number::Number;

/// Maximum nesting depth of values.
const DEEPEST: usize = 100;

/// Maximum number of items in a sequence.
const LONGEST: usize = 1_000_000;

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// An undefined value and the reason.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Rc<str>),
    /// Text marked by the filter `safe`. It prints unchanged; most other uses are not supported.
    Safe(Rc<str>),
    List(Rc<Sequence>),
    Tuple(Rc<Sequence>),
    Dict(Rc<Dict>),
    /// A dictionary view returned by `items`, `keys` or `values`, with its type name in Python.
    View(&'static str, Rc<Sequence>),
    /// An iterator, which can be consumed once.
    Iterator(Rc<RefCell<VecDeque<Value>>>),
    /// Start, end, step.
    Range(i128, i128, i128),
    Namespace(Rc<Namespace>),
    Loop(Rc<Loop>),
    Macro(Rc<dyn Call>),
    /// A method of a value.
    Method(Rc<(Value, Arc<str>)>),
    /// A global function.
    Function(&'static str),
}

/// Mutable attributes by name.
pub(crate) type Namespace = RefCell<Vec<(Rc<str>, Value)>>;

/// A callable that the template defines. Rendering implements it, so that values do not depend on rendering.
pub(crate) trait Call: Debug {
    fn call(&self, given: Given) -> Result<Value>;
}

/// Arguments of a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    pub(crate) positional: Vec<Value>,
    pub(crate) named: Vec<(Arc<str>, Value)>,
}

/// The variable `loop` of a loop.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) items: Vec<Value>,
    pub(crate) index: Cell<usize>,
    /// The last argument of `changed`.
    pub(crate) last: RefCell<Option<Vec<Value>>>,
}

/// Values and their nesting depth.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) items: Vec<Value>,
    depth: usize,
}

/// Keys and values in insertion order.
#[derive(Debug)]
pub(crate) struct Dict {
    entries: Vec<(Value, Value)>,
    depth: usize,
}

impl Dict {
    pub(crate) fn get(&self, key: &Value) -> Option<&Value> {
        self.entries.iter().find(|(found, _)| equal(found, key)).map(|(_, value)| value)
    }

    pub(crate) fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }
}

impl Value {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn undefined(why: &str) -> Self {
        Self::Undefined(why.into())
    }

    pub(crate) fn list(items: Vec<Self>) -> Result<Self> {
        sequence(items).map(Self::List)
    }

    pub(crate) fn tuple(items: Vec<Self>) -> Result<Self> {
        sequence(items).map(Self::Tuple)
    }

    /// Creates the result of a lazy filter of Python.
    pub(crate) fn iterator(items: Vec<Self>) -> Result<Self> {
        depth_of(&items)?;
        Ok(Self::Iterator(Rc::new(RefCell::new(items.into()))))
    }

    pub(crate) fn view(name: &'static str, items: Vec<Self>) -> Result<Self> {
        Ok(Self::View(name, sequence(items)?))
    }

    /// Creates a dictionary. Of equal keys the first key remains, with the last value.
    pub(crate) fn dict(entries: impl IntoIterator<Item = (Self, Self)>) -> Result<Self> {
        let mut dict: Vec<(Self, Self)> = Vec::new();
        for (key, value) in entries {
            key.assert_hashable()?;
            match dict.iter_mut().find(|(found, _)| equal(found, &key)) {
                Some(entry) => entry.1 = value,
                None => dict.push((key, value)),
            }
        }
        let depth = depth_of(dict.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(Self::Dict(Rc::new(Dict { entries: dict, depth })))
    }

    pub(crate) fn of_json(json: &serde_json::Value) -> Result<Self> {
        Ok(match json {
            serde_json::Value::Null => Self::None,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), ..) => Self::Integer(number.into()),
                (None, Some(number), _) => Self::Integer(number.into()),
                (None, None, Some(number)) => Self::Float(number),
                (None, None, None) => return Err(unsupported(format!("the number {number}"))),
            },
            serde_json::Value::String(text) => Self::text(text),
            serde_json::Value::Array(items) => {
                Self::list(items.iter().map(Self::of_json).collect::<Result<_>>()?)?
            }
            serde_json::Value::Object(entries) => {
                // Keys are distinct, so no lookup is needed.
                let entries = entries.iter().map(|(key, value)| Ok((Self::text(key), Self::of_json(value)?)));
                let dict: Vec<_> = entries.collect::<Result<_>>()?;
                let depth = depth_of(dict.iter().map(|(_, value)| value))?;
                Self::Dict(Rc::new(Dict { entries: dict, depth }))
            }
        })
    }

    /// Returns the type name in Python's messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Integer(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::Safe(_) => "Markup",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::View(name, _) => name,
            Self::Iterator(_) => "iterator",
            Self::Range(..) => "range",
            Self::Namespace(_) => "Namespace",
            Self::Loop(_) => "LoopContext",
            Self::Macro(_) => "Macro",
            Self::Method(_) => "method",
            Self::Function(_) => "function",
        }
    }

    pub(crate) fn as_text(&self) -> Option<&Rc<str>> {
        match self {
            Self::Text(text) | Self::Safe(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the value of an integer; true is 1 in Python.
    pub(crate) fn as_integer(&self) -> Option<i128> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Bool(value) => Some((*value).into()),
            _ => None,
        }
    }

    pub(crate) fn as_float(&self) -> Option<f64> {
        self.number().map(Number::as_float)
    }

    fn number(&self) -> Option<Number> {
        match self {
            Self::Float(number) => Some(Number::Float(*number)),
            _ => self.as_integer().map(Number::Integer),
        }
    }

    pub(crate) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    /// Python's `bool`.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Integer(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) | Self::Safe(text) => !text.is_empty(),
            Self::List(sequence) | Self::Tuple(sequence) | Self::View(_, sequence) => {
                !sequence.items.is_empty()
            }
            Self::Dict(dict) => !dict.entries.is_empty(),
            Self::Range(start, end, step) => range_length(*start, *end, *step) > 0,
            Self::Loop(_)
            | Self::Iterator(_)
            | Self::Namespace(_)
            | Self::Macro(_)
            | Self::Method(_)
            | Self::Function(_) => true,
        }
    }

    /// Returns Python's `len`, or `None` for values without a length.
    pub(crate) fn length(&self) -> Option<usize> {
        match self {
            Self::Undefined(_) => Some(0),
            Self::Text(text) | Self::Safe(text) => Some(text.chars().count()),
            Self::List(sequence) | Self::Tuple(sequence) | Self::View(_, sequence) => {
                Some(sequence.items.len())
            }
            Self::Dict(dict) => Some(dict.entries.len()),
            Self::Range(start, end, step) => Some(range_length(*start, *end, *step)),
            _ => None,
        }
    }

    /// Returns the items of Python's iteration. An iterator is empty afterwards.
    pub(crate) fn items(&self) -> Result<Vec<Self>> {
        Ok(match self {
            Self::Undefined(_) => Vec::new(),
            Self::Text(text) | Self::Safe(text) => {
                text.chars().map(|character| Self::text(character.encode_utf8(&mut [0; 4]))).collect()
            }
            Self::List(sequence) | Self::Tuple(sequence) | Self::View(_, sequence) => sequence.items.clone(),
            Self::Dict(dict) => dict.entries.iter().map(|(key, _)| key.clone()).collect(),
            Self::Iterator(items) => items.take().into(),
            Self::Range(start, end, step) => {
                let numbers = 0..range_length(*start, *end, *step) as i128;
                numbers.map(|number| Self::Integer(start + number * step)).collect()
            }
            Self::Loop(_) => return Err(unsupported("iterating over loop")),
            other => return Err(fault(format!("{} is not iterable", other.kind()))),
        })
    }

    fn depth(&self) -> Result<usize> {
        Ok(match self {
            Self::List(sequence) | Self::Tuple(sequence) | Self::View(_, sequence) => sequence.depth,
            Self::Dict(dict) => dict.depth,
            Self::Iterator(items) => depth_of(&*items.borrow())?,
            Self::Method(method) => method.0.depth()? + 1,
            Self::Namespace(_) | Self::Loop(_) | Self::Macro(_) => {
                return Err(unsupported(format!("a {} within another value", self.kind())));
            }
            _ => 0,
        })
    }

    /// Checks that the value may be stored in a namespace.
    pub(crate) fn assert_storable(&self) -> Result<()> {
        self.depth().map(|_| ())
    }

    fn assert_hashable(&self) -> Result<()> {
        match self {
            Self::List(_) | Self::Dict(_) => Err(fault(format!("unhashable type: {:?}", self.kind()))),
            Self::Tuple(sequence) => sequence.items.iter().try_for_each(Self::assert_hashable),
            Self::Undefined(_)
            | Self::None
            | Self::Bool(_)
            | Self::Integer(_)
            | Self::Float(_)
            | Self::Text(_) => Ok(()),
            other => Err(unsupported(format!("a {} as a key", other.kind()))),
        }
    }
}

fn sequence(items: Vec<Value>) -> Result<Rc<Sequence>> {
    if items.len() > LONGEST {
        return Err(fault(format!("a sequence has {} items, expected at most {LONGEST}", items.len())));
    }
    let depth = depth_of(&items)?;
    Ok(Rc::new(Sequence { items, depth }))
}

/// Rejects sequences with too many items before they are built.
pub(crate) fn assert_items(count: Option<usize>) -> Result<usize> {
    let count = count.filter(|count| *count <= LONGEST);
    count.ok_or_else(|| fault(format!("a sequence has more than {LONGEST} items")))
}

fn depth_of<'v>(items: impl IntoIterator<Item = &'v Value>) -> Result<usize> {
    let mut depth = 1;
    for item in items {
        depth = depth.max(1 + item.depth()?);
    }
    if depth > DEEPEST {
        return Err(fault(format!("values are nested more than {DEEPEST} deep")));
    }
    Ok(depth)
}

pub(crate) fn range_length(start: i128, end: i128, step: i128) -> usize {
    let (distance, step) = if step > 0 { (end - start, step) } else { (start - end, -step) };
    if distance <= 0 { 0 } else { ((distance - 1) / step + 1) as usize }
}

/// Python's `==`.
pub(crate) fn equal(left: &Value, right: &Value) -> bool {
    let all = |left: &[Value], right: &[Value]| {
        left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
    };
    match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Text(left) | Value::Safe(left), Value::Text(right) | Value::Safe(right)) => left == right,
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            all(&left.items, &right.items)
        }
        (Value::Dict(left), Value::Dict(right)) => {
            let same =
                |(key, value): &(Value, Value)| right.get(key).is_some_and(|found| equal(found, value));
            left.entries.len() == right.entries.len() && left.entries.iter().all(same)
        }
        (Value::Range(a, b, c), Value::Range(d, e, f)) => {
            let (left, right) = (range_length(*a, *b, *c), range_length(*d, *e, *f));
            left == right && (left == 0 || (a == d && (left == 1 || c == f)))
        }
        (Value::Namespace(left), Value::Namespace(right)) => Rc::ptr_eq(left, right),
        (Value::Iterator(left), Value::Iterator(right)) => Rc::ptr_eq(left, right),
        (Value::Loop(left), Value::Loop(right)) => Rc::ptr_eq(left, right),
        (Value::Macro(left), Value::Macro(right)) => Rc::ptr_eq(left, right),
        (Value::Function(left), Value::Function(right)) => left == right,
        _ => match (left.number(), right.number()) {
            (Some(left), Some(right)) => left.order(right) == Some(Ordering::Equal),
            _ => false,
        },
    }
}

/// Python's `<`, `<=`, `>` and `>=`: returns the order of two values, `None` with NaN.
pub(crate) fn order(left: &Value, right: &Value) -> Result<Option<Ordering>> {
    match (left, right) {
        (Value::Text(left) | Value::Safe(left), Value::Text(right) | Value::Safe(right)) => {
            Ok(Some(left.cmp(right)))
        }
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            let differing = left.items.iter().zip(&right.items).find(|(left, right)| !equal(left, right));
            match differing {
                Some((left, right)) => order(left, right),
                None => Ok(Some(left.items.len().cmp(&right.items.len()))),
            }
        }
        _ => match (left.number(), right.number()) {
            (Some(left), Some(right)) => Ok(left.order(right)),
            _ => Err(incomparable(left, right)),
        },
    }
}

fn incomparable(left: &Value, right: &Value) -> Fault {
    match [left, right].into_iter().find(|value| value.is_undefined()) {
        Some(Value::Undefined(why)) => fault(why.to_string()),
        _ => fault(format!("{} and {} cannot be compared", left.kind(), right.kind())),
    }
}

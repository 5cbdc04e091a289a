//! Syntax tree of a template.

use std::sync::Arc;

use crate::fault::{Result, fault};

/// Maximum nesting depth of expressions and of statements. Templates of released models stay below twenty.
pub(crate) const DEEPEST: usize = 100;

#[derive(Debug)]
pub(crate) struct Expression {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    height: usize,
}

#[derive(Debug)]
pub(crate) enum Kind {
    None,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Arc<str>),
    Variable(Arc<str>),
    List(Vec<Expression>),
    Tuple(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
    Attribute(Box<Expression>, Arc<str>),
    Item(Box<Expression>, Box<Expression>),
    /// Operand; start, end, step.
    Slice(Box<Expression>, [Option<Box<Expression>>; 3]),
    Call(Box<Expression>, Arguments),
    Filter(Box<Expression>, Call),
    Test(Box<Expression>, Call),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    Positive(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Concat(Vec<Expression>),
    Binary(Box<Expression>, Operator, Box<Expression>),
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    /// Condition and value if true; value if false.
    Conditional(Box<[Expression; 2]>, Option<Box<Expression>>),
}

/// A filter or a test by name, with its arguments.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: Arc<str>,
    pub(crate) arguments: Arguments,
}

#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) positional: Vec<Expression>,
    pub(crate) named: Vec<(Arc<str>, Expression)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}

impl Operator {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::FloorDivide => "//",
            Self::Remainder => "%",
            Self::Power => "**",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

impl Expression {
    /// Rejects expressions nested too deeply to be evaluated or dropped on any thread's stack.
    pub(crate) fn new(line: usize, kind: Kind) -> Result<Self> {
        let height = 1 + kind.parts().map(|part| part.height).max().unwrap_or(0);
        if height > DEEPEST {
            return Err(fault(format!("expressions are nested more than {DEEPEST} deep")).at(line));
        }
        Ok(Self { line, kind, height })
    }
}

impl Kind {
    fn parts(&self) -> Box<dyn Iterator<Item = &Expression> + '_> {
        match self {
            Self::None
            | Self::Bool(_)
            | Self::Integer(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::Variable(_) => Box::new(std::iter::empty()),
            Self::List(items) | Self::Tuple(items) | Self::Concat(items) => Box::new(items.iter()),
            Self::Dict(items) => Box::new(items.iter().flat_map(|(key, value)| [key, value])),
            Self::Attribute(of, _) | Self::Not(of) | Self::Negative(of) | Self::Positive(of) => {
                Box::new(std::iter::once(&**of))
            }
            Self::Item(a, b) | Self::And(a, b) | Self::Or(a, b) | Self::Binary(a, _, b) => {
                Box::new([&**a, &**b].into_iter())
            }
            Self::Slice(of, bounds) => {
                Box::new(std::iter::once(&**of).chain(bounds.iter().flatten().map(|bound| &**bound)))
            }
            Self::Call(of, arguments)
            | Self::Filter(of, Call { arguments, .. })
            | Self::Test(of, Call { arguments, .. }) => {
                let named = arguments.named.iter().map(|(_, value)| value);
                Box::new(std::iter::once(&**of).chain(&arguments.positional).chain(named))
            }
            Self::Compare(first, others) => {
                Box::new(std::iter::once(&**first).chain(others.iter().map(|(_, other)| other)))
            }
            Self::Conditional(both, otherwise) => {
                Box::new(both.iter().chain(otherwise.iter().map(|value| &**value)))
            }
        }
    }
}

#[derive(Debug)]
pub(crate) enum Statement {
    Text(String),
    Output(Expression),
    If(Vec<(Expression, Vec<Statement>)>, Vec<Statement>),
    For(Box<For>),
    Set(Target, Expression),
    SetBlock(Target, Vec<FilterCall>, Vec<Statement>),
    With(Vec<(Target, Expression)>, Vec<Statement>),
    FilterBlock(Vec<FilterCall>, Vec<Statement>),
    Macro(Arc<Macro>),
    /// The call, and the macro that it receives as `caller`.
    CallBlock(Expression, Arc<Macro>),
    /// A block that Transformers marks as the assistant's; here a body with its own scope.
    Generation(Vec<Statement>),
    Break,
    Continue,
}

/// A filter of a block, with its line.
#[derive(Debug)]
pub(crate) struct FilterCall {
    pub(crate) line: usize,
    pub(crate) call: Call,
}

#[derive(Debug)]
pub(crate) struct For {
    pub(crate) line: usize,
    pub(crate) target: Target,
    pub(crate) iterable: Expression,
    pub(crate) condition: Option<Expression>,
    pub(crate) body: Vec<Statement>,
    pub(crate) otherwise: Vec<Statement>,
}

#[derive(Debug)]
pub(crate) enum Target {
    Name(Arc<str>),
    Tuple(Vec<Target>),
    /// A namespace and its attribute.
    Namespace(Arc<str>, Arc<str>),
}

#[derive(Debug)]
pub(crate) struct Macro {
    pub(crate) line: usize,
    pub(crate) name: Arc<str>,
    /// Parameters with their defaults.
    pub(crate) parameters: Vec<(Arc<str>, Option<Expression>)>,
    pub(crate) body: Vec<Statement>,
    /// Whether the body uses `caller`, so that the macro can be called with a block.
    pub(crate) takes_caller: bool,
}

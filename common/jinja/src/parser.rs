//! Parses expressions by Jinja's grammar; statements are parsed in [`crate::statements`].

use crate::cursor::Parser;
use crate::fault::{Result, fault, unsupported};
use crate::filters;
use crate::lexer::{Token, tokens};
use crate::tests;
use crate::tree::{Arguments, Call, Comparison, Expression, Kind, Operator, Statement};

/// Parses the text of a template into a tree.
pub(crate) fn parse(source: &str) -> Result<Vec<Statement>> {
    let mut parser =
        Parser { tokens: tokens(source)?, at: 0, depth: 0, in_loop: false, caller_seen: false, macros: 0 };
    parser.statements(&[])
}

impl Parser {
    pub(crate) fn expression(&mut self) -> Result<Expression> {
        self.deeper(Self::conditional)
    }

    /// Parses an expression, or several separated by commas. `conditional`: whether a conditional expression is
    /// allowed.
    pub(crate) fn tuple(&mut self, conditional: bool, parentheses: bool) -> Result<Expression> {
        let line = self.line();
        let (mut items, mut is_tuple) = (Vec::new(), false);
        while !self.ends_tuple() {
            items.push(if conditional { self.expression()? } else { self.deeper(Self::or)? });
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
        }
        if !is_tuple {
            if let Some(item) = items.pop() {
                return Ok(item);
            }
            if !parentheses {
                return Err(self.unexpected("an expression"));
            }
        }
        Expression::new(line, Kind::Tuple(items))
    }

    fn ends_tuple(&self) -> bool {
        matches!(self.current(), Token::BlockEnd | Token::VariableEnd | Token::End)
            || self.is_operator(")")
            || self.is_name("recursive")
    }

    fn conditional(&mut self) -> Result<Expression> {
        let line = self.line();
        let mut expression = self.or()?;
        while self.skip_name("if") {
            let condition = self.or()?;
            let otherwise =
                if self.skip_name("else") { Some(Box::new(self.deeper(Self::conditional)?)) } else { None };
            let kind = Kind::Conditional(Box::new([condition, expression]), otherwise);
            expression = Expression::new(line, kind)?;
        }
        Ok(expression)
    }

    fn or(&mut self) -> Result<Expression> {
        let line = self.line();
        let mut left = self.and()?;
        while self.skip_name("or") {
            let right = self.and()?;
            left = Expression::new(line, Kind::Or(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expression> {
        let line = self.line();
        let mut left = self.not()?;
        while self.skip_name("and") {
            let right = self.not()?;
            left = Expression::new(line, Kind::And(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expression> {
        let line = self.line();
        if self.skip_name("not") {
            let negated = self.deeper(Self::not)?;
            return Expression::new(line, Kind::Not(Box::new(negated)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expression> {
        let line = self.line();
        let first = self.sum()?;
        let mut others = Vec::new();
        loop {
            let not_in =
                self.is_name("not") && matches!(self.next_token(), Token::Name(name) if name == "in");
            let comparison = match self.current() {
                Token::Operator("==") => Comparison::Equal,
                Token::Operator("!=") => Comparison::NotEqual,
                Token::Operator("<") => Comparison::Less,
                Token::Operator("<=") => Comparison::LessOrEqual,
                Token::Operator(">") => Comparison::Greater,
                Token::Operator(">=") => Comparison::GreaterOrEqual,
                Token::Name(name) if name == "in" => Comparison::In,
                _ if not_in => {
                    self.take();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.take();
            others.push((comparison, self.sum()?));
        }
        if others.is_empty() {
            return Ok(first);
        }
        Expression::new(line, Kind::Compare(Box::new(first), others))
    }

    /// Parses operands with left-associative operators between them.
    fn chain(
        &mut self,
        operators: &[(&str, Operator)],
        operand: fn(&mut Self) -> Result<Expression>,
    ) -> Result<Expression> {
        let line = self.line();
        let mut left = operand(self)?;
        while let Some((_, operator)) = operators.iter().find(|(symbol, _)| self.is_operator(symbol)) {
            self.take();
            let right = operand(self)?;
            left = Expression::new(line, Kind::Binary(Box::new(left), *operator, Box::new(right)))?;
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Expression> {
        self.chain(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::concat)
    }

    fn concat(&mut self) -> Result<Expression> {
        let line = self.line();
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_operator("~") {
            parts.push(self.product()?);
        }
        Expression::new(line, Kind::Concat(parts))
    }

    fn product(&mut self) -> Result<Expression> {
        let operators = [
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
            ("//", Operator::FloorDivide),
            ("%", Operator::Remainder),
        ];
        self.chain(&operators, Self::power)
    }

    fn power(&mut self) -> Result<Expression> {
        self.chain(&[("**", Operator::Power)], |parser| parser.unary(true))
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expression> {
        let line = self.line();
        let operand = if self.skip_operator("-") {
            let operand = self.deeper(|parser| parser.unary(false))?;
            Expression::new(line, Kind::Negative(Box::new(operand)))?
        } else if self.skip_operator("+") {
            let operand = self.deeper(|parser| parser.unary(false))?;
            Expression::new(line, Kind::Positive(Box::new(operand)))?
        } else {
            self.primary()?
        };
        let operand = self.postfix(operand)?;
        if with_filters { self.filters_and_tests(operand) } else { Ok(operand) }
    }

    pub(crate) fn primary(&mut self) -> Result<Expression> {
        let line = self.line();
        let kind = match self.take() {
            Token::Name(name) => match name.as_str() {
                "true" | "True" => Kind::Bool(true),
                "false" | "False" => Kind::Bool(false),
                "none" | "None" => Kind::None,
                "varargs" | "kwargs" if self.macros > 0 => {
                    return Err(unsupported(format!("{name:?} in a macro")).at(line));
                }
                _ => {
                    self.caller_seen |= name == "caller";
                    Kind::Variable(name.into())
                }
            },
            Token::Text(mut text) => {
                while let Token::Text(more) = self.current() {
                    text.push_str(more);
                    self.take();
                }
                Kind::Text(text.into())
            }
            Token::Integer(number) => Kind::Integer(number),
            Token::Float(number) => Kind::Float(number),
            Token::Operator("(") => {
                let inner = self.tuple(true, true)?;
                self.expect_operator(")")?;
                return Ok(inner);
            }
            Token::Operator("[") => {
                let mut items = Vec::new();
                while !self.skip_operator("]") {
                    items.push(self.expression()?);
                    if !self.is_operator("]") {
                        self.expect_operator(",")?;
                    }
                }
                Kind::List(items)
            }
            Token::Operator("{") => {
                let mut items = Vec::new();
                while !self.skip_operator("}") {
                    let key = self.expression()?;
                    self.expect_operator(":")?;
                    items.push((key, self.expression()?));
                    if !self.is_operator("}") {
                        self.expect_operator(",")?;
                    }
                }
                Kind::Dict(items)
            }
            token => {
                return Err(fault(format!("expected an expression, found {}", token.describe())).at(line));
            }
        };
        Expression::new(line, kind)
    }

    fn postfix(&mut self, mut expression: Expression) -> Result<Expression> {
        loop {
            let line = self.line();
            let of = Box::new(expression);
            let kind = if self.skip_operator(".") {
                match self.take() {
                    Token::Name(name) => Kind::Attribute(of, name.into()),
                    Token::Integer(number) => {
                        Kind::Item(of, Box::new(Expression::new(line, Kind::Integer(number))?))
                    }
                    token => {
                        let found = token.describe();
                        return Err(fault(format!("expected a name or a number, found {found}")).at(line));
                    }
                }
            } else if self.skip_operator("[") {
                self.subscript(of)?
            } else if self.is_operator("(") {
                Kind::Call(of, self.arguments()?)
            } else {
                return Ok(*of);
            };
            expression = Expression::new(line, kind)?;
        }
    }

    fn subscript(&mut self, of: Box<Expression>) -> Result<Kind> {
        let mut bounds = [None, None, None];
        let (mut bound, mut slice) = (0, false);
        while !self.is_operator("]") {
            if self.is_operator(":") && bound < 2 {
                self.take();
                slice = true;
                bound += 1;
            } else if self.is_operator(",") {
                return Err(unsupported("a subscript of several values").at(self.line()));
            } else if bounds[bound].is_none() {
                bounds[bound] = Some(Box::new(self.expression()?));
            } else {
                return Err(self.unexpected("\"]\""));
            }
        }
        self.expect_operator("]")?;
        if slice {
            return Ok(Kind::Slice(of, bounds));
        }
        let [index, ..] = bounds;
        Ok(Kind::Item(of, index.ok_or_else(|| fault("a subscript is empty").at(self.line()))?))
    }

    pub(crate) fn arguments(&mut self) -> Result<Arguments> {
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        while !self.skip_operator(")") {
            if self.is_operator("*") || self.is_operator("**") {
                return Err(unsupported("unpacking of arguments with * or **").at(self.line()));
            }
            if matches!(self.next_token(), Token::Operator("=")) {
                let name = self.expect_name()?;
                self.take();
                arguments.named.push((name, self.expression()?));
            } else if arguments.named.is_empty() {
                arguments.positional.push(self.expression()?);
            } else {
                return Err(fault("a positional argument follows a named one").at(self.line()));
            }
            if !self.is_operator(")") {
                self.expect_operator(",")?;
            }
        }
        Ok(arguments)
    }

    fn filters_and_tests(&mut self, mut expression: Expression) -> Result<Expression> {
        loop {
            let line = self.line();
            let of = Box::new(expression);
            let kind = if self.skip_operator("|") {
                Kind::Filter(of, self.filter()?)
            } else if self.skip_name("is") {
                let negated = self.skip_name("not");
                let test = Kind::Test(of, self.test()?);
                if negated { Kind::Not(Box::new(Expression::new(line, test)?)) } else { test }
            } else if self.is_operator("(") {
                Kind::Call(of, self.arguments()?)
            } else {
                return Ok(*of);
            };
            expression = Expression::new(line, kind)?;
        }
    }

    /// Parses a filter's name and arguments.
    pub(crate) fn filter(&mut self) -> Result<Call> {
        let line = self.line();
        let name = self.expect_name()?;
        if !filters::is_known(&name) {
            return Err(unsupported(format!("the filter {name:?}")).at(line));
        }
        let arguments = if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
        Ok(Call { name, arguments })
    }

    fn test(&mut self) -> Result<Call> {
        let line = self.line();
        let name = self.expect_name()?;
        if !tests::is_known(&name) {
            return Err(unsupported(format!("the test {name:?}")).at(line));
        }
        let ends = |parser: &Self| ["else", "or", "and"].into_iter().any(|name| parser.is_name(name));
        let takes_operand = match self.current() {
            Token::Name(_) => !ends(self),
            Token::Text(_) | Token::Integer(_) | Token::Float(_) => true,
            Token::Operator(operator) => matches!(*operator, "[" | "{"),
            _ => false,
        };
        let arguments = if self.is_operator("(") {
            self.arguments()?
        } else if self.is_name("is") {
            return Err(fault("tests cannot be chained with is").at(line));
        } else if takes_operand {
            let operand = self.deeper(Self::primary)?;
            Arguments { positional: vec![self.postfix(operand)?], named: Vec::new() }
        } else {
            Arguments::default()
        };
        Ok(Call { name, arguments })
    }
}

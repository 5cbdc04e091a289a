//! Splits the text of a template into tokens: Jinja's rules for white space (`trim_blocks` and `lstrip_blocks` on, as
//! in Transformers), comments, raw blocks, and Python's literals.

use crate::fault::{Result, fault, unsupported};
use crate::literals::unescape;
use crate::text::is_space;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Data(String),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(String),
    Text(String),
    Integer(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

impl Token {
    /// Returns its name in messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Data(_) => "template text".to_owned(),
            Self::BlockBegin => "{%".to_owned(),
            Self::BlockEnd => "the end of the block".to_owned(),
            Self::VariableBegin => "{{".to_owned(),
            Self::VariableEnd => "the end of the expression".to_owned(),
            Self::Name(name) => format!("{name:?}"),
            Self::Text(_) => "a string".to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Operator(operator) => format!("{operator:?}"),
            Self::End => "the end of the template".to_owned(),
        }
    }
}

/// Operators; longer ones before their prefixes.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

/// Returns the tokens of a template with their lines, from 1; the last is [`Token::End`].
pub(crate) fn tokens(source: &str) -> Result<Vec<(usize, Token)>> {
    // Jinja normalises newlines, then removes one at the end.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, line_starting: true, tokens: Vec::new() };
    lexer.root().map_err(|fault| fault.at(lexer.line))?;
    let line = lexer.line;
    lexer.tokens.push((line, Token::End));
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: usize,
    /// Whether the text before the position ended with a newline.
    line_starting: bool,
    tokens: Vec<(usize, Token)>,
}

/// Sign at the border of a tag: minus, plus, or none.
#[derive(Clone, Copy, PartialEq)]
enum Sign {
    Strip,
    Keep,
    Plain,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    /// Advances by `bytes`.
    fn skip(&mut self, bytes: usize) {
        let skipped = &self.rest()[..bytes];
        self.line += skipped.matches('\n').count();
        self.line_starting = skipped.ends_with('\n');
        self.at += bytes;
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((self.line, token));
    }

    fn root(&mut self) -> Result<()> {
        while let Some((length, begin)) = next_tag(self.rest()) {
            let text = &self.rest()[..length];
            let sign = sign_after(&self.rest()[length + 2..]);
            let text = if sign == Sign::Strip {
                text.trim_end_matches(is_space)
            } else if sign == Sign::Plain && begin != "{{" {
                without_indentation(text, self.line_starting)
            } else {
                text
            };
            if !text.is_empty() {
                self.push(Token::Data(text.to_owned()));
            }
            self.skip(length);
            let raw = (begin == "{%").then(|| raw_begin(self.rest())).flatten();
            if let Some(raw) = raw {
                self.skip(raw);
                self.raw()?;
                continue;
            }
            let begin_length = 2 + usize::from(sign != Sign::Plain);
            match begin {
                "{#" => self.comment(begin_length)?,
                "{%" => {
                    self.push(Token::BlockBegin);
                    self.skip(begin_length);
                    self.tag(true)?;
                }
                _ => {
                    self.push(Token::VariableBegin);
                    self.skip(begin_length);
                    self.tag(false)?;
                }
            }
        }
        if !self.rest().is_empty() {
            self.push(Token::Data(self.rest().to_owned()));
            self.skip(self.rest().len());
        }
        Ok(())
    }

    fn comment(&mut self, begin_length: usize) -> Result<()> {
        let content = &self.rest()[begin_length..];
        let end = content.find("#}").ok_or_else(|| fault("a comment has no end"))?;
        let sign = match content.as_bytes()[..end].last() {
            Some(b'-') => Sign::Strip,
            Some(b'+') => Sign::Keep,
            _ => Sign::Plain,
        };
        self.skip(begin_length + end + 2);
        self.after_block(sign);
        Ok(())
    }

    /// Handles white space after the end of a block.
    fn after_block(&mut self, sign: Sign) {
        let rest = self.rest();
        let length = match sign {
            Sign::Strip => rest.len() - rest.trim_start_matches(is_space).len(),
            Sign::Keep => 0,
            Sign::Plain => usize::from(rest.starts_with('\n')),
        };
        if length > 0 {
            self.skip(length);
        }
    }

    fn raw(&mut self) -> Result<()> {
        let (starting, content) = (self.line_starting, self.rest());
        let mut from = 0;
        loop {
            let at = content[from..].find("{%").ok_or_else(|| fault("a raw block has no end"))? + from;
            let Some((length, begin_sign, end_sign)) = raw_end(&content[at..]) else {
                from = at + 2;
                continue;
            };
            let text = match begin_sign {
                Sign::Strip => content[..at].trim_end_matches(is_space),
                Sign::Keep => &content[..at],
                Sign::Plain => without_indentation(&content[..at], starting),
            };
            if !text.is_empty() {
                self.push(Token::Data(text.to_owned()));
            }
            self.skip(at + length);
            self.after_block(end_sign);
            return Ok(());
        }
    }

    /// Reads the tokens up to the end of a block or of an expression.
    fn tag(&mut self, block: bool) -> Result<()> {
        let mut open: Vec<&str> = Vec::new();
        loop {
            let rest = self.rest();
            if open.is_empty() {
                let (signed, plain) = if block { (["-%}", "+%}"], "%}") } else { (["-}}", ""], "}}") };
                let sign = if rest.starts_with(signed[0]) {
                    Some((Sign::Strip, 3))
                } else if block && rest.starts_with(signed[1]) {
                    Some((Sign::Keep, 3))
                } else if rest.starts_with(plain) {
                    Some((if block { Sign::Plain } else { Sign::Keep }, 2))
                } else {
                    None
                };
                if let Some((sign, length)) = sign {
                    self.push(if block { Token::BlockEnd } else { Token::VariableEnd });
                    self.skip(length);
                    self.after_block(sign);
                    return Ok(());
                }
            }
            let Some(first) = rest.chars().next() else {
                return Err(fault("a block or an expression has no end"));
            };
            if is_space(first) {
                self.skip(first.len_utf8());
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if first.is_alphanumeric() || first == '_' {
                let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                if !rest[..length].is_ascii() {
                    return Err(unsupported(format!("the name {:?}, which is not ASCII,", &rest[..length])));
                }
                self.push(Token::Name(rest[..length].to_owned()));
                self.skip(length);
            } else if first == '\'' || first == '"' {
                self.string(first)?;
            } else {
                let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator));
                let operator = operator.ok_or_else(|| fault(format!("unexpected character {first:?}")))?;
                match operator {
                    "(" => open.push(")"),
                    "[" => open.push("]"),
                    "{" => open.push("}"),
                    ")" | "]" | "}" if open.pop() != Some(operator) => {
                        return Err(fault(format!("unexpected {operator:?}")));
                    }
                    _ => {}
                }
                self.push(Token::Operator(operator));
                self.skip(operator.len());
            }
        }
    }

    fn number(&mut self) -> Result<()> {
        let (rest, after_dot) = (self.rest(), self.source[..self.at].ends_with('.'));
        let digits = |text: &str| {
            let length = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
            text[..length].trim_end_matches('_').len()
        };
        let whole = digits(rest);
        let starts_with_digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let mut length = whole;
        if !after_dot {
            if rest[length..].strip_prefix('.').is_some_and(starts_with_digit) {
                length += 1 + digits(&rest[length + 1..]);
            }
            if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
                let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if starts_with_digit(unsigned) {
                    length += 1 + (exponent.len() - unsigned.len()) + digits(unsigned);
                }
            }
        }
        if length > whole {
            let number = rest[..length].replace('_', "");
            let number = number.parse().map_err(|_| fault(format!("{number:?} is not a number")))?;
            self.push(Token::Float(number));
            self.skip(length);
            return Ok(());
        }
        let radix = match rest.get(..2) {
            Some("0b" | "0B") => 2,
            Some("0o" | "0O") => 8,
            Some("0x" | "0X") => 16,
            _ => 10,
        };
        let (prefix, length) = if radix == 10 {
            let zeros = rest.len() - rest.trim_start_matches(['0', '_']).len();
            // As in Python, a number that begins with zero consists of zeros.
            (0, if rest.starts_with('0') { zeros.min(whole) } else { whole })
        } else {
            let digits = &rest[2..];
            (2, 2 + digits.find(|c: char| !c.is_digit(radix) && c != '_').unwrap_or(digits.len()))
        };
        let number = rest[prefix..length].replace('_', "");
        let number = i128::from_str_radix(&number, radix)
            .map_err(|_| unsupported(format!("the number {:?}", &rest[..length])))?;
        self.push(Token::Integer(number));
        self.skip(length);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<()> {
        let content = &self.rest()[1..];
        let (mut escaped, mut length) = (false, None);
        for (at, character) in content.char_indices() {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if character == quote => {
                    length = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let length = length.ok_or_else(|| fault("a string has no end"))?;
        self.push(Token::Text(unescape(&content[..length])?));
        self.skip(length + 2);
        Ok(())
    }
}

/// Finds the first tag of a text: its byte and its opening.
fn next_tag(text: &str) -> Option<(usize, &'static str)> {
    let brace = |at: &usize| ["{%", "{{", "{#"].into_iter().find(|tag| text[*at..].starts_with(tag));
    text.match_indices('{').find_map(|(at, _)| brace(&at).map(|tag| (at, tag)))
}

fn sign_after(text: &str) -> Sign {
    match text.as_bytes().first() {
        Some(b'-') => Sign::Strip,
        Some(b'+') => Sign::Keep,
        _ => Sign::Plain,
    }
}

/// Removes indentation after the last newline, if the line has no other text.
fn without_indentation(text: &str, line_starting: bool) -> &str {
    let line = text.rfind('\n').map_or(0, |at| at + 1);
    if (line > 0 || line_starting) && text[line..].chars().all(is_space) { &text[..line] } else { text }
}

/// Returns the length of the opening tag of a raw block.
fn raw_begin(text: &str) -> Option<usize> {
    let (inner, _) = keyword(text, "raw")?;
    if let Some(rest) = inner.strip_prefix("-%}") {
        return Some(text.len() - rest.trim_start_matches(is_space).len());
    }
    inner.strip_prefix("%}").map(|rest| text.len() - rest.len())
}

/// Returns the length of the closing tag of a raw block and the signs on both sides.
fn raw_end(text: &str) -> Option<(usize, Sign, Sign)> {
    let (inner, sign) = keyword(text, "endraw")?;
    let ends = [("-%}", Sign::Strip), ("+%}", Sign::Keep), ("%}", Sign::Plain)];
    ends.into_iter()
        .find_map(|(end, after)| inner.strip_prefix(end).map(|rest| (text.len() - rest.len(), sign, after)))
}

/// Returns the text after `{% name` and the sign of the tag.
fn keyword<'t>(text: &'t str, name: &str) -> Option<(&'t str, Sign)> {
    let inner = text.strip_prefix("{%")?;
    let sign = sign_after(inner);
    let inner = if sign == Sign::Plain { inner } else { &inner[1..] };
    let inner = inner.trim_start_matches(is_space).strip_prefix(name)?;
    Some((inner.trim_start_matches(is_space), sign))
}

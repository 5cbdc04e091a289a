//! Dictionaries that Python printed with `repr`, one per line, as in the files of Steam and of Amazon 2014.
//!
//! The values are texts, numbers, `True`, `False`, `None`, lists, tuples and dictionaries. Everything else that Python
//! evaluates is rejected: names, calls, operators, and texts with other prefixes than `u`.

use serde_json::{Map, Number, Value};

use super::rows::Problem;

/// Maximum depth of nested values.
const DEEPEST: usize = 64;

/// Parses a dictionary and returns the fields that `wanted` selects. Of a repeated field the last value is returned, as
/// in Python.
pub(crate) fn dictionary(text: &str, wanted: impl Fn(&str) -> bool) -> Result<Map<String, Value>, Problem> {
    let mut reader = Reader { text, at: 0 };
    let entries = reader.fields(wanted, 0)?;
    reader.blanks();
    if reader.at < text.len() {
        return Err(reader.expected("the end of the line"));
    }
    Ok(entries)
}

struct Reader<'a> {
    text: &'a str,
    /// Position in bytes.
    at: usize,
}

impl Reader<'_> {
    fn expected(&self, expected: &'static str) -> Problem {
        Problem::Literal { at: self.text[..self.at].chars().count() + 1, expected }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    /// Skips blanks and takes `letter` if it is next.
    fn takes(&mut self, letter: char) -> bool {
        self.blanks();
        let found = self.rest().starts_with(letter);
        self.at += if found { letter.len_utf8() } else { 0 };
        found
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.rest().chars().next()?;
        self.at += letter.len_utf8();
        Some(letter)
    }

    fn fields(&mut self, wanted: impl Fn(&str) -> bool, depth: usize) -> Result<Map<String, Value>, Problem> {
        let mut entries = Map::new();
        if !self.takes('{') {
            return Err(self.expected("a dictionary"));
        }
        while !self.takes('}') {
            let key = match self.value(depth + 1)? {
                Value::String(key) => key,
                Value::Number(key) => key.to_string(),
                _ => return Err(self.expected("a key that is a text")),
            };
            if !self.takes(':') {
                return Err(self.expected("`:`"));
            }
            let value = self.value(depth + 1)?;
            if wanted(&key) {
                entries.insert(key, value);
            }
            if !self.takes(',') && !self.rest().starts_with('}') {
                return Err(self.expected("`,` or `}`"));
            }
        }
        Ok(entries)
    }

    fn value(&mut self, depth: usize) -> Result<Value, Problem> {
        if depth > DEEPEST {
            return Err(self.expected("a value of at most 64 nested ones"));
        }
        self.blanks();
        match self.rest().chars().next() {
            Some('{') => self.fields(|_| true, depth).map(Value::Object),
            Some('[') => self.items('[', ']', depth),
            Some('(') => self.items('(', ')', depth),
            Some('\'' | '"') => self.string(false).map(Value::String),
            Some('u' | 'U') if self.rest()[1..].starts_with(['\'', '"']) => {
                self.at += 1;
                self.string(true).map(Value::String)
            }
            Some('-' | '.' | '0'..='9') => self.number(),
            _ => {
                for (word, value) in
                    [("None", Value::Null), ("True", Value::Bool(true)), ("False", Value::Bool(false))]
                {
                    if self.rest().starts_with(word) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.expected("a text, a number, True, False, None, a list or a dictionary"))
            }
        }
    }

    fn items(&mut self, open: char, close: char, depth: usize) -> Result<Value, Problem> {
        let mut items = Vec::new();
        self.takes(open);
        while !self.takes(close) {
            items.push(self.value(depth + 1)?);
            if !self.takes(',') && !self.rest().starts_with(close) {
                return Err(self.expected("`,` or the end of the list"));
            }
        }
        Ok(Value::Array(items))
    }

    /// Parses a number. Integers of Python 2 may end with `L`.
    fn number(&mut self) -> Result<Value, Problem> {
        let length =
            self.rest().find(|letter: char| !matches!(letter, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
        let length = length.unwrap_or(self.rest().len());
        let digits = &self.rest()[..length];
        let whole = digits.parse::<i64>().ok().map(Number::from);
        let number = whole.or_else(|| digits.parse().ok().and_then(Number::from_f64));
        let number = number.ok_or_else(|| self.expected("a finite number"))?;
        self.at += length;
        if number.is_i64() && self.rest().starts_with('L') {
            self.at += 1;
        }
        Ok(Value::Number(number))
    }

    /// Parses a text after its prefix.
    fn string(&mut self, is_unicode: bool) -> Result<String, Problem> {
        let (mut text, mut has_bytes) = (String::new(), false);
        let quote = self.next();
        // The first half of a character that Python 2 wrote as two.
        let mut high: Option<u32> = None;
        loop {
            let start = self.at;
            let letter = self.next().ok_or_else(|| self.expected("the end of the text"))?;
            let code = match letter {
                '\\' => self.escape(start)?,
                letter if Some(letter) == quote => break,
                letter => u32::from(letter),
            };
            has_bytes |= letter == '\\' && (0x80..0x100).contains(&code);
            let pair = high.take();
            match (pair, code) {
                (Some(high), 0xDC00..0xE000) => {
                    let code = 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00);
                    text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    continue;
                }
                (Some(_), _) => text.push(char::REPLACEMENT_CHARACTER),
                (None, _) => {}
            }
            if (0xD800..0xDC00).contains(&code) {
                high = Some(code);
            } else {
                text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
        if high.is_some() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        // Without a prefix, Python 2 wrote the bytes of UTF-8; Python 3 escapes no two characters that are UTF-8 together.
        let bytes = || text.chars().map(|letter| u8::try_from(letter).ok()).collect::<Option<Vec<u8>>>();
        let decoded = (has_bytes && !is_unicode).then(bytes).flatten();
        Ok(decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or(text))
    }

    /// Parses an escape after its backslash at `start`, and returns the code of its character.
    fn escape(&mut self, start: usize) -> Result<u32, Problem> {
        let letter = self.next();
        let digits = match letter {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => 0,
        };
        let code = match letter {
            Some('\\' | '\'' | '"') => letter.map(u32::from),
            Some('n') => Some(0x0A),
            Some('r') => Some(0x0D),
            Some('t') => Some(0x09),
            Some('a') => Some(0x07),
            Some('b') => Some(0x08),
            Some('f') => Some(0x0C),
            Some('v') => Some(0x0B),
            Some('x' | 'u' | 'U') => {
                let code = self.rest().get(..digits).and_then(|code| u32::from_str_radix(code, 16).ok());
                self.at += if code.is_some() { digits } else { 0 };
                code
            }
            _ => None,
        };
        code.ok_or_else(|| {
            self.at = start;
            self.expected("an escape such as \\n, \\', \\xe9 or \\u2019")
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> Result<Value, Problem> {
        dictionary(text, |_| true).map(Value::Object)
    }

    #[test]
    fn dictionaries_of_python_2_and_3_are_read() {
        let text = r#"{u'title': u"Tom Clancy's \u2019", 'price': 4.99, 'ids': [1, -2L, 3e2], 'none': None, 'yes': True,
                      'no': False, "it's": ('a', u'b',), 'ranks': {'Books': 6334800}, 'empty': {}, }"#;
        let expected = json!({
            "title": "Tom Clancy's ’", "price": 4.99, "ids": [1, -2, 300.0], "none": null, "yes": true, "no": false,
            "it's": ["a", "b"], "ranks": {"Books": 6_334_800}, "empty": {}
        });
        assert_eq!(parsed(&text.replace('\n', " ")).unwrap(), expected);
        let only = dictionary("{'a': 1, 'b': [2], 'a': 3}", |key| key == "a").unwrap();
        assert_eq!(Value::Object(only), json!({"a": 3}));
    }

    #[test]
    fn texts_of_both_versions_have_their_characters() {
        for (written, text) in [
            (r"'\xc3\x89t\xc3\xa9'", "Été"),
            (r"u'\xc9t\xe9'", "Été"),
            (r"'\xc9t\xe9'", "Été"),
            ("'Été'", "Été"),
            (r"u'\xc3\xa9'", "Ã©"),
            (r"u'\u6620\u753b \U0001f600 \ud83d\ude00'", "映画 😀 😀"),
            (r"u'\ud83d!'", "\u{FFFD}!"),
            (r"u'\ud83d'", "\u{FFFD}"),
            (r"u'\ude00'", "\u{FFFD}"),
            (r#"'say "hi", don\'t\t\\n'"#, "say \"hi\", don't\t\\n"),
            ("''", ""),
        ] {
            assert_eq!(parsed(&format!("{{'t': {written}}}")).unwrap(), json!({"t": text}), "{written}");
        }
    }

    #[test]
    fn everything_else_is_rejected_with_its_position() {
        for (text, expected) in [
            (
                "{'a': b}",
                "a text, a number, True, False, None, a list or a dictionary expected at character 7",
            ),
            ("{'a': 1} 2", "the end of the line expected at character 10"),
            ("{'a': 'é", "the end of the text expected at character 9"),
            ("{'a' 1}", "`:` expected at character 6"),
            ("{'a': 1 'b': 2}", "`,` or `}` expected at character 9"),
            ("{'a': [1 2]}", "`,` or the end of the list expected at character 10"),
            ("{'a': b'x'}", "a text, a number"),
            ("{'a': r'x'}", "a text, a number"),
            (r"{'a': '\N{DIGIT ONE}'}", "an escape such as"),
            (r"{'a': '\xg1'}", "expected at character 8"),
            ("{'a': 1-2}", "a finite number"),
            ("{'a': 1e999}", "a finite number"),
            ("{(1,): 2}", "a key that is a text"),
            ("['a']", "a dictionary expected at character 1"),
            ("{'a'", "`:` expected at character 5"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let deep = format!("{{'a': {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(parsed(&deep).unwrap_err().to_string().contains("64 nested"));
    }
}

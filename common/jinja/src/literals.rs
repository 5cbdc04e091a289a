//! String literals.

use crate::fault::{Result, fault, unsupported};

/// Decodes a string literal as Python's `unicode-escape` does.
pub(crate) fn unescape(text: &str) -> Result<String> {
    let mut unescaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        unescaped.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(kind) = rest.chars().next() else { return Err(fault("a string ends with a backslash")) };
        let simple = match kind {
            '\n' => Some(""),
            '\\' => Some("\\"),
            '\'' => Some("'"),
            '"' => Some("\""),
            'a' => Some("\u{7}"),
            'b' => Some("\u{8}"),
            'f' => Some("\u{C}"),
            'n' => Some("\n"),
            'r' => Some("\r"),
            't' => Some("\t"),
            'v' => Some("\u{B}"),
            _ => None,
        };
        if let Some(simple) = simple {
            unescaped.push_str(simple);
            rest = &rest[1..];
            continue;
        }
        let (start, length, radix) = match kind {
            'x' => (1, 2, 16),
            'u' => (1, 4, 16),
            'U' => (1, 8, 16),
            '0'..='7' => (0, rest.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count(), 8),
            'N' => return Err(unsupported("the escape \\N")),
            _ => {
                // Unknown escapes are preserved.
                unescaped.push('\\');
                continue;
            }
        };
        let digits =
            rest.get(start..start + length).filter(|digits| digits.chars().all(|c| c.is_digit(radix)));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, radix).ok());
        let code = code.ok_or_else(|| fault(format!("the escape \\{kind} is incomplete")))?;
        let character = char::from_u32(code);
        unescaped.push(character.ok_or_else(|| unsupported(format!("the character U+{code:04X}")))?);
        rest = &rest[start + length..];
    }
    unescaped.push_str(rest);
    Ok(unescaped)
}

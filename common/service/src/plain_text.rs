//! Text of other processes, made safe to show: it cannot forge lines of a log or control a terminal.

use std::borrow::Cow;

/// Longest name that is kept, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// Returns the text with control characters, line and paragraph separators, and characters that change the direction of
/// text as escapes such as `\n` and `\u{1b}`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_special) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_special(character) {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
    }
    Cow::Owned(plain)
}

/// Returns the escaped text, cut to at most `bytes` bytes.
pub fn limited(text: &str, bytes: usize) -> String {
    start(&escaped(start(text, bytes)), bytes).to_owned()
}

/// Returns a name that another process reports, escaped and cut to [`MAX_NAME_BYTES`].
pub fn name(text: &str) -> String {
    limited(text, MAX_NAME_BYTES)
}

/// Returns the longest start of the text of at most `bytes` bytes.
fn start(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn is_special(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_become_escapes_and_others_remain() {
        for plain in ["gpu-7 (rack 3)", "größe 東京 🙂", "C:\\x"] {
            assert_eq!(escaped(plain), plain);
        }
        assert_eq!(escaped("a\nb\r\t\u{1b}[2J\u{7f}\u{9b}"), "a\\nb\\r\\t\\u{1b}[2J\\u{7f}\\u{9b}");
        assert_eq!(escaped("\u{202e}cod\u{2066}\u{2028}"), "\\u{202e}cod\\u{2066}\\u{2028}");
    }

    #[test]
    fn a_name_is_at_most_256_bytes() {
        assert_eq!(name(&"x".repeat(30 << 20)).len(), MAX_NAME_BYTES);
        let wide = name(&"東".repeat(1_000));
        assert_eq!(wide.chars().count(), MAX_NAME_BYTES / 3);
        assert_eq!(name(&"\n".repeat(1_000)).len(), MAX_NAME_BYTES);
        assert_eq!(limited("short", 80), "short");
    }
}

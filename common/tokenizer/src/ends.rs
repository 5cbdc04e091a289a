//! Where in the text of many tokens the text of each one ends.
//!
//! Decoders look at neighbours: a character may be spelled by several tokens, a word may lose the space before it at the
//! beginning of a text. So a token is decoded with a few before it, and what they add together counts. The work grows
//! with the number of tokens, whatever they are.

/// Tokens before those looked at that are decoded with them. Each spells a byte at least, and whoever reads UTF-8 from
/// the middle is in step with who read it from the beginning after four.
const CONTEXT: usize = 8;

/// Up to how many tokens of an incomplete character are looked at one by one. UTF-8 needs four; what is longer is no
/// text, and is looked at whenever its length has doubled.
const INCOMPLETE: usize = 8;

/// What decoders write for bytes that are no character, or not yet one.
const REPLACEMENT: char = '\u{FFFD}';

/// For each of `ids`, all of which add to the text, the byte of `text` at which its text ends. `text` is what `decode` makes of
/// all of them.
///
/// The ends ascend to the length of `text`. Of a character that several tokens spell, all bytes belong to the last of
/// them, and so do bytes that never become a character.
pub(crate) fn ends<E>(
    ids: &[u32],
    text: &str,
    decode: impl Fn(&[u32]) -> Result<String, E>,
) -> Result<Vec<u32>, E> {
    let mut ends: Vec<usize> = Vec::with_capacity(ids.len());
    // Whether what came before ends in the middle of a character.
    let (mut at, mut open) = (0, false);
    while at < ids.len() {
        let start = ends.last().copied().unwrap_or(0);
        let context = at.saturating_sub(CONTEXT);
        let before = length(&decode(&ids[context..at])?, open);
        // A token, and those after it until there is a character more.
        let mut next = at;
        let mut reached = before;
        while next == at || (open && reached <= before) {
            next += 1;
            let count = next - at;
            let last = next == ids.len() || !decode(&ids[next..=next])?.contains(REPLACEMENT);
            if last || count <= INCOMPLETE || count.is_power_of_two() {
                let decoded = decode(&ids[context..next])?;
                open = !last && decoded.ends_with(REPLACEMENT);
                reached = length(&decoded, open).max(before);
            }
            ends.push(start + (reached - before));
        }
        at = next;
    }
    // A decoder that looks further than assumed here must not lead out of the text.
    let mut ends: Vec<u32> = ends.into_iter().map(|end| end.min(text.len()) as u32).collect();
    if let Some(last) = ends.last_mut() {
        *last = text.len() as u32;
    }
    Ok(ends)
}

/// Bytes of a text, without a character at its end that is still `open`.
fn length(text: &str, open: bool) -> usize {
    if open { text.trim_end_matches(REPLACEMENT).len() } else { text.len() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Tokens are bytes, up to four in an id, as the decoder of byte-level vocabularies sees them.
    fn bytes(ids: &[u32]) -> Vec<u8> {
        ids.iter().flat_map(|id| id.to_le_bytes().into_iter().take_while(|byte| *byte != 0)).collect()
    }

    #[expect(clippy::unnecessary_wraps, reason = "decoders can fail, this one cannot")]
    fn lossy(ids: &[u32]) -> Result<String, Infallible> {
        Ok(String::from_utf8_lossy(&bytes(ids)).into_owned())
    }

    fn token(bytes: &[u8]) -> u32 {
        bytes.iter().rev().fold(0, |id, byte| id << 8 | u32::from(*byte))
    }

    fn of(tokens: &[&[u8]]) -> Vec<u32> {
        let ids: Vec<u32> = tokens.iter().map(|bytes| token(bytes)).collect();
        let Ok(text) = lossy(&ids);
        let Ok(ends) = ends(&ids, &text, lossy);
        ends
    }

    #[test]
    fn a_character_ends_with_its_last_token() {
        assert_eq!(of(&[b"ab", b"c"]), [2, 3]);
        assert_eq!(of(&[b"a", b"\xE2\x82", b"\xAC", b"b"]), [1, 1, 4, 5]);
        assert_eq!(of(&[b" \xF0", b"\x9F", b"\x98", b"\x80!"]), [1, 1, 1, 6]);
        assert_eq!(of(&[b"\xC3", b"\xA9\xC3", b"\xA9"]), [0, 2, 4]);
        assert_eq!(of(&[b"a", b"\xFF", b"\xFE", b"b"]), [1, 1, 7, 8], "bytes that are no character");
        assert_eq!(of(&[b"a", b"\xE2\x82"]), [1, 4], "a character that is never complete");
        assert_eq!(of(&[]), [0_u32; 0]);
    }

    #[test]
    fn the_work_grows_with_the_number_of_tokens() {
        for bytes in [&b"\xFF"[..], b"\x80", b"\xE2", b"a", b"\xC3\xA9\xC3"] {
            let work = |count: usize| {
                let (ids, decoded) = (vec![token(bytes); count], Cell::new(0));
                let Ok(text) = lossy(&ids);
                let counting = |ids: &[u32]| {
                    decoded.set(decoded.get() + ids.len());
                    lossy(ids)
                };
                let Ok(ends) = ends(&ids, &text, counting);
                assert_eq!(ends.last().copied(), Some(text.len() as u32));
                decoded.get()
            };
            assert!(work(4_000) < 40 * 4_000, "{bytes:?}: {}", work(4_000));
        }
    }

    proptest! {
        #[test]
        fn text_cut_anywhere_ends_where_its_characters_do(text in "[aé€😀 ]{0,24}", cuts in any::<u64>()) {
            let mut tokens: Vec<Vec<u8>> = vec![];
            for (at, &byte) in text.as_bytes().iter().enumerate() {
                match tokens.last_mut() {
                    Some(token) if token.len() < 4 && cuts >> (at % 64) & 1 == 0 => token.push(byte),
                    _ => tokens.push(vec![byte]),
                }
            }
            let tokens: Vec<&[u8]> = tokens.iter().map(Vec::as_slice).collect();
            let mut position = 0;
            let expected: Vec<u32> = tokens.iter().map(|bytes| {
                position += bytes.len();
                (0..=position).rev().find(|&end| text.is_char_boundary(end)).unwrap() as u32
            }).collect();
            prop_assert_eq!(of(&tokens), expected);
        }

        #[test]
        fn any_bytes_keep_the_rules(tokens in prop::collection::vec(prop::collection::vec(1_u8.., 1..4), 0..40)) {
            let ids: Vec<u32> = tokens.iter().map(|bytes| token(bytes)).collect();
            let Ok(text) = lossy(&ids);
            let Ok(ends) = ends(&ids, &text, lossy);
            prop_assert_eq!(ends.len(), ids.len());
            prop_assert!(ends.is_sorted());
            prop_assert_eq!(ends.last().copied().unwrap_or(0) as usize, text.len());
        }
    }
}

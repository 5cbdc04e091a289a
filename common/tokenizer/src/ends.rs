//! Finds the end of each token's text in the text of many tokens.
//!
//! Decoders depend on neighbours: several tokens may spell one character, and the first word of a text may lose the
//! space before it. Each token is therefore decoded together with a few tokens before it. The work is linear in the
//! number of tokens.

/// Number of preceding tokens that are decoded as context. Each token has at least one byte, and a UTF-8 decoder that
/// starts anywhere is synchronised after four bytes.
const CONTEXT: usize = 8;

/// Number of tokens of an incomplete character up to which every length is tried. UTF-8 needs four; longer sequences
/// are invalid and are tried whenever their length has doubled.
const INCOMPLETE: usize = 8;

/// Replacement that decoders write for invalid or incomplete bytes.
const REPLACEMENT: char = '\u{FFFD}';

/// For each of `ids`, all of which add to the text, returns the byte of `text` at which its text ends. `text` is the
/// output of `decode` for all ids.
///
/// The ends ascend to the length of `text`. If several tokens spell a character, all its bytes belong to the last of
/// them; bytes that never become a character likewise.
pub(crate) fn ends<E>(
    ids: &[u32],
    text: &str,
    decode: impl Fn(&[u32]) -> Result<String, E>,
) -> Result<Vec<u32>, E> {
    let mut ends: Vec<usize> = Vec::with_capacity(ids.len());
    // Whether the previous text ends within a character.
    let (mut at, mut open) = (0, false);
    while at < ids.len() {
        let start = ends.last().copied().unwrap_or(0);
        let context = at.saturating_sub(CONTEXT);
        let before = length(&decode(&ids[context..at])?, open);
        // A token and the following ones, until the text is longer by a character.
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
    // Clamp, in case a decoder depends on more context than assumed here.
    let mut ends: Vec<u32> = ends.into_iter().map(|end| end.min(text.len()) as u32).collect();
    if let Some(last) = ends.last_mut() {
        *last = text.len() as u32;
    }
    Ok(ends)
}

/// Length of a text in bytes, without an incomplete (`open`) character at its end.
fn length(text: &str, open: bool) -> usize {
    if open { text.trim_end_matches(REPLACEMENT).len() } else { text.len() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Tokens are bytes, up to four per id, as in byte-level vocabularies.
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
    fn a_character_belongs_to_its_last_token() {
        assert_eq!(of(&[b"ab", b"c"]), [2, 3]);
        assert_eq!(of(&[b"a", b"\xE2\x82", b"\xAC", b"b"]), [1, 1, 4, 5]);
        assert_eq!(of(&[b" \xF0", b"\x9F", b"\x98", b"\x80!"]), [1, 1, 1, 6]);
        assert_eq!(of(&[b"\xC3", b"\xA9\xC3", b"\xA9"]), [0, 2, 4]);
        assert_eq!(of(&[b"a", b"\xFF", b"\xFE", b"b"]), [1, 1, 7, 8], "invalid bytes");
        assert_eq!(of(&[b"a", b"\xE2\x82"]), [1, 4], "an incomplete character");
        assert_eq!(of(&[]), [0_u32; 0]);
    }

    #[test]
    fn the_work_is_linear_in_the_number_of_tokens() {
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
        fn tokens_end_with_their_last_complete_character(text in "[aé€😀 ]{0,24}", cuts in any::<u64>()) {
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
        fn ends_of_arbitrary_bytes_are_valid(tokens in prop::collection::vec(prop::collection::vec(1_u8.., 1..4), 0..40)) {
            let ids: Vec<u32> = tokens.iter().map(|bytes| token(bytes)).collect();
            let Ok(text) = lossy(&ids);
            let Ok(ends) = ends(&ids, &text, lossy);
            prop_assert_eq!(ends.len(), ids.len());
            prop_assert!(ends.is_sorted());
            prop_assert_eq!(ends.last().copied().unwrap_or(0) as usize, text.len());
        }
    }
}

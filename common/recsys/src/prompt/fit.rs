//! Fits a prompt into its budget: shortens captions first, then drops the oldest history, then truncates titles.
//! Candidates and the instruction are preserved; a prompt that still exceeds the budget is an error.

use super::error::Error;
use super::messages::Prompt;
use super::shortening::{SHORTEST_TITLE_CHARS, Shortening, Unit};
use crate::ids::UserId;

/// Length in characters of the longest texts of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Longest {
    pub(super) caption: usize,
    pub(super) title: usize,
}

/// Size of a prompt that exceeds its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excess {
    pub(super) size: usize,
    pub(super) limit: usize,
    pub(super) unit: Unit,
}

/// A prompt that fits, or its excess.
pub(super) type Attempt = Result<Prompt, Excess>;

/// Finds the smallest shortening with which the prompt of `user` fits. `attempt` writes the prompt with a
/// shortening; `history` is the number of items, of which at least one is retained.
pub(super) fn fit(
    user: UserId,
    longest: Longest,
    history: usize,
    mut attempt: impl FnMut(Shortening) -> Result<Attempt, Error>,
) -> Result<(Prompt, Shortening), Error> {
    let whole = match attempt(Shortening::default())? {
        Ok(prompt) => return Ok((prompt, Shortening::default())),
        Err(excess) => excess,
    };
    // The size decreases with the retained amount: binary search for the largest amount from 0 to `most` that
    // fits.
    let mut most_kept = |most: usize, shortening: &dyn Fn(usize) -> Shortening| {
        let (mut best, mut low, mut high) = (None, 0, most);
        while low < high {
            let kept = low + (high - low) / 2;
            if let Ok(prompt) = attempt(shortening(kept))? {
                best = Some((prompt, shortening(kept)));
                low = kept + 1;
            } else {
                high = kept;
            }
        }
        Ok::<_, Error>(best)
    };
    let shorter_captions = |kept| Shortening { caption_chars: Some(kept), ..Shortening::default() };
    if let Some(fitting) = most_kept(longest.caption, &shorter_captions)? {
        return Ok(fitting);
    }
    let caption_chars = (longest.caption > 0).then_some(0);
    let spare = history.saturating_sub(1);
    let shorter_history = |kept| Shortening {
        caption_chars,
        history_left_out: spare.saturating_sub(kept),
        ..Shortening::default()
    };
    if let Some(fitting) = most_kept(spare, &shorter_history)? {
        return Ok(fitting);
    }
    let spare_title = longest.title.saturating_sub(SHORTEST_TITLE_CHARS);
    let shorter_titles = |kept| Shortening {
        caption_chars,
        history_left_out: spare,
        title_chars: (spare_title > 0).then_some(SHORTEST_TITLE_CHARS + kept),
    };
    if let Some(fitting) = most_kept(spare_title, &shorter_titles)? {
        return Ok(fitting);
    }
    let Excess { limit, unit, .. } = whole;
    let least = match attempt(shorter_titles(0))? {
        Ok(prompt) => return Ok((prompt, shorter_titles(0))),
        Err(excess) => excess.size,
    };
    Err(Error::TooLong { user, whole: whole.size, least, limit, unit })
}

/// Truncates `caption` to at most `chars` characters, at a word boundary if possible; `None` if nothing remains.
pub(super) fn cut(caption: &str, chars: usize) -> Option<&str> {
    let Some((end, next)) = caption.char_indices().nth(chars) else { return Some(caption) };
    let head = &caption[..end];
    let head = if next.is_whitespace() {
        head
    } else {
        head.rfind(char::is_whitespace).map_or(head, |space| &head[..space])
    };
    Some(head.trim_end()).filter(|head| !head.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A prompt of size 100 for the instruction, plus 10 per history item, plus captions of the history and of three
    /// more items.
    fn attempt(
        limit: usize,
        history: usize,
        longest: Longest,
    ) -> impl Fn(Shortening) -> Result<Attempt, Error> {
        move |shortening| {
            let shown = history - shortening.history_left_out;
            let caption = shortening.caption_chars.unwrap_or(longest.caption);
            let cut = shortening.title_chars.map_or(0, |chars| longest.title.saturating_sub(chars));
            let size = 100 + 10 * shown + caption * (shown + 3) - cut;
            Ok(if size <= limit {
                Ok(Prompt { system: None, user: size.to_string() })
            } else {
                Err(Excess { size, limit, unit: Unit::Tokens })
            })
        }
    }

    fn shortened(limit: usize) -> Result<Shortening, Error> {
        let longest = Longest { caption: 20, title: 21 };
        fit(UserId(3), longest, 5, attempt(limit, 5, longest)).map(|(_, shortening)| shortening)
    }

    #[test]
    fn captions_are_shortened_first_then_history_then_titles() {
        let shortening = |caption_chars, history_left_out| Shortening {
            caption_chars,
            history_left_out,
            title_chars: None,
        };
        let cut = |chars| Shortening { title_chars: Some(chars), ..shortening(Some(0), 4) };
        for (limit, expected) in [
            (310, shortening(None, 0)),
            (309, shortening(Some(19), 0)),
            (158, shortening(Some(1), 0)),
            (157, shortening(Some(0), 0)),
            (150, shortening(Some(0), 0)),
            (149, shortening(Some(0), 1)),
            (110, shortening(Some(0), 4)),
            (109, cut(20)),
            (105, cut(16)),
        ] {
            assert_eq!(shortened(limit).unwrap(), expected, "{limit}");
        }
        let error = shortened(104).unwrap_err().to_string();
        assert_eq!(
            error,
            "the prompt of user 3 has 310 tokens, and 105 without captions, with one item of history and with titles \
             of at most 16 characters: expected at most 104 (prompt.max_tokens); raise the limit, or show fewer \
             candidates (candidates.count)"
        );
    }

    #[test]
    fn captions_are_truncated_at_word_boundaries() {
        let caption = "a red desert";
        for (chars, expected) in [
            (12, Some(caption)),
            (11, Some("a red")),
            (5, Some("a red")),
            (4, Some("a")),
            (1, Some("a")),
            (0, None),
        ] {
            assert_eq!(cut(caption, chars), expected, "{chars}");
        }
        assert_eq!(cut("红色沙漠", 2), Some("红色"));
    }

    proptest! {
        #[test]
        fn the_smallest_shortening_is_found(limit in 80_usize..400, history in 1_usize..9, caption in 0_usize..30, title in 0_usize..40) {
            let longest = Longest { caption, title };
            let attempt = attempt(limit, history, longest);
            match fit(UserId(1), longest, history, &attempt) {
                Ok((prompt, shortening)) => {
                    prop_assert!(prompt.user.parse::<usize>().unwrap() <= limit);
                    let more = match (shortening.caption_chars, shortening.history_left_out, shortening.title_chars) {
                        (None, 0, None) => return Ok(()),
                        (_, _, Some(chars)) => Shortening { title_chars: Some(chars + 1).filter(|&more| more < title), ..shortening },
                        (Some(chars), 0, None) if chars + 1 < caption => Shortening { caption_chars: Some(chars + 1), ..shortening },
                        (Some(_), 0, None) => Shortening::default(),
                        (_, left_out, None) => Shortening { history_left_out: left_out - 1, ..shortening },
                    };
                    prop_assert!(attempt(more).unwrap().is_err(), "{shortening:?} although {more:?} fits");
                }
                Err(_) => prop_assert!(110 - title.saturating_sub(SHORTEST_TITLE_CHARS) > limit),
            }
        }
    }
}

//! Detects whether a text names a title.

use std::ops::Range;

use crate::wording::{Plain, Unit, fold, is_hangul, is_katakana};

/// Articles that are ignored at the beginning of a title.
const ARTICLES: [&str; 3] = ["the", "a", "an"];
/// Further articles that catalogues move to the end after a comma: `Haine, La`.
const MOVED_ARTICLES: [&str; 20] = [
    "a", "an", "das", "de", "den", "der", "det", "die", "een", "ein", "eine", "el", "gli", "il", "l", "la",
    "las", "le", "les", "lo",
];
/// Particles that follow a Korean word without a space.
const PARTICLES: [&str; 26] = [
    "가",
    "과",
    "께",
    "나",
    "는",
    "도",
    "라",
    "라는",
    "로",
    "를",
    "만",
    "보다",
    "부터",
    "에",
    "에게",
    "에서",
    "와",
    "으로",
    "은",
    "을",
    "의",
    "이",
    "이라는",
    "까지",
    "처럼",
    "한테",
];
/// Minimum length of a single word in capitals that names a title; shorter ones are mostly abbreviations.
const SHORTEST_CAPITALS: usize = 3;

/// Whether `text` names `title`: it contains all words of the title consecutively, independent of case, accents,
/// punctuation and character forms. A year in brackets at the end and an article are not part of the title.
///
/// A title of a single word also has to match in case, or be in all capitals, since most such words have another
/// meaning in lower case. A title in a script without spaces is found inside a text without them; if it is a single
/// dictionary word, it has to match word boundaries of the text.
pub(crate) fn names(text: &str, title: &str) -> bool {
    let title = Title::of(title);
    let text = Plain::new(text);
    let Some(last) = title.words.last() else {
        // A title of symbols only.
        return !title.plain.text().is_empty() && text.text().contains(title.plain.text());
    };
    let units = text.units();
    let word = |unit: &Unit| &text.text()[unit.span.clone()];
    if let ([only], [unit]) = (&title.words[..], &title.units[..])
        && !unit.spaceless
    {
        let cased = &title.plain.text()[unit.span.clone()];
        return units.iter().map(word).any(|found| {
            found == cased || (fold(found) == *only && is_capitals(found)) || is_with_particle(found, cased)
        });
    }
    let folded: Vec<String> = units.iter().map(|unit| fold(word(unit))).collect();
    let before = &title.words[..title.words.len() - 1];
    let found = folded.windows(title.words.len()).enumerate().filter(|(_, window)| {
        window
            .split_last()
            .is_some_and(|(end, start)| start == before && (end == last || is_inflected(end, last)))
    });
    let mut spans = found.map(|(at, _)| units[at].span.start..units[at + title.words.len() - 1].span.end);
    if title.is_dictionary_word() {
        let boundaries = text.boundaries();
        return spans.any(|span| is_apart(text.text(), &boundaries, &span));
    }
    spans.next().is_some()
}

/// A parsed title.
struct Title {
    plain: Plain,
    units: Vec<Unit>,
    /// The words, case-folded.
    words: Vec<String>,
}

impl Title {
    fn of(title: &str) -> Self {
        let plain = Plain::new(title);
        let plain = plain.part(0..without_year(plain.text()).len());
        let mut units = plain.units();
        let word = |unit: &Unit| fold(&plain.text()[unit.span.clone()]);
        if let [.., before, last] = &units[..] {
            let moved = plain.text()[before.span.end..last.span.start].trim() == ",";
            let article = word(last);
            if article == "the" || (moved && MOVED_ARTICLES.contains(&article.as_str())) {
                units.pop();
            }
        }
        if units.len() > 1 && ARTICLES.contains(&word(&units[0]).as_str()) {
            units.remove(0);
        }
        let words = units.iter().map(word).collect();
        Self { plain, units, words }
    }

    /// Whether it is one word of a script without spaces.
    fn is_dictionary_word(&self) -> bool {
        self.units.iter().all(|unit| unit.spaceless) && self.plain.dictionary_words() == 1
    }
}

/// Whether a word of the text is the title's last word with an inflection ending.
fn is_inflected(found: &str, last: &str) -> bool {
    found.strip_prefix(last).is_some_and(|ending| ending == "'s") || is_with_particle(found, last)
}

fn is_with_particle(found: &str, word: &str) -> bool {
    word.chars().next_back().is_some_and(is_hangul)
        && found.strip_prefix(word).is_some_and(|ending| PARTICLES.contains(&ending))
}

fn is_capitals(word: &str) -> bool {
    word.chars().count() >= SHORTEST_CAPITALS && !word.chars().any(char::is_lowercase)
}

/// Whether the span matches word boundaries of the text and no run of Katakana continues beyond it.
fn is_apart(text: &str, boundaries: &[usize], span: &Range<usize>) -> bool {
    let boundary = |at: usize| boundaries.binary_search(&at).is_ok();
    let katakana = |letter: Option<char>| letter.is_some_and(is_katakana);
    let goes_on = |at: usize| katakana(text[..at].chars().next_back()) && katakana(text[at..].chars().next());
    [span.start, span.end].into_iter().all(|at| boundary(at) && !goes_on(at))
}

fn without_year(title: &str) -> &str {
    let title = title.trim_end();
    let year = title.strip_suffix(')').and_then(|rest| rest.rsplit_once('('));
    match year {
        Some((name, year)) if year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => title,
    }
}

#[cfg(test)]
mod tests;

//! Normalises texts for comparison: the same words compare equal in every spelling.
//!
//! A text is first converted to a plain form by Unicode's compatibility composition (NFKC). Typographic
//! apostrophes become `'` and `&` becomes `and`. Marks that do not change letters (accents of Latin, Greek and
//! Cyrillic letters, points of Arabic and Hebrew ones, invisible characters) are removed. Words compare by full
//! case folding. In scripts without spaces every character is a unit; where whole words are counted, ICU's
//! dictionary finds them.

use std::borrow::Cow;
use std::ops::Range;

use icu_casemap::CaseMapper;
use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup, Script};
use icu_segmenter::options::WordBreakInvariantOptions;
use icu_segmenter::{WordSegmenter, WordSegmenterBorrowed};

/// Optional marks: accents; points of Hebrew; points and the filler of Arabic.
const OPTIONAL_MARKS: [Range<u32>; 5] =
    [0x0300..0x0370, 0x0591..0x05C8, 0x0640..0x0641, 0x064B..0x0660, 0x0670..0x0671];

/// A unit of comparison in a plain text: a word, or a character of a script without spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Its range in the plain text.
    pub(crate) span: Range<usize>,
    /// Whether it belongs to a script without spaces.
    pub(crate) spaceless: bool,
}

/// A plain text, with its original case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plain(String);

impl Plain {
    /// Normalises a text.
    pub(crate) fn new(text: &str) -> Self {
        let text: Cow<str> =
            if text.contains('&') { text.replace('&', " and ").into() } else { Cow::Borrowed(text) };
        if text.is_ascii() {
            return Self(text.replace('`', "'"));
        }
        let spelled: String = text.chars().map(straight).collect();
        let apart = DecomposingNormalizerBorrowed::new_nfkd().normalize(&spelled).replace('&', " and ");
        // Decomposition yields apostrophes as well: a double prime is two primes.
        let bare: String = apart.chars().map(straight).filter(|letter| !is_optional(*letter)).collect();
        Self(ComposingNormalizerBorrowed::new_nfc().normalize(&bare).into_owned())
    }

    /// Returns the text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Returns the part in a byte range.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        Self(self.0[range].trim().to_owned())
    }

    /// Returns its units in order: runs of letters and digits with inner apostrophes, and characters of scripts without
    /// spaces with their marks.
    pub(crate) fn units(&self) -> Vec<Unit> {
        let mut units: Vec<Unit> = Vec::new();
        // Whether the next letter may belong to the last unit.
        let mut open = false;
        for (start, letter) in self.0.char_indices() {
            let end = start + letter.len_utf8();
            let kind = Kind::of(letter);
            match (units.last_mut(), kind) {
                (Some(last), Kind::Mark) if open => last.span.end = end,
                (Some(last), Kind::Letter) if open && !last.spaceless => last.span.end = end,
                (_, Kind::Letter | Kind::Mark) => units.push(Unit { span: start..end, spaceless: false }),
                (_, Kind::Spaceless) => units.push(Unit { span: start..end, spaceless: true }),
                (_, Kind::Other) => {}
            }
            open = kind != Kind::Other;
        }
        for unit in &mut units {
            let word = &self.0[unit.span.clone()];
            let inner = word.trim_start_matches('\'');
            unit.span.start += word.len() - inner.len();
            unit.span.end = unit.span.start + inner.trim_end_matches('\'').len();
        }
        units.retain(|unit| !unit.span.is_empty());
        units
    }

    /// Returns the case-folded units, for comparison.
    pub(crate) fn folded(&self) -> Vec<String> {
        self.units().into_iter().map(|unit| fold(&self.0[unit.span])).collect()
    }

    /// Returns word boundaries in ascending order; in scripts without spaces by dictionary.
    pub(crate) fn boundaries(&self) -> Vec<usize> {
        segmenter().segment_str(&self.0).collect()
    }

    /// Returns the number of words.
    pub(crate) fn dictionary_words(&self) -> usize {
        dictionary_words(&self.0).count()
    }
}

/// Role of a character in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letter,
    Mark,
    Spaceless,
    Other,
}

impl Kind {
    fn of(letter: char) -> Self {
        if letter.is_ascii() {
            return if letter.is_ascii_alphanumeric() || letter == '\'' { Self::Letter } else { Self::Other };
        }
        let category = CodePointMapData::<GeneralCategory>::new().get(letter);
        if GeneralCategoryGroup::Mark.contains(category) {
            Self::Mark
        } else if !letter.is_alphanumeric() {
            Self::Other
        } else if is_spaceless(letter) {
            Self::Spaceless
        } else {
            Self::Letter
        }
    }
}

/// Whether a character belongs to a script without spaces between words.
fn is_spaceless(letter: char) -> bool {
    const SPACELESS: [Script; 8] = [
        Script::Han,
        Script::Hiragana,
        Script::Katakana,
        Script::Bopomofo,
        Script::Thai,
        Script::Lao,
        Script::Khmer,
        Script::Myanmar,
    ];
    // The mark of a long vowel belongs to both kinds of kana.
    letter == 'ー'
        || (!letter.is_ascii() && SPACELESS.contains(&CodePointMapData::<Script>::new().get(letter)))
}

/// Whether a character is Katakana, whose runs are loanwords.
pub(crate) fn is_katakana(letter: char) -> bool {
    letter == 'ー' || CodePointMapData::<Script>::new().get(letter) == Script::Katakana
}

/// Whether a character is a syllable of Korean, where particles follow a word without a space.
pub(crate) fn is_hangul(letter: char) -> bool {
    CodePointMapData::<Script>::new().get(letter) == Script::Hangul
}

/// Maps apostrophes and their substitutes to `'`.
fn straight(letter: char) -> char {
    match letter {
        '`' | '´' | '‘' | '’' | '‛' | 'ʼ' | 'ʹ' | '′' | '＇' => '\'',
        other => other,
    }
}

/// Whether a character is removed: invisible, or an optional mark.
fn is_optional(letter: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(letter);
    let variation = ('\u{FE00}'..='\u{FE0F}').contains(&letter);
    category == GeneralCategory::Format
        || variation
        || OPTIONAL_MARKS.iter().any(|range| range.contains(&u32::from(letter)))
}

/// Returns a text without case.
pub(crate) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    // Turkish ı has the capital I, which folds to i.
    CaseMapper::new().fold_string(text).replace('ı', "i")
}

/// Returns the comparison form of a text as one string.
pub(crate) fn folded(text: &str) -> String {
    fold(Plain::new(text).text())
}

/// Whether `text` contains `passage`: all of its words consecutively.
pub(crate) fn says(text: &str, passage: &str) -> bool {
    let (text, passage) = (Plain::new(text), Plain::new(passage));
    let words = passage.folded();
    if words.is_empty() {
        let symbols = passage.text().trim();
        return !symbols.is_empty() && text.text().contains(symbols);
    }
    text.folded().windows(words.len()).any(|window| window == words)
}

/// Returns the comparison forms of a text's words, with a dictionary for scripts without spaces.
pub(crate) fn words(text: &str) -> Vec<String> {
    let plain = Plain::new(text);
    let mut words = Vec::new();
    let mut run: Option<Range<usize>> = None;
    let end_run = |run: &mut Option<Range<usize>>, words: &mut Vec<String>| {
        if let Some(run) = run.take() {
            words.extend(dictionary_words(&plain.text()[run]).map(fold));
        }
    };
    for unit in plain.units() {
        match &mut run {
            Some(run) if unit.spaceless && run.end == unit.span.start => run.end = unit.span.end,
            _ => {
                end_run(&mut run, &mut words);
                if unit.spaceless {
                    run = Some(unit.span);
                } else {
                    words.push(fold(&plain.text()[unit.span]));
                }
            }
        }
    }
    end_run(&mut run, &mut words);
    words
}

/// Returns the number of words in a text: separated by spaces or, in scripts without spaces, found by dictionary.
pub(crate) fn count(text: &str) -> usize {
    let words = |part: &str| {
        if part.chars().any(is_spaceless) { dictionary_words(part).count().max(1) } else { 1 }
    };
    text.split_whitespace().map(words).sum()
}

fn segmenter() -> WordSegmenterBorrowed<'static> {
    WordSegmenter::new_dictionary(WordBreakInvariantOptions::default())
}

fn dictionary_words(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    segmenter().segment_str(text).iter_with_word_type().filter_map(move |(end, word_type)| {
        let segment = start..end;
        start = end;
        (word_type.is_word_like() && !segment.is_empty()).then(|| &text[segment])
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_compare_equal_in_every_spelling() {
        for (one, other) in [
            ("It’s Complicated", "IT'S complicated"),
            ("Ｔｏｙ　Ｓｔｏｒｙ", "toy story"),
            ("STRASSE", "Straße"),
            ("ΟΔΥΣΣΕΥΣ", "Οδυσσεύς"),
            ("KIŞ UYKUSU", "Kış Uykusu"),
            ("Amélie", "Ame\u{301}lie"),
            ("Amélie", "AMELIE"),
            ("ﬁnal", "final"),
            ("soft\u{AD}ware", "software"),
            ("ﾄﾄﾛ", "トトロ"),
            ("Beauty & the Beast", "beauty and the beast"),
            ("Spider‑Man", "Spider Man"),
        ] {
            assert_eq!(Plain::new(one).folded(), Plain::new(other).folded(), "{one} {other}");
        }
        assert_ne!(Plain::new("がく").folded(), Plain::new("かく").folded(), "marks of kana are letters");
    }

    #[test]
    fn words_are_counted_in_every_script() {
        for (text, most, least) in [
            ("a cat on a mat", 5, 5),
            ("word-like, words – here", 4, 4),
            ("一只黑猫坐在红色的垫子上", 10, 5),
            ("黒い猫が赤いマットの上に座っています", 16, 7),
            ("แมวดำนั่งอยู่บนเสื่อสีแดง", 10, 5),
            ("고양이가 매트 위에 있다", 4, 4),
            ("", 0, 0),
        ] {
            let count = count(text);
            assert!((least..=most).contains(&count), "{text}: {count}");
        }
        assert_eq!(words("a″a"), ["a''a"]);
        assert_eq!(words("The cat, 黑猫; it’s"), ["the", "cat", "黑", "猫", "it's"].map(str::to_owned));
    }

    #[test]
    fn passages_are_found_word_by_word() {
        assert!(says("Next: “A train in the DARK”!", "a train in the dark."));
        assert!(says("海报上：黑夜里的列车。", "黑夜里的列车"));
        assert!(!says("tired of it", "red"));
        assert!(says("stars ★★★ above", "★★★") && !says("stars", ""));
    }

    proptest! {
        #[test]
        fn units_of_any_text_are_in_order(text in "\\PC{0,40}") {
            let plain = Plain::new(&text);
            let mut end = 0;
            for unit in plain.units() {
                prop_assert!(end <= unit.span.start && unit.span.start < unit.span.end);
                prop_assert!(plain.text().is_char_boundary(unit.span.start));
                end = unit.span.end;
            }
            let _ = (count(&text), words(&text), says(&text, &text));
            prop_assert_eq!(Plain::new(plain.text()).folded(), plain.folded());
        }
    }
}

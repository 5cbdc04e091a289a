//! Names of looks, themes and items.

/// Names of looks.
pub(super) const LOOKS: [&str; 12] = [
    "crimson", "azure", "golden", "emerald", "ivory", "violet", "amber", "silver", "scarlet", "teal",
    "coral", "indigo",
];
/// Names of themes.
pub(super) const THEMES: [&str; 12] = [
    "desert", "ocean", "forest", "city", "mountain", "space", "castle", "island", "jungle", "harbor",
    "village", "canyon",
];

/// Returns an invented title, unique for each item.
pub(super) fn title(item: usize) -> String {
    const SYLLABLES: [&str; 30] = [
        "ba", "de", "fi", "go", "lu", "ma", "ne", "pi", "ro", "su", "ta", "ve", "zi", "ko", "ru", "la", "me",
        "ni", "po", "tu", "da", "be", "li", "mo", "fu", "ra", "se", "ki", "no", "vu",
    ];
    let (first, rest) = (SYLLABLES[item % 30], item / 30);
    let (second, third) = (SYLLABLES[(rest + 7 * item) % 30], SYLLABLES[rest % 30]);
    let mut letters = first.chars();
    let capital = letters.next().map(|letter| letter.to_ascii_uppercase()).into_iter();
    let name: String = capital.chain(letters).chain(second.chars()).chain(third.chars()).collect();
    // Beyond 900 items syllables repeat; a number makes the name unique.
    if rest < 30 { name } else { format!("{name} {}", rest / 30 + 1) }
}

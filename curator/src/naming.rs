//! Whether a text names a title.

/// Articles that catalogues move to the end: `Lion King, The`.
const ARTICLES: [&str; 3] = ["the", "a", "an"];

/// Whether `text` names `title`: all words of the title stand in it one after the other, whatever the case and the
/// punctuation. A year in brackets at the end and an article do not belong to the title. Where a title is a single
/// word, its case has to be that of the title too, since most such words mean something else in lower case.
pub(crate) fn names(text: &str, title: &str) -> bool {
    let title = without_year(title);
    let mut name: Vec<&str> = words(title).collect();
    if name.is_empty() {
        // A title of symbols alone.
        return !title.is_empty() && text.contains(title);
    }
    for end in [name.len() - 1, 0] {
        if name.len() > 1 && ARTICLES.contains(&name[end].to_lowercase().as_str()) {
            name.remove(end);
        }
    }
    if let [word] = name[..] {
        return words(text).any(|other| other == word);
    }
    let lower =
        |words: &mut dyn Iterator<Item = &str>| -> Vec<String> { words.map(str::to_lowercase).collect() };
    let (text, name) = (lower(&mut words(text)), lower(&mut name.into_iter()));
    text.windows(name.len()).any(|window| window == name)
}

/// The words of a text: runs of letters and digits, with apostrophes inside.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '\'')
        .map(|word| word.trim_matches('\''))
        .filter(|word| !word.is_empty())
}

fn without_year(title: &str) -> &str {
    let title = title.trim();
    let year = title.strip_suffix(')').and_then(|rest| rest.rsplit_once('('));
    match year {
        Some((name, year)) if year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()) => {
            name.trim()
        }
        _ => title,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_found_however_they_are_written() {
        for (text, title, expected) in [
            ("A poster of TOY STORY with a cowboy", "Toy Story (1995)", true),
            ("A toy tells its story", "Toy Story (1995)", false),
            ("the lion king stands on a rock", "Lion King, The (1994)", true),
            ("a lion, a king", "Lion King, The (1994)", false),
            ("Two men in the Heat of L.A.", "Heat (1995)", true),
            ("the heat of summer", "Heat (1995)", false),
            ("It shows a clown", "It", true),
            ("it's red", "It", false),
            ("The words \"It's Complicated\" above a couple", "It's Complicated", true),
            ("Spider-Man swings", "Spider Man", true),
            ("stars ★★★ above", "★★★", true),
            ("stars", "★★★", false),
            ("anything", "", false),
            ("anything", "(1995)", false),
            ("東京物語 poster", "東京物語", true),
        ] {
            assert_eq!(names(text, title), expected, "{text:?} names {title:?}");
        }
    }

    #[test]
    fn a_title_of_a_megabyte_is_no_trouble() {
        let title = "very ".repeat(200_000) + "long";
        assert!(!names("a very long caption", &title));
        assert!(names(&format!("x {title} y"), &title));
    }
}

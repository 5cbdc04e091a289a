//! The four steps of a pseudo chain of thought, and their validation.

use crate::wording;

/// Maximum length of a reasoning in words.
const MOST_WORDS: usize = 500;
/// Maximum length of the profile in words: one sentence.
const MOST_PROFILE_WORDS: usize = 60;

/// Format instructions to the model.
pub(super) const FORM: &str = "\
Step 1: the preference signals that the items share.
Step 2: what the user intends next.
Step 3: three to five criteria for finding the next item, each on a line of its own that starts with \"- \".
Step 4: the profile of the next item, in one sentence.

Start every step with its name, as \"Step 1:\". Write at most 300 words in all, and nothing before the first step or \
after the last.";

/// A parsed reasoning: the original texts without the steps' names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Steps<'a>(pub(crate) [&'a str; 4]);

/// Parses a reasoning; the error is the violated rule.
pub(crate) fn read(text: &str) -> Result<Steps<'_>, String> {
    if text.contains("<think>") || text.contains("</think>") {
        return Err("it holds a think tag".to_owned());
    }
    let words = wording::count(text);
    if words > MOST_WORDS {
        return Err(format!("it has {words} words; answer more briefly"));
    }
    let heads: Vec<(usize, usize)> = (1..=4)
        .map(|step| head(text, step).ok_or_else(|| format!("no line starts with \"Step {step}:\"")))
        .collect::<Result<_, _>>()?;
    if !heads.is_sorted() {
        return Err("the steps are not in order".to_owned());
    }
    let mut steps = [""; 4];
    for (index, step) in steps.iter_mut().enumerate() {
        let end = heads.get(index + 1).map_or(text.len(), |next| next.0);
        *step =
            text[heads[index].1..end].trim_matches(|letter: char| letter.is_whitespace() || letter == '*');
        if step.is_empty() {
            return Err(format!("step {} is empty", index + 1));
        }
    }
    let criteria = steps[2].lines().filter(|line| is_listed(line)).count();
    if !(3..=5).contains(&criteria) {
        return Err(format!(
            "step 3 has {criteria} lines that start with \"- \" and must have three to five"
        ));
    }
    let profile = wording::count(steps[3]);
    if profile > MOST_PROFILE_WORDS {
        return Err(format!("step 4 has {profile} words and must be one sentence"));
    }
    Ok(Steps(steps))
}

/// Returns the start of the line with a step's name, and the end of the name. Marks of emphasis and headings are
/// ignored.
fn head(text: &str, step: usize) -> Option<(usize, usize)> {
    let name = format!("Step {step}");
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_start_matches(['#', '*', ' ', '\t']);
        if let Some(rest) = bare.strip_prefix(name.as_str())
            && let Some(content) =
                rest.trim_start_matches('*').strip_prefix([':', '.', ')', '：', '．', '）'])
        {
            return Some((start, start + line.len() - content.len()));
        }
        start += line.len();
    }
    None
}

fn is_listed(line: &str) -> bool {
    let line = line.trim_start();
    let numbered = line.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let bullet = ["- ", "* ", "• ", "– ", "— ", "・", "· "].iter().any(|mark| line.starts_with(mark));
    bullet || (numbered.len() < line.len() && numbered.starts_with(['.', ')', '．', '）', '、']))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str =
        "Step 1: dark, slow films\nStep 2: another\nStep 3:\n- night\n- rain\n- a city\nStep 4: A dark film.";

    #[test]
    fn four_steps_are_parsed() {
        let steps = read(GOOD).unwrap();
        assert_eq!(steps.0, ["dark, slow films", "another", "- night\n- rain\n- a city", "A dark film."]);
        let marked =
            "**Step 1:** one\n\n### Step 2. two\n**Step 3**: criteria\n1. a\n2) b\n3. c\n4. d\nStep 4: x **";
        assert_eq!(read(marked).unwrap().0[3], "x");
        let chinese = "Step 1：黑暗\nStep 2：再看\nStep 3：\n・夜\n・雨\n・城市\nStep 4：一部电影。";
        assert_eq!(read(chinese).unwrap().0, ["黑暗", "再看", "・夜\n・雨\n・城市", "一部电影。"]);
        let long = chinese.replace("一部电影", &"一部黑暗的电影".repeat(30));
        assert!(read(&long).unwrap_err().contains("one sentence"));
    }

    #[test]
    fn violated_rules_are_reported() {
        for (text, reason) in [
            (String::new(), "Step 1"),
            (GOOD.replace("Step 2", "Then"), "Step 2"),
            (
                GOOD.replace("Step 1", "Step 9").replace("Step 4: A dark film.", "Step 4: x\nStep 1: y"),
                "in order",
            ),
            (GOOD.replace("- rain\n", ""), "2 lines"),
            (GOOD.replace("- rain\n", &"- rain\n".repeat(4)), "6 lines"),
            (GOOD.replace("another", " "), "step 2 is empty"),
            (format!("{GOOD} {}", "very ".repeat(70)), "one sentence"),
            (format!("{} {GOOD}", "very ".repeat(600)), "words"),
            (format!("<think>{GOOD}"), "think tag"),
        ] {
            let found = read(&text).unwrap_err();
            assert!(found.contains(reason), "{found:?} for {text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "(Step [0-9][:.)]?|\\*|- |\n|[^a-z]{0,5}|.{0,20}){0,12}") {
            let _ = read(&text);
        }
    }
}

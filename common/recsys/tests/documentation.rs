//! Tests the examples of docs/guides/rewards.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use podium_recsys::completion::{Expected, Form, Layout, Options, ThinkingStart, parse};
use podium_recsys::{Catalogue, Item, ItemId};

const PAGE: &str = include_str!("../../../docs/guides/rewards.md");

/// The cells of the table whose header begins with `first` and has this many columns.
fn table(first: &str, columns: usize) -> Vec<Vec<&'static str>> {
    let cells = |line: &'static str| -> Vec<&'static str> {
        line.trim_matches('|').split('|').map(str::trim).collect()
    };
    let lines = PAGE.lines().skip_while(|line| !(line.starts_with(first) && cells(line).len() == columns));
    lines.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// The text between backticks.
fn code(cell: &str) -> &str {
    cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).unwrap()
}

/// Decodes `\n`, `\r`, `\0` and `\u{…}`.
fn unescaped(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        result.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let (letter, length) = match escape.as_bytes()[0] {
            b'n' => ('\n', 1),
            b'r' => ('\r', 1),
            b'0' => ('\0', 1),
            _ => {
                let digits = escape.strip_prefix("u{").unwrap().split_once('}').unwrap().0;
                (char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap(), digits.len() + 3)
            }
        };
        result.push(letter);
        rest = &escape[length..];
    }
    result + rest
}

fn form(layout: Layout, text: &str) -> Form {
    let options = Options { list_length: 3, layout, require_thinking: true };
    form_after("", &options, text)
}

/// The form of a completion after a prompt with this generation prompt.
fn form_after(generation_prompt: &str, options: &Options, text: &str) -> Form {
    let catalogue = Catalogue::new((1..=20).map(|id| Item {
        id: ItemId(id),
        title: format!("Title {id}"),
        caption: None,
        interactions: 0,
    }));
    let candidates = [4, 9, 2, 17].map(ItemId);
    let thinking_start = ThinkingStart::of(generation_prompt);
    parse(text, &Expected { options, candidates: &candidates, catalogue: &catalogue, thinking_start }).form
}

#[test]
fn every_form_has_a_row_with_a_matching_example() {
    let rows = table("| form |", 3);
    let names: Vec<&str> = rows.iter().map(|row| code(row[0])).collect();
    assert_eq!(names, Form::ALL.map(Form::name), "all forms, in the order in which they count");
    for row in rows {
        let example = unescaped(code(row[2]));
        assert_eq!(form(Layout::Ids, &example).name(), code(row[0]), "{example:?}");
    }
}

#[test]
fn edge_cases_have_the_documented_form() {
    let rows = table("| layout |", 4);
    assert!(rows.len() >= 20);
    for row in rows {
        let layout = match row[0] {
            "ids" => Layout::Ids,
            "titled" => Layout::Titled,
            other => panic!("{other}"),
        };
        let example = unescaped(code(row[3]));
        assert_eq!(form(layout, &example).name(), code(row[1]), "{}: {example:?}", row[2]);
    }
}

#[test]
fn completions_after_a_think_block_in_the_prompt_have_the_documented_form() {
    let rows = table("| the prompt ends with |", 4);
    assert!(rows.len() >= 8);
    for row in rows {
        let (prompt, example) = (unescaped(code(row[0])), unescaped(code(row[3])));
        let start = ThinkingStart::of(&prompt);
        let options = Options { list_length: 3, layout: Layout::Ids, require_thinking: !start.is_closed() };
        assert_eq!(form_after(&prompt, &options, &example).name(), code(row[1]), "{}: {example:?}", row[2]);
    }
}

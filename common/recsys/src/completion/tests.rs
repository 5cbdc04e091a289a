use proptest::prelude::*;

use super::*;
use crate::dataset::{Catalogue, Item};
use crate::ids::ItemId;

fn catalogue() -> Catalogue {
    Catalogue::new((1..=20).map(|id| Item {
        id: ItemId(id),
        title: format!("Title {id}"),
        caption: None,
        interactions: 0,
    }))
}

const CANDIDATES: [ItemId; 4] = [ItemId(4), ItemId(9), ItemId(2), ItemId(17)];

fn options(layout: Layout) -> Options {
    Options { list_length: 3, layout, require_thinking: true }
}

fn with<T>(options: &Options, text: &str, look: impl FnOnce(&Parsed<'_>) -> T) -> T {
    with_start(ThinkingStart::Absent, options, text, look)
}

fn with_start<T>(
    thinking_start: ThinkingStart,
    options: &Options,
    text: &str,
    look: impl FnOnce(&Parsed<'_>) -> T,
) -> T {
    look(&parse(
        text,
        &Expected { options, candidates: &CANDIDATES, catalogue: &catalogue(), thinking_start },
    ))
}

fn form(layout: Layout, text: &str) -> Form {
    with(&options(layout), text, |parsed| parsed.form)
}

#[test]
fn a_well_formed_answer_is_parsed() {
    let text = "<think> crimson desert </think> [ITEM_4] [ITEM_9] [ITEM_2]";
    with(&options(Layout::Ids), text, |parsed| {
        assert_eq!(parsed.form, Form::WellFormed);
        assert_eq!(parsed.thinking, Some(" crimson desert "));
        let spans: Vec<&str> = parsed.ranking.iter().map(|listed| &text[listed.span.clone()]).collect();
        assert_eq!(spans, ["[ITEM_4]", "[ITEM_9]", "[ITEM_2]"]);
        assert!(parsed.ranking.iter().all(|listed| listed.status == ListedStatus::Candidate));
    });

    let text = "<think>\nTwo\nlines.\n</think>\n\n[ITEM_4] Title 4\r\n  [ITEM_9] Other words  \n[ITEM_2]\n";
    with(&options(Layout::Titled), text, |parsed| {
        assert_eq!(parsed.form, Form::WellFormed);
        let titles: Vec<&str> = parsed.ranking.iter().map(|listed| listed.title).collect();
        assert_eq!(titles, ["Title 4", "Other words", ""]);
        assert_eq!(&text[parsed.ranking[1].span.clone()], "[ITEM_9] Other words");
    });
}

#[test]
fn every_defect_is_named() {
    let list = "[ITEM_4] [ITEM_9] [ITEM_2]";
    for (text, expected) in [
        (String::new(), Form::Empty),
        (" \n\t\u{2003}".to_owned(), Form::Empty),
        (list.to_owned(), Form::NoThinking),
        (format!("<thin k> a {list}"), Form::NoThinking),
        (format!("a </think> {list}"), Form::UnopenedThinking),
        (format!("</think> <think> a </think> {list}"), Form::UnopenedThinking),
        (format!("<think> a {list}"), Form::UnclosedThinking),
        (format!("<think> a </think {list}"), Form::UnclosedThinking),
        (format!("so <think> a </think> {list}"), Form::TextBeforeThinking),
        (format!("\u{200F}<think> a </think> {list}"), Form::TextBeforeThinking),
        (format!("<think> a <think> b </think> {list}"), Form::NestedThinking),
        (format!("<think> a <think> b </think> </think> {list}"), Form::NestedThinking),
        (format!("<think> a </think> </think> {list}"), Form::RepeatedThinking),
        (format!("<think> a </think> {list} <think> b </think>"), Form::RepeatedThinking),
        (format!("<think> \n </think> {list}"), Form::EmptyThinking),
        ("<think> a </think>".to_owned(), Form::NoList),
        (format!("<think> a </think> answer: {list}"), Form::TextOutsideList),
        (format!("<think> a </think> {list} done"), Form::TextOutsideList),
        (format!("<think> a </think> \u{200F}{list}"), Form::TextOutsideList),
        ("<think> a </think> [ITEM_04] [ITEM_9] [ITEM_2]".to_owned(), Form::MisspelledItem),
        ("<think> a </think> [ITEM_4 [ITEM_9] [ITEM_2]".to_owned(), Form::MisspelledItem),
        ("<think> a </think> [ITEM_٤] [ITEM_9] [ITEM_2]".to_owned(), Form::MisspelledItem),
        ("<think> a </think> [ITEM_] [ITEM_9] [ITEM_2]".to_owned(), Form::MisspelledItem),
        ("<think> a </think> [ITEM_4] [ITEM_999] [ITEM_2]".to_owned(), Form::InventedItem),
        (
            "<think> a </think> [ITEM_4] [ITEM_99999999999999999999999] [ITEM_2]".to_owned(),
            Form::InventedItem,
        ),
        ("<think> a </think> [ITEM_4] [ITEM_5] [ITEM_2]".to_owned(), Form::NotACandidate),
        ("<think> a </think> [ITEM_4] [ITEM_4] [ITEM_2]".to_owned(), Form::RepeatedItem),
        ("<think> a </think> [ITEM_4] [ITEM_9]".to_owned(), Form::ShortList),
        (format!("<think> a </think> {list} [ITEM_17]"), Form::LongList),
        (format!("<think> a </think> {list}"), Form::WellFormed),
    ] {
        assert_eq!(form(Layout::Ids, &text), expected, "{text:?}");
    }
}

#[test]
fn titled_lists_require_one_item_per_line() {
    for (answer, expected) in [
        ("[ITEM_4] Title 4\n[ITEM_9] Title 9\n[ITEM_2] Title 2", Form::WellFormed),
        ("[ITEM_4] Title 4 [ITEM_9] Title 9\n[ITEM_2] Title 2", Form::TextOutsideList),
        ("1. [ITEM_4] Title 4\n2. [ITEM_9] Title 9\n3. [ITEM_2] Title 2", Form::TextOutsideList),
        ("[ITEM_4] Title 4\n[ITEM_9] Title 9\n[ITEM_2] Title 2\nEnjoy!", Form::TextOutsideList),
        ("[ITEM_4] Title 4\n[ITEM_+9] Title 9\n[ITEM_2] Title 2", Form::MisspelledItem),
    ] {
        assert_eq!(form(Layout::Titled, &format!("<think>a</think>{answer}")), expected, "{answer:?}");
    }
}

#[test]
fn thinking_can_be_optional() {
    let options = Options { require_thinking: false, ..options(Layout::Ids) };
    for text in ["[ITEM_4] [ITEM_9] [ITEM_2]", "<think>\n\n</think>\n\n[ITEM_4] [ITEM_9] [ITEM_2]"] {
        assert_eq!(with(&options, text, |parsed| parsed.form), Form::WellFormed, "{text:?}");
    }
    assert_eq!(with(&options, "a </think> [ITEM_4]", |parsed| parsed.form), Form::UnopenedThinking);
}

#[test]
fn the_end_of_a_prompt_determines_the_thinking_start() {
    use ThinkingStart::{Absent, Closed, Opened};
    for (generation_prompt, expected) in [
        ("", Absent),
        ("<|im_start|>assistant\n", Absent),
        ("<|im_start|>assistant\n<think>", Opened { spaced: false }),
        ("<｜Assistant｜><think>\n", Opened { spaced: true }),
        ("<think>\nOkay, so", Opened { spaced: false }),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", Closed { spaced: true }),
        ("<｜Assistant｜></think>", Closed { spaced: false }),
        ("<think></think><think>\n", Opened { spaced: true }),
    ] {
        assert_eq!(ThinkingStart::of(generation_prompt), expected, "{generation_prompt:?}");
    }
}

#[test]
fn a_completion_continues_the_prompt() {
    let (opened, closed) = (ThinkingStart::of("<think>\n"), ThinkingStart::of("<think></think>"));
    let list = "[ITEM_4] [ITEM_9] [ITEM_2]";
    for (start, required, text, expected) in [
        (opened, true, format!("a </think> {list}"), Form::WellFormed),
        (opened, false, format!(" </think> {list}"), Form::WellFormed),
        (opened, true, " \n".to_owned(), Form::Empty),
        (opened, true, format!(" </think> {list}"), Form::EmptyThinking),
        (opened, false, list.to_owned(), Form::UnclosedThinking),
        (opened, true, format!("<think> a </think> {list}"), Form::NestedThinking),
        (opened, true, format!("a </think> b </think> {list}"), Form::RepeatedThinking),
        (opened, true, "a </think>".to_owned(), Form::NoList),
        (closed, false, list.to_owned(), Form::WellFormed),
        (closed, false, format!("\n\n{list}"), Form::WellFormed),
        (closed, false, format!("<think> a </think> {list}"), Form::RepeatedThinking),
        (closed, false, format!("a </think> {list}"), Form::RepeatedThinking),
        (closed, false, format!("Well: {list}"), Form::TextOutsideList),
        (closed, false, String::new(), Form::Empty),
        (closed, true, list.to_owned(), Form::EmptyThinking),
    ] {
        let options = Options { require_thinking: required, ..options(Layout::Ids) };
        with_start(start, &options, &text, |parsed| {
            assert_eq!(parsed.form, expected, "{start:?}: {text:?}");
            if parsed.form.is_well_formed() {
                assert_eq!(parsed.thinking.is_some(), start == opened);
                assert_eq!(parsed.ranking.len(), 3);
            }
        });
    }
}

#[test]
fn reasoning_is_rejected_after_a_closed_think_block() {
    let (closed, titled) = (ThinkingStart::Closed { spaced: true }, Layout::Titled);
    assert_eq!(after(closed, "<think>\nso\n</think>\n\n[ITEM_4]", titled), Err(ThinkingIsOver));
    assert_eq!(after(closed, "<think>\n\n</think>\n\n[ITEM_4]", titled).as_deref(), Ok("[ITEM_4]"));
}

#[test]
fn the_list_of_a_malformed_answer_is_parsed() {
    with(&options(Layout::Ids), "a </think> [ITEM_4] x [ITEM_5] [ITEM_4] [ITEM_99]", |parsed| {
        let statuses: Vec<ListedStatus> = parsed.ranking.iter().map(|listed| listed.status).collect();
        assert_eq!(
            statuses,
            [
                ListedStatus::Candidate,
                ListedStatus::NotACandidate,
                ListedStatus::Repeated,
                ListedStatus::Invented
            ]
        );
    });
}

#[test]
fn names_and_order_of_forms_are_consistent() {
    assert!(Form::ALL.is_sorted());
    for form in Form::ALL {
        assert_eq!(serde_json::to_value(form).unwrap(), form.name());
    }
}

#[test]
fn a_long_text_is_parsed_in_one_pass() {
    for piece in ["[ITEM_", "<think>", "</think>", "[ITEM_4] ", "\u{200F}é", "\n"] {
        let text = piece.repeat(100_000 / piece.len());
        for layout in [Layout::Ids, Layout::Titled] {
            assert!(!form(layout, &text).is_well_formed());
        }
    }
}

/// Texts of tags, items and arbitrary text, in any order.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<think>".to_owned()),
        Just("</think>".to_owned()),
        Just("[ITEM_".to_owned()),
        Just("]".to_owned()),
        Just("\n".to_owned()),
        Just("\u{200F}".to_owned()),
        Just("\u{2028}".to_owned()),
        (0_u32..25).prop_map(|id| format!("[ITEM_{id}] ")),
        (0_u32..25).prop_map(|id| format!("[ITEM_0{id}]")),
        ".{0,8}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_parsed(text in prop_oneof![texts(), any::<String>()], titled: bool, required: bool) {
        let layout = if titled { Layout::Titled } else { Layout::Ids };
        let options = Options { require_thinking: required, ..options(layout) };
        with(&options, &text, |parsed| {
            for listed in &parsed.ranking {
                prop_assert!(text[listed.span.clone()].starts_with("[ITEM_"));
            }
            if parsed.form.is_well_formed() {
                prop_assert_eq!(parsed.ranking.len(), 3);
                prop_assert!(parsed.ranking.iter().all(|listed| listed.status == ListedStatus::Candidate));
                prop_assert!(!required || parsed.thinking.is_some_and(|thinking| !thinking.trim().is_empty()));
            }
            Ok(())
        })?;
    }

    #[test]
    fn written_completions_parse_as_well_formed(
        order in Just(CANDIDATES.to_vec()).prop_shuffle(),
        titled: bool,
        thinking: bool,
        prompt in prop::sample::select(vec![
            "", "<think>", "<think>\n", "<think>\n\n</think>\n\n", "<think> ", "</think>",
        ]),
    ) {
        let layout = if titled { Layout::Titled } else { Layout::Ids };
        let start = ThinkingStart::of(prompt);
        let thinking = (thinking && !start.is_closed()).then_some("crimson desert");
        let options = Options { require_thinking: thinking.is_some(), ..options(layout) };
        let whole = write(thinking, &order[..3], &catalogue(), layout);
        let text = after(start, &whole, layout).unwrap();
        if thinking.is_some() && ["<think>", if titled { "<think>\n" } else { "<think> " }].contains(&prompt) {
            prop_assert_eq!(format!("{prompt}{text}"), whole);
        }
        with_start(start, &options, &text, |parsed| {
            prop_assert_eq!(parsed.form, Form::WellFormed, "{:?} after {:?}", text, prompt);
            if let Some(thinking) = thinking {
                prop_assert_eq!(parsed.thinking.map(str::trim), Some(thinking));
            }
            let items: Vec<ItemId> = parsed.ranking.iter().map(|listed| listed.item).collect();
            prop_assert_eq!(&items, &order[..3]);
            Ok(())
        })?;
    }
}

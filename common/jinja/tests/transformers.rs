//! Compares templates with the output of Transformers in `cases.jsonl`: expressions, statements, white space around
//! tags, and rejected templates. `make parity` renders that file with Transformers again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use podium_jinja::{Error, Template};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn render(template: &str, variables: &Value) -> Result<String, Error> {
    let mut known: Map<String, Value> = json!({
        "messages": [{ "role": "user", "content": "hi" }],
        "tools": null, "documents": null, "add_generation_prompt": false,
    })
    .as_object()
    .unwrap()
    .clone();
    known.extend(variables.as_object().unwrap().clone());
    Template::new(template)?.render(known.iter().map(|(name, value)| (name.as_str(), value)))
}

#[test]
fn templates_render_as_in_transformers() {
    let (mut compared, mut failures) = (0, Vec::new());
    for line in include_str!("cases.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let template = case["template"].as_str().unwrap();
        let rendered = render(template, &json!({}));
        let right = match (&rendered, case["text"].as_str(), case["refused"].as_str()) {
            // Unsupported templates are rejected with the expected reason and never rendered differently.
            (Err(error), Some(_), Some(reason)) => error.message == reason,
            (Ok(text), Some(expected), None) => text == expected,
            (Err(_), None, None) => true,
            _ => false,
        };
        if !right {
            failures.push(format!("{template:?}: {rendered:?}, expected {case}"));
        }
        compared += 1;
    }
    assert!(compared > 900, "{compared} cases");
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn variables_preserve_json_numbers_and_texts() {
    let variables = json!({
        "numbers": [1, -2, 1.0, 1e300, 18_446_744_073_709_551_615_u64, 0.1],
        "texts": ["it's", "\u{0}\u{1c}\u{200b}é😀", "a\r\nb"],
        "nested": { "b": { "a": [null, true] } },
    });
    let rendered = render("{{ numbers }}{{ texts }}{{ nested }}{{ texts[2] }}", &variables).unwrap();
    let expected = "[1, -2, 1.0, 1e+300, 18446744073709551615, 0.1]\
        [\"it's\", '\\x00\\x1c\\u200bé😀', 'a\\r\\nb']{'b': {'a': [None, True]}}a\r\nb";
    assert_eq!(rendered, expected);
}

#[test]
fn errors_name_their_line() {
    for (template, line, message) in [
        ("a\n{% if true %}\nb", 2, "the block has no end: expected elif or else or endif"),
        ("a\n{% frobnicate %}", 2, "the tag \"frobnicate\" is unknown"),
        ("a\r\n{{ x |\n wordcount }}", 3, "the filter \"wordcount\" is not supported by Podium"),
        ("{{ 'a'\n is loud }}", 2, "the test \"loud\" is not supported by Podium"),
        ("\n\n{{ none + 1 }}", 3, "+ of NoneType and int is not defined"),
        ("{% macro f() %}\n{{ x.y }}\n{% endmacro %}\n{{ f() }}", 2, "\"x\" is undefined"),
        ("\n{% include 'x' %}", 2, "the tag \"include\" is not supported by Podium"),
        (
            "{{ raise_exception('roles must alternate') }}",
            1,
            "the template refuses the messages: roles must alternate",
        ),
        ("\n{# no end", 2, "a comment has no end"),
        ("{{ 'no end }}", 1, "a string has no end"),
        ("{{ [1, 2 }}", 1, "unexpected \"}\""),
    ] {
        let error = render(template, &json!({})).unwrap_err();
        assert_eq!((error.line, error.message.as_str()), (line, message), "{template:?}");
    }
}

#[test]
fn prompts_do_not_depend_on_the_date() {
    let guarded = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}2024{% endif %}";
    assert_eq!(render(guarded, &json!({})).unwrap(), "2024");
    let error = render("{{ strftime_now('%Y') }}", &json!({})).unwrap_err();
    assert!(
        error.message.starts_with("strftime_now is not defined: a prompt must not depend on the date"),
        "{error}"
    );
    assert_eq!(render("{{ strftime_now }}", &json!({ "strftime_now": "today" })).unwrap(), "today");
}

#[test]
fn templates_that_do_not_terminate_are_stopped() {
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(5_000), ")".repeat(5_000));
    let chain = format!("{{{{ 1{} }}}}", " + 1".repeat(100_000));
    let blocks = "{% if true %}".repeat(5_000);
    for template in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = b %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ messages | tojson(indent=1000000000000) }}",
        "{{ 'x' * 1000000000000 }}",
        "{{ [1, 2, 3] * 9223372036854775807 }}",
        "{{ [0] * 900000 ~ [[0] * 900000] * 900000 }}",
        "{{ 'x'.ljust(99999999999) }}",
        "{{ '%99999999999d' % 1 }}",
        "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
        &nested,
        &chain,
        &blocks,
    ] {
        let beginning: String = template.chars().take(60).collect();
        assert!(render(template, &json!({})).is_err(), "{beginning}");
    }
}

proptest! {
    #[test]
    fn any_text_is_rendered_or_rejected(template in "(\\{%-? ?|-?%\\}|\\{\\{|\\}\\}|if |for |in |set |x|=|end|endif|endfor|\\(|\\)|\\[|:|\\]|'|\\||\\.|1|true|loop|~|\\+|is |not |\n| |é|\\\\){0,30}") {
        let _ = render(&template, &json!({ "x": [1, "a", null] }));
    }
}

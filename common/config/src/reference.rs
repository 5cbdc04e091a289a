//! Generates the configuration reference, docs/reference/configuration.md, from the code.

use std::fmt::Write;

use serde_json::Value;

use crate::run_file::RunFile;
use crate::schema::{follow, properties, schema};

/// Returns the reference as Markdown: type, default and meaning of every key, by section.
pub fn markdown() -> String {
    let root = schema();
    let defaults = serde_json::to_value(RunFile::default()).expect("a run file is plain data");
    let mut page = String::from(
        "# Configuration reference\n\n\
         One TOML file describes a run; every process of the run reads it. Layers, in ascending precedence: \
         defaults, the file, environment variables (`PODIUM_RUN__SEED=3` sets `run.seed`), flags (`--set run.seed=3`). \
         Unknown keys are rejected. Every key is optional.\n\n\
         Sections `network` and `launch` never change results. All other sections are part of the run hash, which processes \
         compare before they join a run. Excluded from the hash are the paths `model.path`, `lora.adapter`, `data.dir` and \
         `sft.rows`, since file contents are compared by fingerprint, `run.stages`, `run.record_groups`, \
         `evaluation.record_answers` and `learner.max_logprob_gap_nats`, and of external rewards the keys other than `name`, \
         `weight`, `min`, `max` and `batch_size`.\n\n\
         This page is generated from the code by `cargo run --release -p podium-config --example reference`.\n",
    );
    for (section, inner) in properties(&root, &root).into_iter().flatten() {
        let about = description(inner, &root);
        let _ = write!(
            page,
            "\n## `[{section}]`\n\n{about}\n\n| key | type | default | meaning |\n|---|---|---|---|\n"
        );
        let mut entries = String::new();
        for (key, field) in properties(inner, &root).into_iter().flatten() {
            let default = match &defaults[section][key] {
                Value::Null => "–".to_owned(),
                value => format!("`{value}`"),
            };
            page.push_str(&row(key, &default, field, &root));
            let items = follow(field, &root).get("items").map(|items| follow(items, &root));
            if let Some((items, keys)) = items.and_then(|items| Some((items, properties(items, &root)?))) {
                let required = items.get("required").and_then(Value::as_array);
                let _ = write!(
                    entries,
                    "\n### `[[{section}.{key}]]`\n\n| key | type | default | meaning |\n|---|---|---|---|\n"
                );
                for (key, field) in keys {
                    let is_required =
                        required.is_some_and(|required| required.iter().any(|name| name == key));
                    let default = match field.get("default") {
                        _ if is_required => "required".to_owned(),
                        Some(Value::Null) | None => "–".to_owned(),
                        Some(value) => format!("`{value}`"),
                    };
                    entries.push_str(&row(key, &default, field, &root));
                }
            }
        }
        page.push_str(&entries);
    }
    page
}

/// Returns the line of a key.
fn row(key: &str, default: &str, field: &Value, root: &Value) -> String {
    let about = description(field, root).replace('\n', " ").replace('|', "\\|");
    format!("| `{key}` | {} | {default} | {about} |\n", type_name(field, root))
}

fn description(schema: &Value, root: &Value) -> String {
    let own = schema.get("description").or_else(|| follow(schema, root).get("description"));
    own.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Returns a readable type: `integer`, `number`, `text`, or the values of an enum.
fn type_name(schema: &Value, root: &Value) -> String {
    let schema = follow(schema, root);
    for list in ["anyOf", "oneOf"] {
        if let Some(variants) = schema.get(list).and_then(Value::as_array) {
            let mut names: Vec<String> = variants.iter().map(|variant| type_name(variant, root)).collect();
            names.retain(|name| name != "nothing");
            return names.join(", ");
        }
    }
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    }
    let name = |name: &str| match name {
        "string" => "text".to_owned(),
        "array" => {
            let items = schema.get("items").map(|items| type_name(items, root));
            format!("list of {}", items.unwrap_or_else(|| "values".into()))
        }
        "object" => "table".to_owned(),
        "null" => "nothing".to_owned(),
        other => other.to_owned(),
    };
    match schema.get("type") {
        Some(Value::String(one)) => name(one),
        Some(Value::Array(several)) => {
            let several = several.iter().filter_map(Value::as_str).filter(|one| *one != "null");
            several.map(name).collect::<Vec<_>>().join(" or ")
        }
        _ => "value".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_matches_the_code() {
        let page = include_str!("../../../docs/reference/configuration.md");
        assert!(
            page == super::markdown(),
            "docs/reference/configuration.md is out of date: run `cargo run --release -p podium-config --example reference > docs/reference/configuration.md`"
        );
    }

    #[test]
    fn every_key_has_a_meaning() {
        for line in super::markdown().lines().filter(|line| line.starts_with("| `")) {
            assert!(!line.ends_with("|  |"), "{line}");
        }
    }
}

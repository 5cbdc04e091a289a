//! `check`: findings, and texts without findings.

use podium_tokenizer::word_level;
use serde_json::Value;

use crate::reasoning::assessed;
use crate::shop::{Shop, items_of, run, title};

/// Returns a shop with a training file, and its rows.
fn mixed() -> (Shop, Vec<Value>) {
    let (shop, _server) = assessed();
    run(shop.command(&["mix", "--threshold", "0", "--share", "0.25"])).expect(0);
    let text = shop.read("shop_mixed.jsonl");
    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (shop, rows)
}

#[test]
fn output_of_mix_has_no_findings() {
    let (shop, _) = mixed();
    let json = shop.file("check.json");
    let ended = run(shop.command(&["check", "--json", json.to_str().unwrap()])).expect(0);
    assert!(ended.output.contains("no findings"), "{}", ended.output);
    let found = shop.json("check.json");
    assert_eq!(found["rows"], 12);
    assert_eq!(found["found"], serde_json::json!({}));
    let positions = found["positions"].as_array().unwrap();
    assert_eq!(positions.iter().map(|count| count.as_u64().unwrap()).sum::<u64>(), 12);
}

#[test]
fn completions_have_no_reasoning_after_a_closed_think_block() {
    let (shop, _) = mixed();
    let policy = shop.file("policy");
    let words = podium_recsys::synthetic::words(&podium_recsys::synthetic::World::default()).unwrap();
    word_level::write(word_level::tokens(words), &policy).unwrap();
    let path = format!("model.path={}", policy.display());
    let mix = ["mix", "--threshold", "0", "--share"];
    let closed = ["--set", &path, "--set", "model.enable_thinking=false"];
    let with = |arguments: &[&str], sets: &[&str]| run(shop.command(&[arguments, sets].concat()));
    // The file written for other prompts, and a new one.
    let ended = with(&["check"], &closed).expect(1);
    assert!(ended.output.contains("malformed completion"), "{}", ended.output);
    let ended = with(&[&mix[..], &["0.25"]].concat(), &closed).expect(1);
    assert!(ended.logs.contains("closes the think block"), "{}", ended.logs);
    with(&[&mix[..], &["0"]].concat(), &closed).expect(0);
    with(&["check"], &closed).expect(0);

    // Files contain whole completions for any prompt; the part in the prompt is removed on use.
    let template = "{{ messages[0].content }}{% if add_generation_prompt %}assistant\n<think>\n{% endif %}";
    std::fs::write(policy.join("chat_template.jinja"), template).unwrap();
    let opened = ["--set", path.as_str()];
    with(&[&mix[..], &["0.25"]].concat(), &opened).expect(0);
    assert!(shop.read("shop_mixed.jsonl").contains("<think>\\n"));
    with(&["check"], &opened).expect(0);
}

/// A kind of defect, and a function that adds it to a row.
type Change<'a> = (&'static str, &'a dyn Fn(&mut Value));

#[test]
fn every_kind_of_defect_is_found_at_its_location() {
    let (shop, rows) = mixed();
    let user = rows[0]["user"].as_u64().unwrap();
    let target = items_of(user)[3];
    let prompt = rows[0]["prompt"]["user"].as_str().unwrap().to_owned();
    let changes: [Change<'_>; 8] = [
        ("target_given_away", &|row| {
            row["prompt"]["user"] = format!("{prompt}\nHint: {}", title(target)).into();
        }),
        ("target_given_away", &|row| {
            row["prompt"]["user"] = format!("[ITEM_{target}] fits.\n{prompt}").into();
        }),
        ("held_out_user", &|row| row["user"] = 101.into()),
        ("unknown_user", &|row| row["user"] = 999.into()),
        ("wrong_target", &|row| row["target"] = items_of(user)[0].into()),
        ("known_candidate", &|row| {
            let position = usize::from(row["candidates"][0] == target);
            row["candidates"][position] = items_of(user)[1].into();
        }),
        ("malformed_completion", &|row| row["completion"] = "the first one".into()),
        ("differs_from_run_file", &|row| row["prompt"]["user"] = "Rank these.".into()),
    ];
    for (kind, change) in changes {
        let mut changed = rows.clone();
        change(&mut changed[0]);
        assert_found(&shop, &changed, kind);
    }
    let held_out = items_of(101);
    let mut changed = rows.clone();
    changed[0]["history"] = held_out[..3].to_vec().into();
    changed[0]["target"] = held_out[3].into();
    assert_found(&shop, &changed, "held_out_case");
    let mut changed = rows.clone();
    changed.push(rows[1].clone());
    assert_found(&shop, &changed, "repeated_user");
    assert_found(&shop, &changed, "repeated_text");
    let mut changed = rows.clone();
    let completion = rows[0]["completion"].as_str().unwrap();
    let (lines, last) = completion.trim_end().rsplit_once('\n').unwrap();
    let lines: Vec<&str> = lines.rsplitn(3, '\n').collect();
    changed[0]["completion"] = format!("{last}\n{}\n{}", lines[0], lines[1]).into();
    assert_found(&shop, &changed, "target_not_first");
    changed[0] = serde_json::json!({ "user": 1 });
    assert_found(&shop, &changed, "malformed");
}

fn assert_found(shop: &Shop, rows: &[Value], kind: &str) {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    shop.write("changed.jsonl", lines.join("\n") + "\n");
    let (file, json) = (shop.file("changed.jsonl"), shop.file("check.json"));
    let arguments = ["check", "--file", file.to_str().unwrap(), "--json", json.to_str().unwrap()];
    let ended = run(shop.command(&arguments)).expect(1);
    let found = &shop.json("check.json")["found"][kind];
    assert!(found["count"].as_u64().is_some(), "{kind}: {}", ended.output);
    assert!(!found["first"][0].as_str().unwrap().is_empty());
}

#[test]
fn targets_that_always_come_first_are_found() {
    let (shop, rows) = mixed();
    let first: Vec<Value> = rows
        .into_iter()
        .map(|mut row| {
            let target = row["target"].clone();
            let list = row["candidates"].as_array_mut().unwrap();
            let position = list.iter().position(|item| *item == target).unwrap();
            list.swap(0, position);
            row
        })
        .collect();
    assert_found(&shop, &first, "uneven_positions");
}

#[test]
fn reasoning_written_with_knowledge_of_the_target_is_found() {
    let (shop, _) = mixed();
    let row = |user| {
        let reasoning = format!("Step 4: they will choose {}.", title(items_of(user)[3]));
        serde_json::json!({ "line_idx": 0, "user_id": user, "reasoning": reasoning })
    };
    let rows: Value = (1..=12).map(row).collect();
    shop.write("shop_deepseek_cot.json", rows.to_string());
    let ended = run(shop.command(&["check"])).expect(1);
    assert!(ended.output.contains("leak: reasoning that names its target"), "{}", ended.output);
}

#[test]
fn a_split_in_time_trains_on_held_out_users_without_their_targets() {
    let shop = Shop::new();
    let next = |user: u64| (user * 7 + 44) % 40 + 1;
    let train = shop.read("train.tsv");
    let mut test: Vec<String> =
        (1..).zip(train.lines()).map(|(user, line)| format!("{line} {}", next(user))).collect();
    test.push("101\t1 2 3 4 5".to_owned());
    shop.write("test.tsv", test.join("\n"));
    let run_file = shop.read("run.toml");
    shop.write("run.toml", run_file.replace("[data]", "[data]\nsplit = \"times\""));
    run(shop.command(&["mix", "--share", "0"])).expect(0);
    run(shop.command(&["check"])).expect(0);

    let text = shop.read("shop_mixed.jsonl");
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let user = rows[0]["user"].as_u64().unwrap();
    let mut changed = rows.clone();
    changed[0]["target"] = next(user).into();
    assert_found(&shop, &changed, "held_out_user");
    changed[0] = rows[0].clone();
    changed[0]["user"] = 101.into();
    assert_found(&shop, &changed, "held_out_user");
}

#[test]
fn a_share_of_nan_is_rejected() {
    let (shop, _) = mixed();
    for share in ["nan", "inf", "-1", "2"] {
        run(shop.command(&["check", &format!("--named-targets-at-most={share}")])).expect(2);
    }
    run(shop.command(&["mix", "--threshold", "nan"])).expect(2);
}

#[test]
fn bad_rows_are_rejected_or_skipped_without_panic() {
    let (shop, _) = mixed();
    let lines = shop.read("train.tsv");
    shop.write("train.tsv", format!("{lines}13\t\n14\t5\nnonsense\n15\t1 2 99999\n"));
    let ended = run(shop.command(&["check"])).expect(1);
    assert!(ended.logs.contains("line 13"), "{}", ended.logs);
    let ended = run(shop.command(&["check", "--set", "data.bad_rows=skip"])).expect(0);
    assert!(
        ended.logs.contains("too_few_items: 2 rows skipped, the first at line 13, line 14"),
        "{}",
        ended.logs
    );
}

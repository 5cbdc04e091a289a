//! Encodings, titles that are too long, HTML entities, and quotes.

use std::fmt::Write as _;
use std::fs;

use podium_recsys::ItemId;
use podium_recsys::dataset::{Dataset, Split};
use serde_json::json;

use crate::files::Files;

const MICROLENS: &str = "microlens --pairs pairs! --titles titles!";
const PAIRS: &[u8] = b"1\t10 11 12\n2\t12 11 10\n";

fn title(data: &Dataset, id: u64) -> &str {
    &data.catalogue.get(ItemId(id)).unwrap().title
}

fn utf16(text: &str, big: bool) -> Vec<u8> {
    text.encode_utf16().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

#[test]
fn windows_1252_keeps_its_quotes_dashes_and_letters() {
    let titles = b"item,title\n10,It\x92s \x93quoted\x94 \x96 \x80 5 \x85\n11,Chef-d\x92\x9Cuvre \xE0 la fran\xE7aise\n12,Plain\n";
    let files = Files::new(&[("pairs", PAIRS), ("titles", titles)]);
    let (data, statistics) = files.imported(MICROLENS, Split::Times);
    assert_eq!(title(&data, 10), "It’s “quoted” – € 5 …");
    assert_eq!(title(&data, 11), "Chef-d’œuvre à la française");
    assert_eq!(statistics["sources"][0]["encoding"], "windows-1252");
}

#[test]
fn utf16_is_read_with_and_without_a_byte_order_mark() {
    let text = "item,title\r\n10,Été\r\n11,\"映画, 2\"\r\n12,Plain 😀\r\n";
    for mark in ["", "\u{FEFF}"] {
        for big in [false, true] {
            let titles = utf16(&format!("{mark}{text}"), big);
            let files = Files::new(&[("pairs", PAIRS), ("titles", &titles)]);
            let (data, statistics) = files.imported(MICROLENS, Split::Times);
            assert_eq!([title(&data, 10), title(&data, 11)], ["Été", "映画, 2"]);
            assert_eq!(title(&data, 12), "Plain 😀");
            assert_eq!(statistics["sources"][0]["encoding"], if big { "UTF-16BE" } else { "UTF-16LE" });
        }
    }
    let pairs = utf16("1\t10 11 12\n2\t12 11 10\n", true);
    let files =
        Files::new(&[("pairs", &pairs), ("titles", &utf16("\u{FEFF}item,title\n10,A\n11,B\n12,C\n", true))]);
    files.imported(&format!("{MICROLENS} --encoding utf-16be"), Split::Times);
    let output = files.import(&format!("{MICROLENS} --encoding utf-7"));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected an encoding such as utf-8"));
}

#[test]
fn entities_are_decoded_on_request_and_counted_otherwise() {
    let titles = "item,title\n10,Tom &amp; Jerry &#39;s&nbsp;show\n11,AT&T & co; R&D\n12,&lt;b&gt; &Eacute;t&eacute;\n";
    let files = Files::new(&[("pairs", PAIRS), ("titles", titles.as_bytes())]);
    let (data, statistics) = files.imported(MICROLENS, Split::Times);
    assert_eq!(title(&data, 10), "Tom &amp; Jerry &#39;s&nbsp;show");
    assert_eq!(statistics["texts_with_entities"], 2);
    fs::remove_dir_all(files.path("out")).unwrap();
    let (data, statistics) = files.imported(&format!("{MICROLENS} --decode-entities"), Split::Times);
    assert_eq!(title(&data, 10), "Tom & Jerry 's show");
    assert_eq!(title(&data, 11), "AT&T & co; R&D");
    assert_eq!(title(&data, 12), "<b> Été");
    assert_eq!(statistics["texts_with_entities"], 2);
    assert_eq!(statistics["entities_decoded"], true);
}

#[test]
fn long_titles_are_truncated_at_characters_on_request() {
    let long = "é映".repeat(1_000);
    let titles = format!("item,title\n10,{long}\n11,Short\n12,Plain\n");
    let files = Files::new(&[("pairs", PAIRS), ("titles", titles.as_bytes())]);
    let stderr = files.refused(MICROLENS);
    assert!(
        stderr.contains("titles, line 2: a title of 5000 bytes, expected at most 4096 (--longest-title"),
        "{stderr}"
    );
    for bytes in 1_000..1_006 {
        let (data, statistics) =
            files.imported(&format!("{MICROLENS} --longest-title {bytes}"), Split::Times);
        let cut = title(&data, 10);
        assert!(long.starts_with(cut) && (bytes - 2..=bytes).contains(&cut.len()), "{bytes}: {}", cut.len());
        assert_eq!(statistics["titles_cut"], 1);
        fs::remove_dir_all(files.path("out")).unwrap();
    }
    let output = files.import(&format!("{MICROLENS} --longest-title 3"));
    assert_eq!(output.status.code(), Some(2));
}

/// The real MicroLens: titles in many scripts, one of 7,000 bytes, one row in another encoding than the rest.
#[test]
fn microlens_with_a_long_title_and_a_row_in_windows_1252_is_imported() {
    let long = "a very long title 视频 ".repeat(280);
    let long = format!("{}!", &long[..6_999]);
    let mut titles = b"item,title\r\n".to_vec();
    let mut pairs = String::new();
    for item in 1..=200_u64 {
        match item {
            17 => titles.extend_from_slice(format!("17,{long}\r\n").as_bytes()),
            99 => titles.extend_from_slice(b"99,\"It\x92s a caf\xE9 \x96 \x93No, no\x94\"\r\n"),
            _ => titles.extend_from_slice(format!("{item},\"Part {item}, 映画 #tag\"\r\n").as_bytes()),
        }
    }
    for user in 1..=100_u64 {
        let row: Vec<String> = (0..6).map(|at| (1 + (user * 7 + at * 31) % 200).to_string()).collect();
        write!(pairs, "{user}\t{}\r\n", row.join(" ")).unwrap();
    }
    let files = Files::new(&[("pairs", pairs.as_bytes()), ("titles", &titles)]);
    let stderr = files.refused(MICROLENS);
    assert!(stderr.contains("line 18: a title of 7000 bytes"), "{stderr}");
    let stderr = files.refused(&format!("{MICROLENS} --longest-title 4096"));
    assert!(stderr.contains("titles, line 100: not UTF-8; in windows-1252 it reads"), "{stderr}");
    assert!(stderr.contains("--fallback-encoding windows-1252"), "{stderr}");
    let arguments = format!("{MICROLENS} --longest-title 4096 --fallback-encoding windows-1252");
    let (data, statistics) = files.imported(&arguments, Split::Times);
    assert_eq!((data.catalogue.len(), data.test.len()), (200, 100));
    assert_eq!(statistics["interactions"], 600);
    assert_eq!(statistics["titles_cut"], 1);
    assert_eq!(statistics["sources"][0]["rows_in_fallback_encoding"], 1);
    assert_eq!(statistics["skipped"], json!({}));
    assert_eq!(title(&data, 99), "It’s a café – “No, no”");
    assert_eq!(title(&data, 98), "Part 98, 映画 #tag");
    assert!(title(&data, 17).len() > 4_080 && long.starts_with(title(&data, 17)));

    // If the other titles are ASCII, the whole file is in windows-1252.
    let plain = b"item,title\n10,It\x92s\n11,Plain\n12,Plainer\n";
    let files = Files::new(&[("pairs", PAIRS), ("titles", plain)]);
    assert_eq!(title(&files.imported(MICROLENS, Split::Times).0, 10), "It’s");
}

#[test]
fn quoted_line_ends_are_not_rows_and_bare_quotes_lose_none() {
    let items = "item\ttitle\n10\t\"Heroes\" live\n11\t\"Weird Al\n12\t\"Quoted\ttab\"\n13\t5\" disk\n";
    let log = "user,note,item,timestamp\n\
               7,\"first\n8,x,11,5\n\",10,1\n7,plain,11,2\n7,\"say \"\"hi\"\", then\n\nleave\",12,3\n7,a,13,4\n";
    let files = Files::new(&[("log", log.as_bytes()), ("items", items.as_bytes())]);
    let table = "table --interactions log! --items items!";
    // A line in a note is a valid row: the record is ambiguous.
    for skip in ["", " --skip-bad-rows"] {
        let stderr = files.refused(&format!("{table}{skip}"));
        assert!(stderr.contains("log, lines 2 to 4: a quoted field that contains whole rows"), "{stderr}");
    }
    let log = log.replace("8,x,11,5", "and 8, x, y");
    let files = Files::new(&[("log", log.as_bytes()), ("items", items.as_bytes())]);
    let (data, _) = files.imported(table, Split::Times);
    assert_eq!(crate::files::items(&data, 7, true), [10, 11, 12, 13]);
    let titles = [10, 11, 12, 13].map(|item| title(&data, item));
    assert_eq!(titles, ["\"Heroes\" live", "\"Weird Al", "Quoted tab", "5\" disk"]);

    let items = items.replace('\t', ",");
    let files = Files::new(&[("log", log.as_bytes()), ("items", items.as_bytes())]);
    let stderr = files.refused(table);
    assert!(stderr.contains("items, line 3: a quote that is never closed"), "{stderr}");
}

//! Unusable rows and files.

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use podium_recsys::dataset::Split;

use crate::files::{Files, MOVIELENS, MOVIES, RATINGS};

#[test]
fn bad_rows_are_rejected_with_location_or_counted() {
    let good = b"7\t1\t5\t10\n7\t2\t3\t20\n7\t5\t3\t30\n".as_slice();
    let long_title = [b"1|".as_slice(), &vec![b'x'; 1 << 20], b"|a|b|c\n2|B|||\n5|C|||\n9|D|||\n"].concat();
    for (file, content, reason, kind) in [
        ("ratings", &b"7\t1\t5\n"[..], "line 1: found 3 columns, expected 4", "columns"),
        ("ratings", b"7\t9\t5\t10\n", "line 1: item \"9\" has no row in the item file", "unknown_item"),
        ("ratings", b"7\t1\t5\tlater\n", "line 1: timestamp \"later\", expected", "timestamp"),
        ("ratings", b"7\t1\tnan\t5\n", "line 1: rating \"nan\", expected a number", "rating"),
        ("ratings", b"\t1\t5\t5\n", "line 1: no user id", "no_field"),
        ("ratings", b"8\t1\t5\t5\n", "line 1: the user's only interaction", "too_few_items"),
        (
            "ratings",
            b"7\t1\t5\t10\n",
            "line 1: the same user, item and time as line 2",
            "repeated_interaction",
        ),
        (
            "items",
            b"1|Again|||\n1|A|||\n2|B|||\n5|C|||\n",
            "line 2: item \"1\" has an earlier row",
            "repeated_item",
        ),
        ("items", b"1|A|||\n2|B|\n2|B|||\n5|C|||\n", "line 2: found 3 columns, expected 5", "columns"),
        (
            "items",
            b"1|A|||\n2|B|||\n5|C|||\n6| |||\n",
            "line 4: item \"6\" has an empty title",
            "empty_title",
        ),
        ("items", &long_title, "line 1: a title of 1048576 bytes, expected at most 4096", "long_title"),
    ] {
        let ratings = if file == "ratings" {
            [content, good].concat()
        } else {
            b"7\t2\t3\t20\n7\t5\t3\t30\n7\t2\t3\t40\n".to_vec()
        };
        let movies = if file == "items" { content } else { MOVIES };
        let files = Files::new(&[("ratings", &ratings), ("items", movies)]);
        // A repeated row is found after sorting, where it may come first.
        let stderr = files.refused(MOVIELENS);
        let reason = if kind == "repeated_interaction" {
            "line 2: the same user, item and time as line 1"
        } else {
            reason
        };
        assert!(stderr.contains(&format!("{file}, {reason}")), "{kind}: {stderr}");
        let (data, statistics) = files.imported(&format!("{MOVIELENS} --skip-bad-rows"), Split::Times);
        assert_eq!(data.test.len(), 1, "{kind}");
        assert_eq!(statistics["skipped"][format!("{file}: {kind}")]["count"], 1, "{kind}: {statistics}");
    }
}

#[test]
fn junk_is_rejected_without_panic() {
    for junk in
        [&b""[..], b"\n\n\n", b"\xFF\xFE\x00\x00", b"{\"a\": 1}", b"PAR1PAR1", b"\"never closed\n1,2\n"]
    {
        for arguments in [
            MOVIELENS,
            "microlens --pairs ratings! --titles items!",
            "amazon --reviews ratings! --metadata items!",
            "table --interactions ratings! --items items!",
            "table --interactions x.parquet! --items y.parquet!",
        ] {
            for skip in ["", " --skip-bad-rows"] {
                let files = Files::new(&[
                    ("ratings", junk),
                    ("items", junk),
                    ("x.parquet", junk),
                    ("y.parquet", junk),
                ]);
                let stderr = files.refused(&format!("{arguments}{skip}"));
                assert!(!stderr.contains("panicked"), "{arguments}: {stderr}");
            }
        }
    }
}

#[test]
fn pipes_are_rejected_immediately() {
    for (pipe, arguments) in [
        ("ratings", MOVIELENS),
        ("items", MOVIELENS),
        ("ratings", "movielens --ratings ratings! --items items! --encoding latin1"),
        ("titles", "microlens --pairs ratings! --titles titles!"),
        ("log", "amazon --reviews log! --metadata metadata!"),
        ("x.parquet", "table --interactions x.parquet! --items table!"),
    ] {
        let (metadata, table) = (b"{\"asin\": \"1\", \"title\": \"One\"}\n", b"item,title\n1,One\n");
        let files =
            Files::new(&[("ratings", RATINGS), ("items", MOVIES), ("metadata", metadata), ("table", table)]);
        let path = files.path(pipe);
        let _ = std::fs::remove_file(&path);
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let stderr = files.refused(arguments);
        assert!(stderr.contains(&format!("{pipe}: expected a regular file, not a pipe")), "{stderr}");
    }
}

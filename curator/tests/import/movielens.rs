//! MovieLens, the filters, and the split by users.

use std::fmt::Write as _;

use podium_recsys::dataset::Split;
use podium_recsys::{ItemId, User};
use serde_json::json;

use crate::files::{Files, MOVIELENS, MOVIES, RATINGS, items, names};

#[test]
fn all_movielens_layouts_give_the_same_data() {
    let layouts: [(&[u8], &[u8]); 3] = [
        (RATINGS, MOVIES),
        (
            b"7::2::3::20\n7::1::5::10\n7::5::1::20\n3::5::4::9\n3::1::4::8\n",
            b"1::Mis\xE9rables, Les (1995)::Drama|War\n2::GoldenEye::Action\n5::Third::\n",
        ),
        (
            "userId,movieId,rating,timestamp\n7,2,3.0,20\n7,1,5.0,10\n7,5,1.0,20\n3,5,4.0,9\n3,1,4.0,8\n".as_bytes(),
            "\u{FEFF}movieId,title,genres\n1,\"Misérables, Les (1995)\",Drama\n2,GoldenEye,\"Act\nion\"\n5,Third,x\n"
                .as_bytes(),
        ),
    ];
    for (ratings, movies) in layouts {
        let summaries = "title,summary\nGoldenEye,\"A spy, again.\"\nUnheard of,Nothing.\n";
        let files =
            Files::new(&[("ratings", ratings), ("items", movies), ("summaries", summaries.as_bytes())]);
        let arguments = format!("{MOVIELENS} --summaries summaries! --same-time item");
        let (data, statistics) = files.imported(&arguments, Split::Times);
        assert_eq!(items(&data, 7, false), [1, 2]);
        assert_eq!(items(&data, 7, true), [1, 2, 5]);
        assert_eq!(items(&data, 3, false), [0_u64; 0], "one item is not a history with a target");
        assert_eq!(items(&data, 3, true), [1, 5]);
        assert_eq!(data.catalogue.get(ItemId(1)).unwrap().title, "Misérables, Les (1995)");
        assert_eq!(data.catalogue.get(ItemId(2)).unwrap().caption.as_deref(), Some("A spy, again."));
        assert_eq!(statistics["users"], 2);
        assert_eq!(statistics["interactions"], 5);
        assert_eq!(statistics["captions_missing"], 2);
        assert_eq!(statistics["same_time"], 1);
        assert_eq!(statistics["user_lengths"]["most"], 3);
        assert_eq!(statistics["split"]["train_users"], 1);
    }
}

#[test]
fn low_ratings_and_rare_users_and_items_can_be_excluded() {
    let more = [RATINGS, b"4\t1\t5\t1\n4\t5\t5\t2\n4\t1\t5\t3\n"].concat();
    let files = Files::new(&[("ratings", &more), ("items", MOVIES)]);
    let (data, statistics) =
        files.imported(&format!("{MOVIELENS} --min-rating 3 --min-item-interactions 2"), Split::Times);
    // The rating of 1 is excluded, then item 2 with one interaction, then user 7 with one.
    assert_eq!(data.catalogue.items().iter().map(|item| item.id.0).collect::<Vec<_>>(), [1, 5]);
    assert_eq!(data.test.iter().map(|user| user.id.0).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(
        statistics["left_out"],
        json!({"interactions_rated_too_low": 1, "users_too_short": 1, "items_too_rare": 1})
    );
}

#[test]
fn summaries_are_joined_to_one_line() {
    let summaries = "title,summary\n\"GoldenEye\",\"A spy,\n  again.\"\n\" Third \",\"\n\"\n";
    let files = Files::new(&[("ratings", RATINGS), ("items", MOVIES), ("summaries", summaries.as_bytes())]);
    let (data, statistics) =
        files.imported(&format!("{MOVIELENS} --summaries summaries! --skip-bad-rows"), Split::Times);
    assert_eq!(data.catalogue.get(ItemId(2)).unwrap().caption.as_deref(), Some("A spy, again."));
    assert_eq!(statistics["skipped"]["summaries: no_field"]["count"], 1);
}

#[test]
fn a_minimum_rating_of_nan_is_rejected() {
    let files = Files::new(&[("ratings", RATINGS), ("items", MOVIES)]);
    for rating in ["nan", "inf", "-inf"] {
        let output = files.import(&format!("{MOVIELENS} --min-rating={rating}"));
        assert_eq!(output.status.code(), Some(2), "{rating}");
        assert!(!files.path("out").exists(), "{rating}");
    }
}

/// Ratings of 40 users: user `n` rates items 1, 2, 5 in turn, `2 + n % 3` of them, at times 1, 2, 3, ….
fn forty_users() -> Files {
    let mut ratings = String::new();
    for user in 1..=40 {
        for (item, time) in [1, 2, 5, 1].into_iter().zip(1..).take(2 + user % 3) {
            writeln!(ratings, "{user}\t{item}\t5\t{time}").unwrap();
        }
    }
    Files::new(&[("ratings", ratings.as_bytes()), ("items", MOVIES)])
}

#[test]
fn leave_one_out_writes_three_parts_and_counts_short_users() {
    let files = forty_users();
    let (data, statistics) = files.imported_in_three_parts(MOVIELENS, Split::Times);
    assert_eq!(names(&files.path("out")).len(), 5, "with validation.tsv");
    // Users have two, three or four interactions.
    assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (13, 27, 40));
    let split = &statistics["split"];
    assert_eq!([&split["train_users"], &split["validation_users"], &split["test_users"]], [13, 27, 40]);
    assert_eq!(
        (&split["users_without_training"], &split["users_without_validation"]),
        (&json!(27), &json!(13))
    );
    let row = |users: &[User]| users.iter().find(|user| user.id.0 == 2).unwrap().items.clone();
    assert_eq!(
        [row(&data.train), row(&data.validation)],
        [[1, 2].map(ItemId).to_vec(), [1, 2, 5].map(ItemId).into()]
    );
    assert_eq!(row(&data.test), [1, 2, 5, 1].map(ItemId));
}

#[test]
fn a_split_by_time_has_a_validation_period() {
    let arguments = format!("{MOVIELENS} --split time --split-time 4 --validation-time 3");
    let (data, statistics) = forty_users().imported_in_three_parts(&arguments, Split::Times);
    assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (40, 27, 13));
    let split = &statistics["split"];
    assert_eq!(
        [&split["train_ends"], &split["validation_targets_begin"], &split["targets_begin"]],
        [2, 3, 4]
    );
    for (arguments, message) in [
        (
            "--split time --split-time 3 --validation-time 3",
            "expected a --validation-time before --split-time",
        ),
        (
            "--split time --split-time 4 --validation-time soon",
            "--validation-time \"soon\": expected a whole number",
        ),
        ("--split users --test-share 0.5 --validation-share 0.5", "expected a sum below 1"),
    ] {
        let files = forty_users();
        let output = files.import_to(&files.path("out"), &format!("{MOVIELENS} {arguments}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains(message), "{arguments}: {stderr}");
        assert!(!files.path("out").exists(), "{arguments}");
    }
    // Users with two interactions only leave nothing to validate with.
    let files = Files::new(&[("ratings", b"7\t1\t5\t1\n7\t2\t5\t2\n"), ("items", MOVIES)]);
    let output = files.import_to(&files.path("out"), MOVIELENS);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("the split leaves no training user"),
        "{output:?}"
    );
}

#[test]
fn held_out_users_are_not_training_users() {
    let files = forty_users();
    let arguments = format!("{MOVIELENS} --split users --test-share 0.25 --validation-share 0.25");
    let (data, _) = files.imported_in_three_parts(&arguments, Split::Users);
    assert_eq!(data.train.len() + data.validation.len() + data.test.len(), 40);
    for part in [&data.validation, &data.test] {
        assert!((3..=17).contains(&part.len()), "{}", part.len());
    }
    // The test users are the same without a validation part.
    let files = forty_users();
    let (two, _) = files.imported(&format!("{MOVIELENS} --split users --test-share 0.25"), Split::Users);
    assert_eq!(two.test, data.test);
    assert_eq!(two.train.len(), data.train.len() + data.validation.len());
}

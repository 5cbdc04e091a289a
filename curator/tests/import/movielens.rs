//! MovieLens, the filters, and the split by users.

use std::fmt::Write as _;

use podium_recsys::ItemId;
use podium_recsys::dataset::Split;
use serde_json::json;

use crate::files::{Files, MOVIELENS, MOVIES, RATINGS, items};

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

#[test]
fn held_out_users_are_not_training_users() {
    let mut ratings = String::new();
    for user in 1..=40 {
        write!(ratings, "{user}\t1\t5\t1\n{user}\t2\t5\t2\n").unwrap();
    }
    let files = Files::new(&[("ratings", ratings.as_bytes()), ("items", MOVIES)]);
    let (data, _) = files.imported(&format!("{MOVIELENS} --split users --test-share 0.25"), Split::Users);
    assert_eq!(data.train.len() + data.test.len(), 40);
    assert!((3..=17).contains(&data.test.len()), "{}", data.test.len());
}

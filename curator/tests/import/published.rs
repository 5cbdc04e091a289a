//! Published data sets with layouts of their own: MIND, the Netflix Prize, RecBole's atomic files, MiniOneRec's splits.

use std::fs;

use podium_recsys::ItemId;
use podium_recsys::dataset::Split;
use serde_json::json;

use crate::files::{Files, items};

const NEWS: &[u8] = b"N55528\tlifestyle\tlifestyleroyals\tThe Brands Queen Elizabeth Swears By\tShop the notebooks.\thttps://x\t[{\"Label\": \"Prince Philip\"}]\t[]\r\nN19639\thealth\tweightloss\t50 Worst Habits\t\thttps://y\t[]\t[]\r\nN61837\tnews\tnewsworld\tThe \"Cost\" of Trump's Aid\tLt. Ivan\thttps://z\t[]\t[]\r\n";

#[test]
fn mind_has_clicks_before_the_first_impression_and_clicks_on_impressions() {
    let behaviors = b"1\tU13740\t11/11/2019 9:05:58 PM\tN55528 N404 N19639\tN61837-1 N55528-0\r\n\
                      2\tU13740\t11/11/2019 9:05:58 AM\tN55528 N404 N19639\tN55528-1 N19639-1\r\n\
                      3\tU1\t11/12/2019 6:11:30 PM\t\tN61837-0 N19639-1\r\n\
                      4\tU1\t11/12/2019 6:11:31 PM\t\tN61837-1 N405-1\r\n\
                      5\tU2\t11/12/2019 6:11:31 PM\tN61837\tN61837-0\r\n";
    let files = Files::new(&[("behaviors.tsv", behaviors), ("news.tsv", NEWS)]);
    let mind = "mind --behaviors behaviors.tsv! --news news.tsv! --abstracts --same-time item";
    let (data, statistics) = files.imported(mind, Split::Times);
    // Items are numbered in the order of the news.
    assert_eq!(items(&data, 1, true), [1, 2, 1, 2, 3]);
    assert_eq!(items(&data, 2, true), [2, 3]);
    assert!(items(&data, 3, true).is_empty(), "one click is not a history with a target");
    let item = |id| data.catalogue.get(ItemId(id)).unwrap();
    assert_eq!(item(3).title, "The \"Cost\" of Trump's Aid");
    assert_eq!((item(1).caption.as_deref(), item(2).caption.as_deref()), (Some("Shop the notebooks."), None));
    assert_eq!(statistics["same_time"], 1);
    assert_eq!(
        statistics["skipped"],
        json!({
            "behaviors.tsv: too_few_items": {"count": 1, "first": [{"line": 5}]},
            "behaviors.tsv: unknown_item": {"count": 2, "first": [{"line": 4}, {"line": 2}]}
        })
    );

    for (row, message) in [
        (
            "6\tU1\t11/12/2019 6:11:30 PM\t\tN61837 N19639\n",
            "line 6: impression \"N61837\", expected a news id",
        ),
        (
            "6\tU1\t2019-11-12\t\tN61837-1\n",
            "line 6: timestamp \"2019-11-12\", expected a date such as 11/15",
        ),
        ("6\tU1\t11/12/2019 6:11:30 PM\tN1\n", "line 6: found 4 columns, expected 5"),
    ] {
        let files =
            Files::new(&[("behaviors.tsv", &[behaviors, row.as_bytes()].concat()), ("news.tsv", NEWS)]);
        let stderr = files.refused("mind --behaviors behaviors.tsv! --news news.tsv!");
        assert!(stderr.contains(message), "{stderr}");
    }
}

#[test]
fn netflix_has_ratings_below_movies_and_titles_without_quotes() {
    let titles = b"1,2003,Dinosaur Planet\n2,NULL,Roti, Kapada Aur Makaan\n3,1997,Am\xE9lie\n";
    let ratings =
        b"1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n1488844,4,2005-09-05\n822109,4,2005-10-19\n";
    let more = b"3:\r\n1488844,1,2005-10-01\r\n";
    let files = Files::new(&[("movie_titles.csv", titles)]);
    fs::create_dir(files.path("training_set")).unwrap();
    fs::write(files.path("training_set/mv_0000001.txt"), ratings).unwrap();
    fs::write(files.path("training_set/mv_0000003.txt"), more).unwrap();
    let netflix = "netflix --ratings training_set! --titles movie_titles.csv!";
    let (data, statistics) = files.imported(netflix, Split::Times);
    assert_eq!(items(&data, 1_488_844, true), [2, 1, 3]);
    assert_eq!(items(&data, 822_109, true), [1, 2]);
    let titles: Vec<&str> = data.catalogue.items().iter().map(|item| item.title.as_str()).collect();
    assert_eq!(titles, ["Dinosaur Planet", "Roti, Kapada Aur Makaan", "Amélie"]);
    assert_eq!(statistics["sources"][0]["encoding"], "latin-1");
    fs::remove_dir_all(files.path("out")).unwrap();

    // A movie does not reach into the next file.
    fs::write(files.path("training_set/mv_0000004.txt"), b"7,1,2005-10-01\n").unwrap();
    let stderr = files.refused(netflix);
    assert!(stderr.contains("mv_0000004.txt, line 1: a rating before the first movie"), "{stderr}");
    // Podium does not know what it does not find: unknown movies are refused.
    fs::write(files.path("training_set/mv_0000004.txt"), b"4:\n7,1,2005-10-01\n").unwrap();
    assert!(files.refused(netflix).contains("line 2: item \"4\" has no row in the item file"));
}

#[test]
fn recbole_has_typed_headers() {
    let inter = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\r\nu1\t1\t4\t8.81250949E8\r\nu1\t2\t3\t881250948.0\r\nu1\t3\t5\t881250950\r\nu1\t2\t3\t881250948\r\nu2\t1\t4\t1\r\nu2\t2\t4\t2\r\nu2\t1\t4\t3\r\n";
    let item = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n1\tToy Story\t1995\tAnimation Children's Comedy\n2\t\"Heroes\" live\t1995\t\n3\t\t1995\tDrama\n4\t\"Say \"\"hi\"\"\"\t1995\tx\n";
    let files = Files::new(&[("ml.inter", inter), ("ml.item", item.as_bytes())]);
    let recbole = "recbole --interactions ml.inter! --items ml.item!";
    let (data, statistics) = files.imported(&format!("{recbole} --caption-field class"), Split::Times);
    assert_eq!(items(&data, 1, true), [2, 1]);
    let item = |id| data.catalogue.get(ItemId(id)).unwrap();
    assert_eq!(item(1).caption.as_deref(), Some("Animation Children's Comedy"));
    assert_eq!((item(2).title.as_str(), item(4).title.as_str()), ("\"Heroes\" live", "Say \"hi\""));
    assert_eq!(
        statistics["skipped"],
        json!({
            "ml.inter: repeated_interaction": {"count": 1, "first": [{"line": 5}]},
            "ml.inter: unknown_item": {"count": 1, "first": [{"line": 4}]},
            "ml.item: empty_title": {"count": 1, "first": [{"line": 4}]}
        })
    );
    fs::remove_dir_all(files.path("out")).unwrap();

    for (arguments, message) in [
        (
            "--title-field name",
            "ml.item: there is no column \"name\"; it has item_id:token, movie_title:token_seq",
        ),
        ("--time-field time", "ml.inter: there is no column \"time\""),
        ("--min-rating 9", "no usable row"),
    ] {
        let stderr = files.refused(&format!("{recbole} {arguments}"));
        assert!(stderr.contains(message), "{stderr}");
    }
    for header in
        ["user_id\titem_id:token\ttimestamp:float\n", "user_id:token\titem_id:int\ttimestamp:float\n"]
    {
        let files = Files::new(&[
            ("ml.inter", header.as_bytes()),
            ("ml.item", b"item_id:token\ttitle:token_seq\n1\tA\n"),
        ]);
        let stderr = files.refused(recbole);
        assert!(
            stderr.contains("of the header, expected a name and a type, such as user_id:token"),
            "{stderr}"
        );
    }
}

const INFO: &[u8] = b"<a_1><b_2><c_3>\tPen, \"blue\"\t0\n<a_4><b_5><c_6>\tTape\t1\n<a_7><b_8><c_9>\tPaper &rdquo;\t2\n<a_1><b_1><c_1>\tGlue\t3\n<a_1><b_1><c_2>\tInk\t4\n";
const HEADER: &str =
    "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\n";

/// Returns a table with rows of user, history and item.
fn minionerec(rows: &[(&str, &str, u64)]) -> String {
    let row = |(user, history, item): &(&str, &str, u64)| {
        format!("{user},\"['Tape, \"\"2\"\"']\",Tape,\"{history}\",{item},['<a_1>'],<a_4><b_5><c_6>\n")
    };
    HEADER.to_owned() + &rows.iter().map(row).collect::<String>()
}

#[test]
fn minionerec_has_the_parts_of_its_files() {
    let train = minionerec(&[("A7", "[0]", 1), ("A9", "[3]", 0), ("A7", "[0, 1]", 2)]);
    let valid = minionerec(&[("A7", "[0, 1, 2]", 3), ("A7", "[1, 2, 3]", 0), ("A5", "[4]", 3)]);
    let test = minionerec(&[("A9", "[3, 0]", 4), ("A5", "[4, 3]", 3), ("A7", "[3, 0]", 4)]);
    let parts =
        [("train.csv", train.as_bytes()), ("valid.csv", valid.as_bytes()), ("test.csv", test.as_bytes())];
    let files = Files::new(&[&parts[..], &[("info.txt", INFO)]].concat());
    let arguments = "minionerec --train train.csv! --valid valid.csv! --test test.csv! --info info.txt!";
    let (data, statistics) = files.imported_in_three_parts(arguments, Split::Times);
    let rows = |users: &[podium_recsys::User]| -> Vec<(u64, Vec<u64>)> {
        users.iter().map(|user| (user.id.0, user.items.iter().map(|item| item.0).collect())).collect()
    };
    // The users A7, A9 and A5 have the numbers 1, 2 and 3.
    assert_eq!(rows(&data.train), [(1, vec![0, 1, 2]), (2, vec![3, 0])]);
    assert_eq!(rows(&data.validation), [(1, vec![0, 1, 2, 3, 0]), (3, vec![4, 3])]);
    assert_eq!(rows(&data.test), [(1, vec![0, 1, 2, 3, 0, 4]), (2, vec![3, 0, 4]), (3, vec![4, 3, 3])]);
    assert_eq!(data.catalogue.get(ItemId(0)).unwrap().title, "Pen, \"blue\"");
    assert_eq!((&statistics["split"]["kind"], &statistics["same_time"]), (&json!("released"), &json!(0)));
    fs::remove_dir_all(files.path("out")).unwrap();

    let (data, _) = files.imported(&format!("{arguments} --split leave-one-out"), Split::Times);
    assert_eq!(rows(&data.train)[0], (1, vec![0, 1, 2, 3, 0]));
    fs::remove_dir_all(files.path("out")).unwrap();
    assert!(files.refused(&format!("{arguments} --split time")).contains("no times"));

    for (rows, message) in [
        ([("A7", "[1, 0]", 4)], "line 2: the history does not end the user's earlier rows"),
        ([("A7", "['0']", 4)], "line 2: history \"['0']\", expected a list of item ids"),
        ([("A7", "[3, 0]", 9)], "line 2: item \"9\" has no row in the item file"),
    ] {
        let test = minionerec(&rows);
        fs::write(files.path("test.csv"), test).unwrap();
        let stderr = files.refused(arguments);
        assert!(stderr.contains("test.csv, ") && stderr.contains(message), "{stderr}");
    }
}

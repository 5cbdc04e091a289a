//! Data sets with one object per line: Amazon, Goodreads, Steam and Yelp, with the gaps of the published files.

use podium_recsys::dataset::{Dataset, Split};
use podium_recsys::{ItemId, UserId};
use serde_json::{Value, json};

use crate::files::{Files, items};
use crate::stored::gzip;

fn titles(data: &Dataset) -> Vec<&str> {
    data.catalogue.items().iter().map(|item| item.title.as_str()).collect()
}

/// Returns the number of skipped rows by file and kind.
fn skipped(statistics: &Value) -> Vec<(String, u64)> {
    let rows = statistics["skipped"].as_object().unwrap();
    rows.iter().map(|(kind, rows)| (kind.clone(), rows["count"].as_u64().unwrap())).collect()
}

#[test]
fn amazon_2014_has_dictionaries_of_python_and_products_without_title() {
    let metadata = br#"{'asin': '0001048791', 'salesRank': {'Books': 6334800}, 'title': 'The Crucible: Performed by Stuart Pankin &amp; Cast'}
{'asin': '0000143561', 'categories': [['Movies & TV', 'Movies']], 'description': '3Pack DVD set', 'title': "Everyday Italian \xc3\xa0 la carte", 'price': 12.99}
{'asin': '0000037214', 'related': {'also_viewed': ['B00JO8II76', 'B00DGN4R1Q']}, 'imUrl': 'http://x/y.jpg'}
{'asin': '0000143561', 'title': 'Everyday Italian'}
{'asin': 'B01', 'title': 'Third'}
"#;
    let reviews = br#"{"reviewerID": "A1", "asin": "0001048791", "reviewerName": "J. \"Bud\"", "helpful": [2, 3], "reviewText": "Fine.\n", "overall": 5.0, "summary": "", "unixReviewTime": 1252800002, "reviewTime": "09 13, 2009"}
{"reviewerID": "A1", "asin": "0000143561", "overall": 4.0, "unixReviewTime": 1252800001}
{"reviewerID": "A1", "asin": "0000037214", "overall": 4.0, "unixReviewTime": 1252800003}
{"reviewerID": "A1", "asin": "0000143561", "overall": 4.0, "unixReviewTime": 1252800001}
{"reviewerID": "A1", "asin": "B01", "overall": 1.0, "unixReviewTime": 1252800009}
{"reviewerID": "A2", "asin": "B01", "overall": 1.0, "unixReviewTime": 1252800009}
"#;
    let files = Files::new(&[("reviews.json.gz", &gzip(reviews)), ("meta.json.gz", &gzip(metadata))]);
    let amazon = "amazon --reviews reviews.json.gz! --metadata meta.json.gz!";
    let (data, statistics) = files.imported(&format!("{amazon} --decode-entities"), Split::Times);
    assert_eq!(
        titles(&data),
        ["The Crucible: Performed by Stuart Pankin & Cast", "Everyday Italian à la carte", "Third"]
    );
    assert_eq!(items(&data, 1, true), [2, 1, 3]);
    assert_eq!(
        skipped(&statistics),
        [
            ("meta.json.gz: empty_title".to_owned(), 1),
            ("meta.json.gz: repeated_item".to_owned(), 1),
            ("reviews.json.gz: repeated_interaction".to_owned(), 1),
            ("reviews.json.gz: too_few_items".to_owned(), 1),
            ("reviews.json.gz: unknown_item".to_owned(), 1),
        ]
    );
}

#[test]
fn amazon_2018_has_scripts_as_titles() {
    let metadata =
        br#"{"category": ["A"], "description": ["One."], "title": "Slime Time", "asin": "0764443682"}
{"title": "var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();", "asin": "1291691480"}
{"title": "Other", "asin": "1940280001"}
"#;
    let reviews = br#"{"overall": 5.0, "vote": "2", "verified": true, "reviewTime": "06 3, 2015", "reviewerID": "A2", "asin": "0764443682", "style": {"Size:": " S"}, "unixReviewTime": 1433289600}
{"overall": 4.0, "reviewerID": "A2", "asin": "1940280001", "unixReviewTime": 1433289500}
{"overall": 3.0, "reviewerID": "A2", "asin": "1291691480", "unixReviewTime": 1433289501}
{"overall": 3.0, "reviewerID": "A3", "asin": "0764443682", "unixReviewTime": 1433289501}
{"overall": 3.0, "reviewerID": "A3", "asin": "1940280001", "unixReviewTime": 1433289502}
{"overall": 3.0, "reviewerID": "A3", "asin": "0764443682", "unixReviewTime": 1433289503}
"#;
    let files = Files::new(&[("reviews", reviews), ("meta", metadata)]);
    let (data, statistics) = files.imported("amazon --reviews reviews! --metadata meta!", Split::Times);
    assert_eq!(items(&data, 1, true), [2, 1]);
    assert_eq!(
        skipped(&statistics),
        [("meta: script_title".to_owned(), 1), ("reviews: unknown_item".to_owned(), 1)]
    );
}

#[test]
fn amazon_2023_has_parents_milliseconds_and_tables_of_ratings() {
    let metadata = br#"{"main_category": "All Beauty", "title": "Howard LC0008", "features": [], "images": [{"thumb": "x"}], "parent_asin": "B01CUPMQZE"}
{"main_category": null, "title": null, "parent_asin": "B00X"}
{"title": "Yes To", "parent_asin": "B076WQZGPM", "description": ["Soft.", "Red."]}
"#;
    let reviews = br#"{"rating": 5.0, "title": "Such", "text": "This", "images": [], "asin": "B00YQ6X8EO", "parent_asin": "B01CUPMQZE", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": true}
{"rating": 4.0, "asin": "B07", "parent_asin": "B076WQZGPM", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588615855070}
{"rating": 4.0, "asin": "B07", "parent_asin": "B076WQZGPM", "user_id": "A3", "timestamp": 1588615855070}
{"rating": 4.0, "asin": "B07", "parent_asin": "B01CUPMQZE", "user_id": "A3", "timestamp": 1588615855071}
{"rating": 4.0, "asin": "B07", "parent_asin": "B076WQZGPM", "user_id": "A3", "timestamp": 1588615855072}
"#;
    let table = b"user_id,parent_asin,rating,timestamp\r\nAGKHLEW2SOWHNMFQIJGBECAF7INQ,B01CUPMQZE,5.0,1588687728923\r\nAGKHLEW2SOWHNMFQIJGBECAF7INQ,B076WQZGPM,4.0,1588615855070\r\nA3,B076WQZGPM,4.0,1588615855070\r\nA3,B01CUPMQZE,4.0,1588615855071\r\nA3,B076WQZGPM,4.0,1588615855072\r\n";
    for (name, content) in [("All.jsonl.gz", &reviews[..]), ("All.csv.gz", &table[..])] {
        let files = Files::new(&[(name, &gzip(content)), ("meta.jsonl", metadata)]);
        let amazon = format!("amazon --reviews {name}! --metadata meta.jsonl! --caption-field description");
        let (data, statistics) = files.imported(&amazon, Split::Times);
        assert_eq!(items(&data, 1, true), [2, 1], "{name}");
        assert_eq!(data.catalogue.get(ItemId(2)).unwrap().caption.as_deref(), Some("Soft. Red."));
        assert_eq!(skipped(&statistics), [("meta.jsonl: empty_title".to_owned(), 1)]);
    }
    // The columns of older tables of ratings have no names.
    let files = Files::new(&[("ratings.csv", b"A1,B01CUPMQZE,5.0,1588687728\n"), ("meta.jsonl", metadata)]);
    let stderr = files.refused("amazon --reviews ratings.csv! --metadata meta.jsonl!");
    assert!(
        stderr.contains("ratings.csv, line 1: neither a JSON object nor a Python dictionary"),
        "{stderr}"
    );
}

#[test]
fn steam_has_dictionaries_of_python_2_and_games_without_id() {
    let games = br#"{u'publisher': u'Kotoshiro', u'genres': [u'Action', u'Indie'], u'app_name': u'Lost Summoner Kitty', u'title': u'Lost Summoner Kitty', u'release_date': u'2018-01-04', u'tags': [u'Strategy', u'Indie'], u'discount_price': 4.49, u'price': 4.99, u'early_access': False, u'id': u'761140'}
{u'app_name': u'\u6620\u753b \xe9t\xe9', u'price': u'Free to Play', u'early_access': False, u'id': u'643980'}
{u'title': u'No id', u'early_access': False}
{u'early_access': False, u'id': u'1', u'title': u"Sid Meier's"}
{u'early_access': False, u'id': u'2'}
"#;
    let reviews = br#"{u'username': u'Chaos Syren', u'hours': u'0.1', u'products': u'41', u'product_id': u'761140', u'page_order': 0, u'date': u'2017-12-17', u'text': u'This would not be acceptable as an "entertainment".\n\ud83d\ude00', u'early_access': False, u'page': 1}
{u'username': u"\xa5 Ariman", u'product_id': u'1', u'date': u'2017-12-16', u'text': u'', u'early_access': False, u'compensation': u'Product received for free'}
{u'username': u'Chaos Syren', u'product_id': u'1', u'date': u'2017-12-16', u'text': u'x', u'user_id': u'765611'}
{u'username': u'Chaos Syren', u'product_id': u'9', u'date': u'2017-12-16'}
{u'username': u'Chaos Syren', u'product_id': u'1', u'date': u'2017-12-16'}
{u'username': u"\xa5 Ariman", u'product_id': u'643980', u'date': u'2017-12-16'}
{u'username': u'c', u'product_id': u'1', u'date': u'2017-12-16'}
{u'username': u'c', u'product_id': u'643980', u'date': u'2017-12-17'}
{u'username': u'c', u'product_id': u'1', u'date': u'2017-12-18'}
"#;
    let files =
        Files::new(&[("steam_reviews.json.gz", &gzip(reviews)), ("steam_games.json.gz", &gzip(games))]);
    let steam = "steam --reviews steam_reviews.json.gz! --items steam_games.json.gz! --caption-field tags";
    let (data, statistics) = files.imported(&format!("{steam} --same-time file"), Split::Times);
    assert_eq!(titles(&data), ["Sid Meier's", "映画 été", "Lost Summoner Kitty"]);
    assert_eq!(data.catalogue.items()[2].caption.as_deref(), Some("Strategy Indie"));
    assert_eq!(items(&data, 1, true), [1, 761_140]);
    assert_eq!(items(&data, 2, true), [1, 643_980]);
    assert_eq!(
        skipped(&statistics),
        [
            ("steam_games.json.gz: empty_title".to_owned(), 1),
            ("steam_games.json.gz: no_field".to_owned(), 1),
            ("steam_reviews.json.gz: repeated_interaction".to_owned(), 1),
            ("steam_reviews.json.gz: unknown_item".to_owned(), 1),
        ]
    );
    assert_eq!(statistics["same_time"], 1);

    // What Python would evaluate and is no value is refused with file, line and position.
    let evil = b"{u'username': u'a', u'product_id': u'1', u'date': __import__('os').getcwd()}\n";
    let files = Files::new(&[("reviews", &[reviews, evil.as_slice()].concat()), ("games", games)]);
    let stderr = files.refused("steam --reviews reviews! --items games!");
    assert!(stderr.contains("reviews, line 10: not a Python dictionary: a text, a number"), "{stderr}");
    assert!(stderr.contains("expected at character 51"), "{stderr}");
}

#[test]
fn yelp_has_businesses_and_dates_of_two_releases() {
    let business = br#"{"business_id":"Pns2l4eNsfO8kk83dixA6A","name":"Abby Rappoport, LAC, CMQ","city":"Santa Barbara","stars":5.0,"review_count":7,"is_open":0,"attributes":{"ByAppointmentOnly":"True"},"categories":"Doctors, Traditional Chinese Medicine","hours":null}
{"business_id":"mpf3x-BjTdTEA3yCZrAYPw","name":"The UPS Store","categories":null}
"#;
    let reviews = br#"{"review_id":"KU_O5udG6zpxOg-VcAEodg","user_id":"mh_-eMZ6K5RLWhZyISBhwA","business_id":"mpf3x-BjTdTEA3yCZrAYPw","stars":3.0,"useful":0,"funny":0,"cool":0,"text":"If you\ndecide","date":"2018-07-07 22:09:11"}
{"review_id":"x","user_id":"mh_-eMZ6K5RLWhZyISBhwA","business_id":"Pns2l4eNsfO8kk83dixA6A","stars":5,"text":"","date":"2012-01-03"}
{"review_id":"z","user_id":"c","business_id":"Pns2l4eNsfO8kk83dixA6A","stars":1,"text":"","date":"2012-01-03"}
{"review_id":"z","user_id":"c","business_id":"mpf3x-BjTdTEA3yCZrAYPw","stars":1,"text":"","date":"2012-01-04"}
{"review_id":"z","user_id":"c","business_id":"Pns2l4eNsfO8kk83dixA6A","stars":1,"text":"","date":"2012-01-05"}
{"review_id":"y","user_id":"mh_-eMZ6K5RLWhZyISBhwA","business_id":"closed","stars":5,"text":"","date":"2012-01-03"}
"#;
    let files = Files::new(&[("review.json", reviews), ("business.json", business)]);
    let yelp = "yelp --reviews review.json! --items business.json! --caption-field categories";
    let (data, statistics) = files.imported(yelp, Split::Times);
    assert_eq!(items(&data, 1, true), [1, 2]);
    assert_eq!(titles(&data), ["Abby Rappoport, LAC, CMQ", "The UPS Store"]);
    assert_eq!(statistics["captions_missing"], 1);
    assert_eq!(skipped(&statistics), [("review.json: unknown_item".to_owned(), 1)]);
    std::fs::remove_dir_all(files.path("out")).unwrap();
    let stderr = files.refused(&format!("{yelp} --min-rating 5"));
    assert!(stderr.contains("no user remains"), "{stderr}");
}

#[test]
fn goodreads_has_its_own_dates_and_unrated_books() {
    let books = br#"{"isbn": "", "series": [], "popular_shelves": [{"count": "1", "name": "to-read"}], "description": "Poems.", "book_id": "402128", "title": "Old Possum's Book", "title_without_series": "Old Possum's Book"}
{"book_id": "7", "title": "Seven"}
{"book_id": "8", "title": ""}
"#;
    let interactions = br#"{"user_id": "80d5", "book_id": "402128", "review_id": "fb", "is_read": true, "rating": 4, "review_text_incomplete": "", "date_added": "Fri Apr 19 08:15:15 -0700 2013", "date_updated": "Fri Apr 19 08:15:15 -0700 2013", "read_at": "", "started_at": ""}
{"user_id": "80d5", "book_id": "7", "is_read": false, "rating": 0, "date_added": "Fri Apr 19 08:15:15 -0600 2013"}
{"user_id": "3ca7", "book_id": "7", "is_read": true, "rating": 5, "date_added": "Tue Jun 12 08:59:04 -0700 2012"}
{"user_id": "3ca7", "book_id": "8", "is_read": true, "rating": 5, "date_added": "Tue Jun 12 08:59:05 -0700 2012"}
{"user_id": "3ca7", "book_id": "402128", "is_read": true, "rating": 5, "date_added": "Tue Jun 12 08:59:06 -0700 2012"}
{"user_id": "c", "book_id": "7", "is_read": true, "rating": 5, "date_added": "Tue Jun 12 08:59:04 -0700 2012"}
{"user_id": "c", "book_id": "402128", "is_read": true, "rating": 5, "date_added": "Tue Jun 12 08:59:05 -0700 2012"}
{"user_id": "c", "book_id": "7", "is_read": true, "rating": 5, "date_added": "Tue Jun 12 08:59:06 -0700 2012"}
"#;
    let files = Files::new(&[("interactions.json.gz", &gzip(interactions)), ("books.json.gz", &gzip(books))]);
    let goodreads = "goodreads --interactions interactions.json.gz! --items books.json.gz!";
    let (data, statistics) = files.imported(goodreads, Split::Times);
    // An hour to the east is an hour earlier.
    assert_eq!(items(&data, 1, true), [7, 402_128]);
    assert_eq!(items(&data, 2, true), [7, 402_128]);
    assert_eq!(data.test[0].id, UserId(1));
    assert_eq!(
        skipped(&statistics),
        [("books.json.gz: empty_title".to_owned(), 1), ("interactions.json.gz: unknown_item".to_owned(), 1)]
    );
    assert_eq!(statistics["made_up_ids"], json!({"users": true, "items": false}));
    std::fs::remove_dir_all(files.path("out")).unwrap();
    let (data, statistics) = files.imported(&format!("{goodreads} --min-rating 1"), Split::Times);
    assert_eq!((data.test.len(), &statistics["left_out"]["interactions_rated_too_low"]), (2, &json!(1)));

    let wrong = br#"{"user_id": "80d5", "book_id": "7", "rating": 0, "date_added": "2013-04-19"}"#;
    let files = Files::new(&[("interactions", wrong), ("books", books)]);
    let stderr = files.refused("goodreads --reviews interactions! --items books!");
    assert!(
        stderr.contains(
            "line 1: timestamp \"2013-04-19\", expected a date such as Fri Apr 19 08:15:15 -0700 2013"
        ),
        "{stderr}"
    );
}

//! The order of interactions of one user at the same time.

use std::fmt::Write as _;

use podium_recsys::dataset::{Dataset, Split};

use crate::files::{Files, items};

const TABLE: &str = "table --interactions log.csv! --items items.csv!";

/// Files with six users and eight items at two times, in the order of `rows`; `name` formats an item's id.
fn files(rows: impl IntoIterator<Item = u64>, name: impl Fn(u64) -> String) -> Files {
    let mut log = "user,item,timestamp\n".to_owned();
    for row in rows {
        let (user, item) = (row / 8 + 1, row % 8 + 1);
        writeln!(log, "{user},{},{}", name(item), if item == 1 { 1 } else { 2 }).unwrap();
    }
    Files::new(&[("log.csv", log.as_bytes()), ("items.csv", table(1..=8, name).as_bytes())])
}

/// A table of items with ids formatted by `name`.
fn table(items: impl IntoIterator<Item = u64>, name: impl Fn(u64) -> String) -> String {
    let mut table = "item,title\n".to_owned();
    for item in items {
        writeln!(table, "{},Title {item}", name(item)).unwrap();
    }
    table
}

fn histories(data: &Dataset) -> Vec<Vec<u64>> {
    (1..=6).map(|user| items(data, user, true)).collect()
}

#[test]
fn the_default_order_is_random_and_independent_of_the_rows() {
    let number = |item: u64| item.to_string();
    let (data, statistics) = files(0..48, number).imported(TABLE, Split::Times);
    let order = histories(&data);
    assert_eq!(statistics["same_time"], 6 * 6);
    assert_eq!(statistics["targets_at_same_time"], 6);
    assert_eq!(statistics["same_time_order"], "random");
    assert_eq!(statistics["seed"], 0);
    assert!(order.iter().all(|items| items[0] == 1), "times still come first: {order:?}");
    assert!(order.iter().any(|items| items.last() != Some(&8)), "{order:?}");
    assert!(order.iter().any(|items| *items != order[0]), "{order:?}");

    let (reversed, _) = files((0..48).rev(), number).imported(TABLE, Split::Times);
    assert_eq!(histories(&reversed), order);
    let (seeded, statistics) = files(0..48, number).imported(&format!("{TABLE} --seed 5"), Split::Times);
    assert_ne!(histories(&seeded), order);
    assert_eq!(statistics["seed"], 5);
}

#[test]
fn the_order_depends_on_names_not_on_assigned_numbers() {
    let name = |item: u64| format!("B{item:03}");
    let (data, _) = files(0..48, name).imported(TABLE, Split::Times);
    // The same items with other numbers: the table lists them in another order.
    let log = std::fs::read(files(0..48, name).path("log.csv")).unwrap();
    let other = Files::new(&[("log.csv", &log), ("items.csv", table((1..=8).rev(), name).as_bytes())]);
    let (other, _) = other.imported(TABLE, Split::Times);
    let titles = |data: &Dataset| -> Vec<Vec<String>> {
        let title = |item: &podium_recsys::ItemId| data.catalogue.get(*item).unwrap().title.clone();
        data.test.iter().map(|user| user.items.iter().map(title).collect()).collect()
    };
    assert_eq!(titles(&data), titles(&other));
}

#[test]
fn other_orders_are_available_and_the_item_order_warns() {
    let number = |item: u64| item.to_string();
    let files = files((0..48).rev(), number);
    let output = files.import(&format!("{TABLE} --same-time item"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("6 of 6 targets have the same time as the item before"), "{stderr}");
    std::fs::remove_dir_all(files.path("out")).unwrap();
    for (order, expected) in [("item", [1, 2, 3, 4, 5, 6, 7, 8]), ("file", [1, 8, 7, 6, 5, 4, 3, 2])] {
        let (data, statistics) = files.imported(&format!("{TABLE} --same-time {order}"), Split::Times);
        assert!(histories(&data).iter().all(|items| items == &expected), "{order}");
        assert_eq!(statistics["same_time_order"], order);
        std::fs::remove_dir_all(files.path("out")).unwrap();
    }
    let stderr = files.refused(&format!("{TABLE} --same-time bad"));
    assert!(stderr.contains("their order is unknown"), "{stderr}");
}

#[test]
fn a_split_by_time_keeps_equal_times_on_one_side() {
    for order in ["random", "item", "file"] {
        let arguments = format!("{TABLE} --split time --split-time 2 --same-time {order}");
        let log = "user,item,timestamp\n1,1,1\n1,2,1\n1,3,2\n1,4,2\n2,5,1\n2,6,1\n2,7,2\n";
        let items_table = table(1..=8, |item| item.to_string());
        let files = Files::new(&[("log.csv", log.as_bytes()), ("items.csv", items_table.as_bytes())]);
        let (data, statistics) = files.imported(&arguments, Split::Times);
        let mut trained = items(&data, 1, false);
        trained.sort_unstable();
        assert_eq!(trained, [1, 2], "{order}");
        assert_eq!(statistics["split"]["train_ends"], 1);
        assert_eq!(statistics["split"]["targets_begin"], 2);
    }
}

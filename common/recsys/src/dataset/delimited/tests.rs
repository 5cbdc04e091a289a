use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// Lines of a text; lines with `!` are unusable.
struct Text<'a>(std::iter::Zip<std::ops::RangeFrom<u64>, std::str::Lines<'a>>);

impl Lines for Text<'_> {
    type Problem = char;
    type Error = Infallible;

    fn read(&mut self, line: &mut Line<char>) -> Result<bool, Infallible> {
        let Some((number, text)) = self.0.next() else { return Ok(false) };
        *line = Line { number, text: text.to_owned(), problem: text.contains('!').then_some('!') };
        Ok(true)
    }
}

/// The line of a record and its fields, or the reason why it is unusable.
type Read = (u64, Result<Vec<String>, Bad<char>>);

fn records(text: &str, delimiter: u8) -> Vec<Read> {
    let mut records = Records::new(Text((1..).zip(text.lines())), delimiter);
    let mut all = Vec::new();
    let like = |known: Fields<'_>, other: Fields<'_>| {
        known.len().min(2) == other.len() && alike(known.get(0), other.get(0))
    };
    while let Some(record) = records.next(like).unwrap() {
        all.push((record.line, record.fields.map(|fields| fields.iter().map(str::to_owned).collect())));
    }
    all
}

fn row(line: u64, fields: &[&str]) -> Read {
    (line, Ok(fields.iter().map(|field| (*field).to_owned()).collect()))
}

#[test]
fn records_are_cut_at_delimiters_outside_quotes() {
    for (text, expected) in [
        ("1, 2,", vec!["1", "2", ""]),
        ("1,\"a, \"\"b\"\" #é\",2", vec!["1", "a, \"b\" #é", "2"]),
        ("1,say \"hi\",2", vec!["1", "say \"hi\"", "2"]),
        ("1,\"Heroes\" by Bowie,2", vec!["1", "\"Heroes\" by Bowie", "2"]),
        ("1,\"\",2", vec!["1", "", "2"]),
        ("1,\"\"\"\",2", vec!["1", "\"", "2"]),
        ("\"1\",\"2\"", vec!["1", "2"]),
        (",", vec!["", ""]),
    ] {
        assert_eq!(records(text, b','), [row(1, &expected)], "{text:?}");
    }
}

#[test]
fn quoted_fields_may_contain_line_ends_and_line_numbers_include_them() {
    let text = "\n1,\"a\n\nb, c\"\n\n2,d\n3,\"e\nf\",\"g\nh\"\n4,i";
    let expected = [
        row(2, &["1", "a\n\nb, c"]),
        row(6, &["2", "d"]),
        row(7, &["3", "e\nf", "g\nh"]),
        row(10, &["4", "i"]),
    ];
    assert_eq!(records(text, b','), expected);
    assert_eq!(records(&text.replace(',', "\t"), b'\t').len(), 4);
}

#[test]
fn an_unclosed_quote_loses_no_record() {
    // Without a quote below; with a quoted field below, whose opening quote closes nothing.
    for below in ["2,b\n3,c", "2,\"b\"\n3,c", "2,b \"x\" y\n3,c"] {
        let read = records(&format!("1,\"a\n{below}"), b',');
        assert_eq!(read[0], (1, Err(Bad::OpenQuote)), "{below}");
        assert_eq!(read.len(), 3, "{below}");
        let read = records(&format!("1,\"a\n{below}").replace(',', "\t"), b'\t');
        assert_eq!(read[0], row(1, &["1", "\"a"]), "{below}");
        assert_eq!(read.len(), 3, "{below}");
    }
    let long = format!("1,\"a\n{}3,c\"", "x\n".repeat(LONGEST_FIELD_BYTES));
    assert_eq!(records(&long, b',')[0], (1, Err(Bad::OpenQuote)));
}

#[test]
fn a_quoted_field_with_whole_records_is_ambiguous() {
    let text = "1,\"a\n2,b\n3,c\"\n4,d";
    assert_eq!(records(text, b',')[0], (1, Err(Bad::Ambiguous(3))));
    let tabs = records(&text.replace(',', "\t"), b'\t');
    assert_eq!(tabs[..2], [row(1, &["1", "\"a"]), row(2, &["2", "b"])]);
    assert_eq!(tabs.len(), 4);
    // The line in between is not a record: its first field is not an id of the table.
    assert_eq!(records("1,\"a\nso, b\"\n4,d", b',').len(), 2);
}

#[test]
fn an_unusable_line_makes_its_record_unusable() {
    let read = records("1,\"a\nb!\nc\"\n2,d\n3,!", b',');
    assert_eq!(read, [(1, Err(Bad::Line(2, '!'))), row(4, &["2", "d"]), (5, Err(Bad::Line(5, '!')))]);
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "[\",\t\n!a1]*") {
        for delimiter in [b',', b'\t'] {
            let read = records(&text, delimiter);
            prop_assert!(read.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }

    #[test]
    fn output_of_a_csv_writer_round_trips(rows in prop::collection::vec(prop::collection::vec("[\",\n a-cé]*", 3), 1..5)) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for (number, row) in rows.iter().enumerate() {
            writer.write_field((number + 1).to_string()).unwrap();
            writer.write_record(row).unwrap();
        }
        let written = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let read: Vec<Vec<String>> = records(&written, b',').into_iter().map(|(_, fields)| fields.unwrap()).collect();
        let trimmed: Vec<Vec<String>> = (1..).zip(&rows)
            .map(|(number, row): (u64, _)| {
                std::iter::once(number.to_string()).chain(row.iter().map(|field| field.trim().to_owned())).collect()
            })
            .collect();
        prop_assert_eq!(read, trimmed);
    }
}

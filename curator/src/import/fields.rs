//! A line cut into fields.

use std::ops::Range;

/// What stands between two fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Separator {
    /// One character; fields may be quoted as in CSV.
    Quoted(u8),
    /// This text, and quotes mean nothing.
    Plain(&'static str),
}

/// Cuts lines into fields.
pub(crate) struct Splitter {
    separator: Separator,
    csv: csv_core::Reader,
    fields: Vec<Range<usize>>,
    unquoted: String,
}

/// The fields of a line.
pub(crate) struct Fields<'a> {
    text: &'a str,
    ranges: &'a [Range<usize>],
}

impl Fields<'_> {
    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The field in a column, without white space around it; nothing beyond the last column.
    pub(crate) fn get(&self, column: usize) -> &str {
        self.ranges.get(column).map_or("", |range| self.text[range.clone()].trim())
    }
}

impl Splitter {
    /// A splitter at `separator`.
    pub(crate) fn new(separator: Separator) -> Self {
        let delimiter = if let Separator::Quoted(delimiter) = separator { delimiter } else { b',' };
        let csv = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        Self { separator, csv, fields: Vec::new(), unquoted: String::new() }
    }

    /// The fields of `line`, which has no line end. A quoted field does not reach into the next line.
    pub(crate) fn split<'a>(&'a mut self, line: &'a str) -> Fields<'a> {
        self.fields.clear();
        let text = match self.separator {
            Separator::Quoted(_) if line.contains('"') => {
                self.unquote(line);
                &self.unquoted
            }
            Separator::Quoted(delimiter) => {
                cut(line, &mut self.fields, 1, |rest| rest.bytes().position(|byte| byte == delimiter));
                line
            }
            Separator::Plain(separator) => {
                cut(line, &mut self.fields, separator.len(), |rest| rest.find(separator));
                line
            }
        };
        Fields { text, ranges: &self.fields }
    }

    fn unquote(&mut self, line: &str) {
        // Fields never grow by losing their quotes, and there are no more of them than bytes, one to spare.
        let mut output = vec![0; line.len() + 1];
        let mut ends = vec![0; line.len() + 2];
        self.csv.reset();
        let (_, _, written, ended) = self.csv.read_record(line.as_bytes(), &mut output, &mut ends);
        // Nothing more comes: this ends the last field.
        let (_, _, rest, last) = self.csv.read_record(&[], &mut output[written..], &mut ends[ended..]);
        output.truncate(written + rest);
        ends.truncate(ended + last);
        let mut start = 0;
        for end in ends {
            self.fields.push(start..end);
            start = end;
        }
        // Cutting UTF-8 at ASCII characters leaves UTF-8.
        self.unquoted = String::from_utf8(output).unwrap_or_default();
    }
}

fn cut(line: &str, fields: &mut Vec<Range<usize>>, width: usize, find: impl Fn(&str) -> Option<usize>) {
    let mut start = 0;
    while let Some(length) = find(&line[start..]) {
        fields.push(start..start + length);
        start += length + width;
    }
    fields.push(start..line.len());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(separator: Separator, line: &str) -> Vec<String> {
        let mut splitter = Splitter::new(separator);
        // A line before must leave nothing behind.
        splitter.split("\"a\",\"b");
        let fields = splitter.split(line);
        (0..fields.len()).map(|column| fields.get(column).to_owned()).collect()
    }

    #[test]
    fn lines_are_cut_as_their_layout_says() {
        let comma = Separator::Quoted(b',');
        for (separator, line, expected) in [
            (Separator::Plain("\t"), "1\t2\t", vec!["1", "2", ""]),
            (Separator::Plain("::"), "1::Été: a::Drama|War", vec!["1", "Été: a", "Drama|War"]),
            (Separator::Plain("|"), "1|\"a", vec!["1", "\"a"]),
            (comma, "1, 2,", vec!["1", "2", ""]),
            (comma, "1,\"a, \"\"b\"\" #é\",2", vec!["1", "a, \"b\" #é", "2"]),
            (comma, "1,say \"hi\",2", vec!["1", "say \"hi\"", "2"]),
            (comma, "1,\"never closed,2", vec!["1", "never closed,2"]),
            (Separator::Quoted(b'\t'), "\"1\"\t2", vec!["1", "2"]),
            (comma, "", vec![""]),
        ] {
            assert_eq!(fields(separator, line), expected, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_cut_without_panic_and_what_csv_writes_is_read(
            line in "[^\r\n]*",
            row in prop::collection::vec("[^\r\n]*", 1..5),
        ) {
            for separator in [Separator::Quoted(b','), Separator::Plain("::")] {
                prop_assert!(!fields(separator, &line).is_empty());
            }
            // A byte order mark at the beginning is no part of the text.
            prop_assume!(!row[0].starts_with('\u{FEFF}'));
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(&row).unwrap();
            let written = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let trimmed: Vec<&str> = row.iter().map(|field| field.trim()).collect();
            prop_assert_eq!(fields(Separator::Quoted(b','), written.trim_end_matches('\n')), trimmed);
        }
    }
}

//! Spellings of dates in public data sets.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// A spelling of dates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spelling {
    /// A date in it, for messages.
    pub(crate) example: &'static str,
    /// Returns nanoseconds since 1970.
    pub(crate) read: fn(&str) -> Option<i64>,
}

/// The dates of MIND, which names no time zone.
pub(crate) const MIND: Spelling = Spelling {
    example: "11/15/2019 8:55:22 AM",
    read: |text| {
        let time = DateTime::strptime("%m/%d/%Y %I:%M:%S %p", text).ok()?;
        nanoseconds(Offset::UTC.to_timestamp(time).ok()?)
    },
};

/// The dates of Goodreads.
pub(crate) const GOODREADS: Spelling = Spelling {
    example: "Fri Apr 19 08:15:15 -0700 2013",
    read: |text| nanoseconds(Timestamp::strptime("%a %b %d %H:%M:%S %z %Y", text).ok()?),
};

/// Nanoseconds since 1970 fit for years from 1678 to 2261.
fn nanoseconds(time: Timestamp) -> Option<i64> {
    i64::try_from(time.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_the_spelling_of_the_data_set() {
        let seconds = |spelling: Spelling, text: &str| (spelling.read)(text).map(|time| time / 1_000_000_000);
        assert_eq!(seconds(MIND, MIND.example), Some(1_573_808_122));
        assert_eq!(seconds(MIND, "11/13/2019 12:00:00 AM"), Some(1_573_603_200));
        assert_eq!(seconds(MIND, "11/13/2019 12:00:00 PM"), Some(1_573_646_400));
        assert_eq!(seconds(GOODREADS, GOODREADS.example), Some(1_366_384_515));
        assert_eq!(seconds(GOODREADS, "Thu Jan 01 00:00:01 +0000 1970"), Some(1));
        for text in ["", "13/13/2019 8:55:22 AM", "11/15/2019 8:55:22", "11/15/2019 18:55:22 AM"] {
            assert_eq!(seconds(MIND, text), None, "{text}");
        }
        for text in ["", "Fri Apr 19 08:15:15 2013", "Fri Apr 31 08:15:15 -0700 2013", "2013-04-19"] {
            assert_eq!(seconds(GOODREADS, text), None, "{text}");
        }
    }
}

//! Timestamps of one import: whole numbers of one unit, or dates.

use jiff::civil::Date;
use jiff::tz::Offset;

use super::dates::Spelling;
use super::rows::{Problem, excerpt};
use super::unit::Unit;

/// Larger doubles do not represent a unique integer.
const EXACT_DOUBLE: f64 = 9_007_199_254_740_992.0;

/// Kind of a file's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whole numbers.
    Number,
    /// Dates, stored as nanoseconds since 1970.
    Date,
}

/// Reads the timestamps of one import, which are all of one kind and one unit.
#[derive(Debug, Default)]
pub(crate) struct Times {
    kind: Option<Kind>,
    unit: Option<Unit>,
}

impl Times {
    /// Parses the time `text`; earlier times have smaller numbers.
    pub(crate) fn read(&mut self, text: &str) -> Result<i64, Problem> {
        let (kind, time) = parse(text).ok_or_else(|| Problem::Time(excerpt(text)))?;
        self.accept(kind, time, || excerpt(text))
    }

    /// Parses the date `text` in a spelling.
    pub(crate) fn read_date(&mut self, text: &str, spelling: Spelling) -> Result<i64, Problem> {
        let example = spelling.example;
        let time = (spelling.read)(text).ok_or_else(|| Problem::Date { text: excerpt(text), example })?;
        self.accept(Kind::Date, time, || excerpt(text))
    }

    /// Accepts `time` if its kind and unit match the others; `shown` is its text in messages.
    pub(crate) fn accept(
        &mut self,
        kind: Kind,
        time: i64,
        shown: impl FnOnce() -> String,
    ) -> Result<i64, Problem> {
        if *self.kind.get_or_insert(kind) != kind {
            return Err(Problem::TimeKind(shown()));
        }
        if let Some(found) = Unit::of(time).filter(|_| kind == Kind::Number) {
            let expected = *self.unit.get_or_insert(found);
            if expected != found {
                return Err(Problem::TimeUnit { text: shown(), found, expected });
            }
        }
        Ok(time)
    }

    /// Returns the kind of the timestamps, after the first one.
    pub(crate) const fn kind(&self) -> Option<Kind> {
        self.kind
    }
}

/// Parses a whole number (also as `978300760.0` and `9.7830076e8`), or a date: `2024-05-31`, `2024-05-31
/// 18:00:00.25`, `2024-05-31T18:00:00Z`, `…+02:00`.
pub(crate) fn parse(text: &str) -> Option<(Kind, i64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.bytes().all(|digit| digit == b'0')
        && let Ok(number) = whole.parse()
    {
        return Some((Kind::Number, number));
    }
    if text.contains(['e', 'E']) {
        let number: f64 = text.parse().ok()?;
        let is_exact = number.fract() == 0.0 && number.abs() < EXACT_DOUBLE;
        return is_exact.then_some((Kind::Number, number as i64));
    }
    date(text).map(|time| (Kind::Date, time))
}

fn date(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) =
        (digits(&text[..4], 0, 9_999)?, digits(&text[5..7], 1, 12)?, digits(&text[8..10], 1, 31)?);
    let date = Date::new(year.try_into().ok()?, month.try_into().ok()?, day.try_into().ok()?).ok()?;
    let midnight = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
    // Nanoseconds since 1970 fit for years from 1678 to 2261.
    let midnight = i64::try_from(midnight.as_nanosecond()).ok()?;
    let Some(clock) = text[10..].strip_prefix(['T', ' ']) else {
        return text[10..].is_empty().then_some(midnight);
    };
    let (clock, offset) = match clock.find(['Z', '+', '-']) {
        Some(at) => (&clock[..at], zone(&clock[at..])?),
        None => (clock, 0),
    };
    midnight.checked_add(time_of_day(clock)? - offset)
}

/// Parses `hh:mm[:ss[.fraction]]` as nanoseconds since midnight.
fn time_of_day(clock: &str) -> Option<i64> {
    let mut parts = clock.splitn(3, ':');
    let hours = digits(parts.next()?, 0, 23)?;
    let minutes = digits(parts.next()?, 0, 59)?;
    let (seconds, fraction) = match parts.next() {
        Some(text) => text.split_once('.').unwrap_or((text, "0")),
        None => ("00", "0"),
    };
    // A leap second is second 60.
    let seconds = digits(seconds, 0, 60)?;
    if fraction.is_empty() || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}")[..9].parse().ok()?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000_000 + nanos)
}

/// Parses `Z`, `+02:00` or `-0530` as nanoseconds east of Greenwich.
fn zone(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = text.split_at(1);
    let rest = rest.replacen(':', "", 1);
    let (hours, minutes) = rest.split_at_checked(2)?;
    let seconds = (digits(hours, 0, 23)? * 60 + digits(minutes, 0, 59)?) * 60;
    Some(if sign == "-" { -seconds } else { seconds } * 1_000_000_000)
}

/// Parses plain digits within bounds.
fn digits(text: &str, least: i64, most: i64) -> Option<i64> {
    let plain = !text.is_empty() && text.len() <= 4 && text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|number| plain && (least..=most).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed_in_every_format() {
        for (text, expected) in [
            ("881250949", Some((Kind::Number, 881_250_949))),
            ("-5", Some((Kind::Number, -5))),
            ("978300760.0", Some((Kind::Number, 978_300_760))),
            ("978300760.5", None),
            ("8.81250949e8", Some((Kind::Number, 881_250_949))),
            ("8.8125094951e+08", None),
            ("1e300", None),
            ("1970-01-01", Some((Kind::Date, 0))),
            ("1970-01-02T00:00:01.5Z", Some((Kind::Date, 86_401_500_000_000))),
            ("2000-03-01 12:30", Some((Kind::Date, 951_913_800_000_000_000))),
            ("2024-02-29T01:00:00+02:00", Some((Kind::Date, 1_709_161_200_000_000_000))),
            ("1969-12-31T23:59:59.000001-0000", Some((Kind::Date, -999_999_000))),
            ("1970-01-01T00:00:00.1234567891", Some((Kind::Date, 123_456_789))),
            ("2000-02-29", Some((Kind::Date, 951_782_400_000_000_000))),
            ("1600-01-01", None),
            ("9999-12-31", None),
            ("2024-02-30", None),
            ("2023-02-29", None),
            ("1900-02-29", None),
            ("2024-04-31", None),
            ("2024-13-01", None),
            ("2024-01-01T", None),
            ("2024-01-01T10", None),
            ("2024-01-01T10:00:00.", None),
            ("2024-01-01x", None),
            ("２024-01-01", None),
            ("", None),
            (".", None),
            ("now", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_kind_of_times_must_not_change() {
        let mut times = Times::default();
        assert!(times.read("5").is_ok());
        assert!(matches!(times.read("2024-01-01"), Err(Problem::TimeKind(_))));
        assert!(matches!(times.read("soon"), Err(Problem::Time(_))));
        assert!(times.read("7").is_ok());
    }

    #[test]
    fn the_unit_of_times_must_not_change() {
        let units = [1_700_000_000, 1_700_000_000_000, 1_700_000_000_000_000, 1_700_000_000_000_000_000_i64];
        for (index, first) in units.into_iter().enumerate() {
            let mut times = Times::default();
            assert!(times.read(&first.to_string()).is_ok());
            for (other, time) in units.into_iter().enumerate() {
                assert_eq!(times.read(&time.to_string()).is_ok(), index == other, "{time} after {first}");
            }
            // The first number is too small for a unit; the second one is slightly later.
            assert!(times.read("0").is_ok() && times.read(&(first + 1).to_string()).is_ok());
        }
        let mut times = Times::default();
        times.read("978300760").unwrap();
        let error = times.read("978300760000").unwrap_err().to_string();
        assert!(error.starts_with("timestamp \"978300760000\" looks like milliseconds"), "{error}");
        assert!(error.ends_with("the rows before it look like seconds"), "{error}");
    }
}

//! Converts values of Parquet columns to ids, texts, times and ratings.

use parquet::data_type::Decimal;
use parquet::record::Field;

use super::super::collector::rating;
use super::super::rows::{Problem, excerpt};
use super::super::times::{Kind, Times};
use super::nanos::{Exact, Nanos, elements};

/// Returns the id of a user or an item.
pub(super) fn id(field: &Field, what: &'static str) -> Result<String, Problem> {
    text(field).or_else(|| whole(field).map(|number| number.to_string())).ok_or(Problem::NoField(what))
}

/// Returns a title or a caption; the texts of a list are joined. Other values, such as null, become an empty text: an
/// item without a title or caption.
pub(super) fn prose(field: &Field) -> String {
    let texts = elements(field).into_iter().filter_map(|field| {
        text(field).or_else(|| decimal(field)).or_else(|| whole(field).map(|number| number.to_string()))
    });
    texts.collect::<Vec<_>>().join(" ")
}

fn text(field: &Field) -> Option<String> {
    match field {
        Field::Str(text) => Some(text.trim().to_owned()),
        Field::Bytes(bytes) => bytes.as_utf8().ok().map(|text| text.trim().to_owned()),
        _ => None,
    }
}

/// Returns a time. `nanos` has the exact value if the field is rounded.
pub(super) fn time(field: &Field, nanos: &mut Nanos, times: &mut Times) -> Result<i64, Problem> {
    const NANOS_A_DAY: i64 = 86_400_000_000_000;
    let (kind, time) = match (nanos.next(field), field) {
        (Exact::Nanos(time), _) => (Kind::Date, Some(time)),
        (Exact::OutOfRange, _) => (Kind::Date, None),
        (_, Field::Str(text)) => return times.read(text.trim()),
        (_, Field::TimestampMillis(millis)) => (Kind::Date, millis.checked_mul(1_000_000)),
        (_, Field::TimestampMicros(micros)) => (Kind::Date, micros.checked_mul(1_000)),
        (_, Field::Date(days)) => (Kind::Date, i64::from(*days).checked_mul(NANOS_A_DAY)),
        (_, number) => (Kind::Number, whole(number).and_then(|time| i64::try_from(time).ok())),
    };
    times.accept(kind, time.ok_or_else(|| Problem::Time(shown(field)))?, || shown(field))
}

/// Formats a field for an error message. The reader's own formatting panics for distant dates.
fn shown(field: &Field) -> String {
    match field {
        Field::Date(days) => format!("{days} days since 1970"),
        Field::TimestampMillis(millis) => format!("{millis} ms since 1970"),
        Field::TimestampMicros(micros) => format!("{micros} µs since 1970"),
        field => excerpt(&field.to_string()),
    }
}

/// Returns a rating: 1 for true, 0 for false.
pub(super) fn number(field: &Field) -> Result<f64, Problem> {
    match field {
        Field::Bool(yes) => Ok(f64::from(u8::from(*yes))),
        Field::Double(number) => rating(&number.to_string()),
        Field::Float(number) => rating(&number.to_string()),
        Field::Float16(number) => rating(&number.to_f32().to_string()),
        Field::Str(text) => rating(text.trim()),
        Field::Decimal(_) => rating(&decimal(field).unwrap_or_default()),
        field => whole(field).map(|number| number as f64).ok_or_else(|| Problem::Rating(shown(field))),
    }
}

/// Returns a whole number, also if it is stored as a float.
fn whole(field: &Field) -> Option<i128> {
    // Larger floats do not represent a unique integer.
    const EXACT_DOUBLE: f64 = 9_007_199_254_740_992.0;
    const EXACT_FLOAT: f32 = 16_777_216.0;
    Some(match *field {
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) => number.into(),
        Field::Long(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        Field::Double(number) if number.fract() == 0.0 && number.abs() <= EXACT_DOUBLE => number as i128,
        Field::Float(number) if number.fract() == 0.0 && number.abs() <= EXACT_FLOAT => number as i128,
        Field::Decimal(_) => {
            let text = decimal(field)?;
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            return whole.parse().ok().filter(|_| fraction.bytes().all(|digit| digit == b'0'));
        }
        _ => return None,
    })
}

/// Returns the digits of a decimal number of up to 38 digits.
fn decimal(field: &Field) -> Option<String> {
    let Field::Decimal(decimal) = field else { return None };
    let unscaled = unscaled(decimal)?;
    let scale = usize::try_from(decimal.scale()).ok()?;
    let (sign, digits) = (if unscaled < 0 { "-" } else { "" }, unscaled.unsigned_abs().to_string());
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// Parses big-endian two's complement of up to 16 bytes.
fn unscaled(decimal: &Decimal) -> Option<i128> {
    let bytes = decimal.data();
    let sign = if bytes.first()? & 0x80 == 0 { 0 } else { 0xFF };
    let mut whole = [sign; 16];
    whole.get_mut(16_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(whole))
}

#[cfg(test)]
mod tests {
    use parquet::data_type::ByteArray;

    use super::*;

    #[test]
    fn decimals_preserve_all_digits() {
        let of = |decimal| Field::Decimal(decimal);
        let big = ByteArray::from((-12_345_678_901_234_567_890_123_i128).to_be_bytes()[3..].to_vec());
        for (field, text, number) in [
            (of(Decimal::from_i32(450, 5, 2)), "4.50", None),
            (of(Decimal::from_i32(-5, 5, 2)), "-0.05", None),
            (of(Decimal::from_i32(700, 5, 2)), "7.00", Some(7)),
            (of(Decimal::from_i64(42, 18, 0)), "42", Some(42)),
            (
                of(Decimal::from_bytes(big, 38, 0)),
                "-12345678901234567890123",
                Some(-12_345_678_901_234_567_890_123),
            ),
        ] {
            assert_eq!(decimal(&field).unwrap(), text);
            assert_eq!(whole(&field), number, "{text}");
        }
        assert_eq!(number(&of(Decimal::from_i32(450, 5, 2))).unwrap().to_bits(), 4.5_f64.to_bits());
    }

    #[test]
    fn numbers_of_all_types_are_ids_and_ratings() {
        for field in [Field::Float(7.0), Field::Double(7.0), Field::Int(7), Field::ULong(7)] {
            assert_eq!(id(&field, "id").unwrap(), "7");
            assert_eq!(number(&field).unwrap().to_bits(), 7.0_f64.to_bits());
        }
        assert!(id(&Field::Float(7.5), "id").is_err() && id(&Field::Float(3e7), "id").is_err());
        assert!(id(&Field::Bool(true), "id").is_err() && id(&Field::Null, "id").is_err());
        assert_eq!(number(&Field::Bool(true)).unwrap().to_bits(), 1.0_f64.to_bits());
        assert!(number(&Field::Null).is_err());
    }
}

//! Value parsers of flags shared by several commands.

/// Parses a number other than infinity and NaN.
pub(crate) fn finite(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "expected a finite number".to_owned())
}

/// Parses a number from 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_rejected() {
        for text in ["nan", "NaN", "-nan", "inf", "-inf", "infinity", "1e999", "", "one"] {
            assert!(finite(text).is_err(), "{text}");
            assert!(share(text).is_err(), "{text}");
        }
        assert_eq!(finite("-2.5"), Ok(-2.5));
        assert_eq!((share("0"), share("1")), (Ok(0.0), Ok(1.0)));
        assert!(share("1.01").is_err() && share("-0.1").is_err());
    }
}

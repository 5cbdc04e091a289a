//! Tests whether targets are uniformly distributed over the positions of the candidates: Pearson's chi-squared test.

/// The 99.9 % quantile of the normal distribution.
const ONE_IN_A_THOUSAND: f64 = 3.09;

/// Whether counts differ significantly from equal ones (p < 0.001). The chi-squared distribution is approximated by the
/// normal one after Wilson and Hilferty (1931).
pub(super) fn is_uneven(counts: &[u64]) -> bool {
    let total: u64 = counts.iter().sum();
    if counts.len() < 2 || total == 0 {
        return false;
    }
    let expected = total as f64 / counts.len() as f64;
    let chi_squared: f64 = counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
    let degrees = (counts.len() - 1) as f64;
    let spread = 2.0 / (9.0 * degrees);
    ((chi_squared / degrees).cbrt() - (1.0 - spread)) / spread.sqrt() > ONE_IN_A_THOUSAND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_matches_the_chi_squared_distribution() {
        // With 9 degrees of freedom the 99.9 % quantile is 27.88; these counts give 26.0 and 30.0.
        let counts = |extra: u64| -> Vec<u64> {
            (0..10).map(|position| if position % 2 == 0 { 1000 + extra } else { 1000 - extra }).collect()
        };
        assert!(!is_uneven(&counts(51)));
        assert!(is_uneven(&counts(55)));
        assert!(!is_uneven(&[]));
        assert!(!is_uneven(&[0, 0]));
        assert!(is_uneven(&[100, 0]));
    }
}

//! Least-squares lines and means with 99 % intervals.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::gain::Gain;

/// Minimum number of degrees of freedom for a result.
const LEAST_FREEDOM: usize = 3;

/// Returns the weight of each value in the rise of the least-squares line from the lowest to the highest `x`; `None` if
/// all `x` are equal.
pub(super) fn weights(x: &[f64]) -> Option<Vec<f64>> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let spread: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
    let length = x.iter().copied().reduce(f64::max)? - x.iter().copied().reduce(f64::min)?;
    (spread > 0.0).then(|| x.iter().map(|x| (x - mean) / spread * length).collect())
}

/// Returns the rise of the line through `points` over `length`, with the 99 % interval of its slope (standard error
/// from the residuals, with two degrees of freedom less than points); `None` with fewer than five points.
pub(super) fn rise(points: &[(f64, f64)], length: f64) -> Option<Gain> {
    let freedom = points.len().checked_sub(2).filter(|&freedom| freedom >= LEAST_FREEDOM)? as f64;
    let count = points.len() as f64;
    let (x, y) = (
        points.iter().map(|point| point.0).sum::<f64>() / count,
        points.iter().map(|point| point.1).sum::<f64>() / count,
    );
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if spread <= 0.0 {
        return None;
    }
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread;
    let residuals: f64 = points.iter().map(|point| (point.1 - y - slope * (point.0 - x)).powi(2)).sum();
    let margin = student(freedom) * (residuals / freedom / spread).sqrt() * length;
    let mean = slope * length;
    Some(Gain { mean, low: mean - margin, high: mean + margin })
}

/// Returns the mean of `values` with its 99 % interval; `None` with fewer than four values.
pub(super) fn mean(values: &[f64]) -> Option<Gain> {
    let freedom = values.len().checked_sub(1).filter(|&freedom| freedom >= LEAST_FREEDOM)? as f64;
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let margin = student(freedom) * (squares / freedom / count).sqrt();
    Some(Gain { mean, low: mean - margin, high: mean + margin })
}

/// Returns the 99.5 % quantile of Student's t, for at least [`LEAST_FREEDOM`] degrees of freedom.
fn student(freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).expect("degrees of freedom are positive").inverse_cdf(0.995)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact() {
        for (freedom, expected) in [
            (3.0, 5.840_909_309_7),
            (4.0, 4.604_094_871_4),
            (6.0, 3.707_428_021_3),
            (10.0, 3.169_272_672_6),
            (60.0, 2.660_283_028_9),
            (1000.0, 2.580_754_698_2),
            (1e6, 2.575_834_220_1),
        ] {
            let found = student(freedom);
            assert!((found - expected).abs() < 1e-8, "{freedom}: {found} instead of {expected}");
        }
    }

    #[test]
    fn a_line_has_its_standard_error() {
        let exact: Vec<(f64, f64)> = (0..5).map(|x| (f64::from(x), 1.0 + 0.5 * f64::from(x))).collect();
        let gain = rise(&exact, 5.0).unwrap();
        assert!((gain.mean - 2.5).abs() < 1e-12 && gain.high - gain.low < 1e-9);
        // y = 0, 1, 1, 2, 1: slope 0.3, residuals 1.1 in all, error √(1.1 / 3 / 10).
        let points = [(0.0, 0.0), (1.0, 1.0), (2.0, 1.0), (3.0, 2.0), (4.0, 1.0)];
        let gain = rise(&points, 2.0).unwrap();
        assert!((gain.mean - 0.6).abs() < 1e-12);
        assert!((gain.high - gain.mean - 2.0 * student(3.0) * (1.1_f64 / 30.0).sqrt()).abs() < 1e-12);
        assert!(rise(&points[..4], 1.0).is_none());
        assert!(rise(&[(1.0, 0.0); 5], 1.0).is_none());
    }

    #[test]
    fn a_mean_has_its_standard_error() {
        // 1, 2, 3, 6: mean 3, squares 14 in all, error √(14 / 3 / 4).
        let gain = mean(&[1.0, 2.0, 3.0, 6.0]).unwrap();
        assert!((gain.mean - 3.0).abs() < 1e-12);
        assert!((gain.mean - gain.low - student(3.0) * (14.0_f64 / 12.0).sqrt()).abs() < 1e-12);
        assert!(mean(&[1.0, 2.0, 3.0]).is_none());
    }

    #[test]
    fn weights_give_the_rise_of_the_line() {
        let weights = weights(&[0.0, 20.0, 40.0, 50.0]).unwrap();
        let rise: f64 = weights.iter().zip([0.0, 2.0, 4.0, 5.0]).map(|(weight, y)| weight * y).sum();
        assert!((rise - 5.0).abs() < 1e-12);
        assert!(weights.iter().sum::<f64>().abs() < 1e-12, "a constant does not contribute");
        assert!(super::weights(&[3.0]).is_none());
    }
}

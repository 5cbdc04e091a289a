//! Random weights from a seed.
//!
//! Every weight is a function of the seed, the parameter's position in model order and the element's index. No
//! global generator is read or changed, and the bits depend on neither threads nor device.

use std::f64::consts::TAU;

/// Returns `count` normal numbers with mean 0. `stream` distinguishes the parameters of one model.
pub fn normal(seed: u64, stream: u64, count: usize, standard_deviation: f64) -> Vec<f32> {
    let mut fractions = fractions(seed, stream);
    let mut uniform = || fractions.next().unwrap_or(1.0);
    let mut numbers = Vec::with_capacity(count + 1);
    while numbers.len() < count {
        // Box and Muller 1958.
        let radius = standard_deviation * (-2.0 * uniform().ln()).sqrt();
        let (sin, cos) = (TAU * uniform()).sin_cos();
        numbers.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    numbers.truncate(count);
    numbers
}

/// Returns `count` numbers, all values between `-bound` and `bound` equally probable.
pub fn uniform(seed: u64, stream: u64, count: usize, bound: f64) -> Vec<f32> {
    fractions(seed, stream).take(count).map(|fraction| (bound * (2.0 * fraction - 1.0)) as f32).collect()
}

/// An endless sequence of numbers of 53 bits in (0, 1]: the logarithm of each is finite.
fn fractions(seed: u64, stream: u64) -> impl Iterator<Item = f64> {
    let key = mix(mix(seed) ^ stream);
    (1_u64..).map(move |counter| ((mix(key.wrapping_add(counter)) >> 11) + 1) as f64 / (1_u64 << 53) as f64)
}

/// Returns a hash of `state`: the finaliser of `SplitMix64` (Steele, Lea and Flood 2014) over a Weyl step.
pub fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_moments_of_a_normal_distribution() {
        let numbers = normal(7, 3, 100_001, 0.02);
        assert_eq!(numbers.len(), 100_001);
        let mean = numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / 1e5;
        let variance = numbers.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 3e-4, "{mean}");
        assert!((variance.sqrt() - 0.02).abs() < 2e-4, "{variance}");
    }

    #[test]
    fn uniform_numbers_fill_their_range() {
        let numbers = uniform(7, 3, 100_001, 0.5);
        let mean = numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / 1e5;
        let largest = numbers.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        assert!(mean.abs() < 3e-3 && largest <= 0.5 && largest > 0.4999, "{mean} {largest}");
    }

    #[test]
    fn depends_on_seed_and_stream_alone() {
        assert_eq!(normal(1, 2, 10, 1.0), normal(1, 2, 11, 1.0)[..10]);
        assert_ne!(normal(1, 2, 10, 1.0), normal(2, 2, 10, 1.0));
        assert_ne!(normal(1, 2, 10, 1.0), normal(1, 3, 10, 1.0));
    }
}

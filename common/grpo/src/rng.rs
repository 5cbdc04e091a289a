//! Keyed random numbers: every random number is a pure function of its purpose.
//!
//! A [`Stream`] is identified by the run's seed, a domain ("sample", "negatives", …) and a short key (user, group,
//! sample, …). Its numbers do not depend on the process or on the order in which streams are used. The generator is
//! Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011). It is
//! counter-based, so that position `n` of a stream is computed without the numbers before it.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// A named stream of random numbers. A clone yields the same numbers.
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    /// High half of the counter: distinguishes streams with the same key.
    lane: [u32; 2],
    position: u64,
}

impl Stream {
    /// Returns the stream of `domain` and `key` for a seed.
    pub fn new(seed: u64, domain: &str, key: &[u64]) -> Self {
        let mut name = Hasher::new(seed);
        for byte in domain.bytes() {
            name.add(u64::from(byte));
        }
        // A separator, so that ("ab", [1]) and ("a", [98, 1]) differ; domain parts are bytes, key parts are words.
        name.add(u64::MAX);
        for &part in key {
            name.add(part);
        }
        let (a, b) = name.finish();
        Self { key: split(a), lane: split(b), position: 0 }
    }

    /// Moves to the `position`-th number, from 0.
    #[must_use]
    pub const fn at(mut self, position: u64) -> Self {
        self.position = position;
        self
    }

    /// Returns the next 64 random bits.
    pub const fn next_u64(&mut self) -> u64 {
        let counter = split(self.position);
        let block = philox4x32([counter[0], counter[1], self.lane[0], self.lane[1]], self.key);
        self.position += 1;
        (block[1] as u64) << 32 | block[0] as u64
    }

    /// Returns a number in [0, 1) with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a uniform integer in [0, `n`) (Lemire's multiplication with rejection).
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "n must be at least 1");
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Shuffles `items` (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

/// Hashes words to 128 bits with Philox as the mixing function.
struct Hasher {
    state: [u32; 4],
}

impl Hasher {
    const fn new(seed: u64) -> Self {
        let seed = split(seed);
        Self { state: philox4x32([seed[0], seed[1], 0, 0], [0x706F_6469, 0x756D_0001]) }
    }

    const fn add(&mut self, word: u64) {
        let s = self.state;
        self.state = philox4x32(s, split(word));
        // Feed forward, as in a Davies-Meyer chain, so that the key alone cannot invert a step into a collision.
        self.state = [self.state[0] ^ s[0], self.state[1] ^ s[1], self.state[2] ^ s[2], self.state[3] ^ s[3]];
    }

    const fn finish(&self) -> (u64, u64) {
        let s = self.state;
        ((s[1] as u64) << 32 | s[0] as u64, (s[3] as u64) << 32 | s[2] as u64)
    }
}

const fn split(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

const fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let mut round = 0;
    while round < ROUNDS {
        let first = MULTIPLIERS[0] as u64 * counter[0] as u64;
        let second = MULTIPLIERS[1] as u64 * counter[2] as u64;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        round += 1;
    }
    counter
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Known answers published with Random123 for philox4x32-10.
    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]
        );
        assert_eq!(
            philox4x32([0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344], [0xA409_3822, 0x299F_31D0]),
            [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1]
        );
    }

    #[test]
    fn streams_depend_on_seed_domain_and_key() {
        let first = |seed, domain: &str, key: &[u64]| Stream::new(seed, domain, key).next_u64();
        let base = first(1, "sample", &[2, 3]);
        assert_eq!(base, first(1, "sample", &[2, 3]));
        for other in [
            first(2, "sample", &[2, 3]),
            first(1, "sampl", &[2, 3]),
            first(1, "sample", &[3, 2]),
            first(1, "sample", &[2, 3, 0]),
            first(1, "sample", &[2]),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(first(0, "ab", &[1]), first(0, "a", &[98, 1]));
    }

    #[test]
    fn a_position_is_independent_of_earlier_ones() {
        let mut walked = Stream::new(7, "walk", &[]);
        let numbers: Vec<u64> = (0..20).map(|_| walked.next_u64()).collect();
        for (position, number) in numbers.iter().enumerate() {
            assert_eq!(Stream::new(7, "walk", &[]).at(position as u64).next_u64(), *number);
        }
    }

    #[test]
    fn uniform_numbers_are_evenly_distributed() {
        let mut stream = Stream::new(3, "uniform", &[]);
        let mut bins = [0_u32; 16];
        for _ in 0..64_000 {
            bins[(stream.uniform() * 16.0) as usize] += 1;
        }
        let chi_squared: f64 = bins.iter().map(|&n| (f64::from(n) - 4000.0).powi(2) / 4000.0).sum();
        assert!(
            chi_squared < 37.7,
            "chi squared {chi_squared} over 15 degrees of freedom (0.1 % point 37.7)"
        );
    }

    proptest! {
        #[test]
        fn below_returns_smaller_numbers(seed: u64, n in 1_u64..) {
            prop_assert!(Stream::new(seed, "below", &[]).below(n) < n);
        }

        #[test]
        fn a_shuffle_preserves_the_items(seed: u64, mut items: Vec<u8>) {
            let mut shuffled = items.clone();
            Stream::new(seed, "shuffle", &[]).shuffle(&mut shuffled);
            shuffled.sort_unstable();
            items.sort_unstable();
            prop_assert_eq!(items, shuffled);
        }
    }
}

//! Groups tensors into buckets, each summed by one all-reduce.

use std::ops::Range;

/// Numbers per bucket.
pub(crate) const NUMBERS: usize = podium_memory::BUCKET as usize;

/// Cuts a list of tensors into buckets of at most `limit` numbers; a larger tensor gets its own bucket. The cut
/// depends on sizes alone, so that it is the same on every rank.
pub(crate) fn cut(sizes: &[usize], limit: usize) -> Vec<Range<usize>> {
    let mut buckets = Vec::new();
    let (mut start, mut filled) = (0, 0_usize);
    for (index, &size) in sizes.iter().enumerate() {
        if index > start && filled.saturating_add(size) > limit {
            buckets.push(start..index);
            (start, filled) = (index, 0);
        }
        filled = filled.saturating_add(size);
    }
    if start < sizes.len() {
        buckets.push(start..sizes.len());
    }
    buckets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn large_tensors_go_alone_and_small_ones_together() {
        assert!(cut(&[], 10).is_empty());
        assert_eq!(cut(&[3, 4, 3, 1, 25, 2, 9], 10), [0..3, 3..4, 4..5, 5..6, 6..7]);
    }

    proptest! {
        #[test]
        fn every_tensor_is_in_one_bucket_and_none_is_too_large(
            sizes in prop::collection::vec(0_usize..50, 0..40),
            limit in 1_usize..60,
        ) {
            let buckets = cut(&sizes, limit);
            let covered: Vec<usize> = buckets.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..sizes.len()).collect::<Vec<_>>());
            for bucket in buckets {
                let filled: usize = sizes[bucket.clone()].iter().sum();
                prop_assert!(filled <= limit || bucket.len() == 1);
            }
        }
    }
}

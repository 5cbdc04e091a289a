//! Slices of held-out users, by popularity of the target or length of the history.

use std::ops::RangeInclusive;

/// Users whose number is in a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The numbers.
    pub range: RangeInclusive<u64>,
    /// The users, as indices of the sliced list.
    pub members: Vec<usize>,
}

/// Splits users into at most `parts` slices of about equal size by ascending number. Equal numbers stay in one slice,
/// so that there may be fewer slices.
///
/// # Panics
/// If `parts` is 0.
pub fn slices(numbers: &[u64], parts: usize) -> Vec<Slice> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by_key(|&user| numbers[user]);
    let mut slices: Vec<Slice> = Vec::new();
    let mut open = None;
    for (index, &user) in order.iter().enumerate() {
        let number = numbers[user];
        let part = index * parts / order.len();
        match slices.last_mut() {
            Some(slice) if open == Some(part) || *slice.range.end() == number => {
                slice.range = *slice.range.start()..=number;
                slice.members.push(user);
            }
            _ => {
                slices.push(Slice { range: number..=number, members: vec![user] });
                open = Some(part);
            }
        }
    }
    slices
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slices_are_about_equal_and_keep_equal_numbers_together() {
        let sliced = |numbers: &[u64]| -> Vec<(RangeInclusive<u64>, Vec<usize>)> {
            slices(numbers, 3).into_iter().map(|slice| (slice.range, slice.members)).collect()
        };
        assert_eq!(
            sliced(&[5, 1, 3, 2, 4, 6]),
            [(1..=2, vec![1, 3]), (3..=4, vec![2, 4]), (5..=6, vec![0, 5])]
        );
        assert_eq!(sliced(&[0, 0, 0, 0, 1, 2]), [(0..=0, vec![0, 1, 2, 3]), (1..=2, vec![4, 5])]);
        assert_eq!(sliced(&[7, 7]), [(7..=7, vec![0, 1])]);
        assert_eq!(sliced(&[]), []);
    }

    proptest! {
        #[test]
        fn every_user_is_in_one_slice(numbers in prop::collection::vec(0_u64..20, 0..60), parts in 1_usize..6) {
            let slices = slices(&numbers, parts);
            let mut members: Vec<usize> = slices.iter().flat_map(|slice| slice.members.clone()).collect();
            members.sort_unstable();
            prop_assert_eq!(members, (0..numbers.len()).collect::<Vec<_>>());
            prop_assert!(slices.len() <= parts);
            prop_assert!(slices.windows(2).all(|pair| pair[0].range.end() < pair[1].range.start()));
            for slice in &slices {
                prop_assert!(slice.members.iter().all(|&user| slice.range.contains(&numbers[user])));
            }
        }
    }
}

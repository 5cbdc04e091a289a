//! Sets of intervals of time.

/// Maximum number of intervals of a set. Further ones count only if they overlap or touch one of these.
const MOST: usize = 16_384;

/// Disjoint intervals in order, in microseconds. An interval contains its start and not its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    /// Adds an interval; one that ends before it starts is empty.
    pub(super) fn add(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // The intervals that overlap or touch the new one.
        let first = self.0.partition_point(|&(_, before)| before < start);
        let last = self.0.partition_point(|&(after, _)| after <= end);
        if first == last && self.0.len() >= MOST {
            return;
        }
        let joined = self.0[first..last]
            .iter()
            .fold((start, end), |(start, end), other| (start.min(other.0), end.max(other.1)));
        self.0.splice(first..last, [joined]);
    }

    /// Returns the union of sets.
    pub(super) fn union<'a>(sets: impl Iterator<Item = &'a Self>) -> Self {
        let mut all: Vec<(u64, u64)> = sets.flat_map(|set| &set.0).copied().collect();
        all.sort_unstable();
        all.dedup_by(|next, before| {
            let joins = next.0 <= before.1;
            if joins {
                before.1 = before.1.max(next.1);
            }
            joins
        });
        Self(all)
    }

    /// Returns the total length of the parts within an interval.
    pub(super) fn within(&self, start: u64, end: u64) -> u64 {
        let length = |&(from, to): &(u64, u64)| to.min(end).saturating_sub(from.max(start));
        self.0.iter().map(length).sum()
    }

    /// Removes the parts before a time.
    pub(super) fn forget_before(&mut self, time: u64) {
        self.0.retain(|&(_, end)| end > time);
        if let Some((start, _)) = self.0.first_mut() {
            *start = time.max(*start);
        }
    }
}

#[cfg(test)]
mod tests {
    use podium_grpo::rng::Stream;

    use super::*;

    fn of(intervals: &[(u64, u64)]) -> Intervals {
        let mut all = Intervals::default();
        for &(start, end) in intervals {
            all.add(start, end);
        }
        all
    }

    #[test]
    fn overlapping_and_touching_intervals_are_joined() {
        assert_eq!(of(&[(5, 7), (1, 2), (9, 9), (8, 3)]), Intervals(vec![(1, 2), (5, 7)]));
        assert_eq!(of(&[(1, 2), (5, 7), (2, 5)]), Intervals(vec![(1, 7)]));
        assert_eq!(of(&[(1, 3), (2, 4), (0, 9)]), Intervals(vec![(0, 9)]));
        assert_eq!(of(&[(0, 9), (2, 3)]), Intervals(vec![(0, 9)]));
    }

    #[test]
    fn a_set_is_bounded() {
        let mut all = Intervals::default();
        for number in 0..2 * MOST as u64 {
            all.add(3 * number, 3 * number + 1);
        }
        assert_eq!(all.0.len(), MOST);
        all.add(0, 2);
        assert_eq!(all.0[0], (0, 2), "an interval that overlaps still counts");
    }

    #[test]
    fn an_interval_counts_by_its_part_within_bounds() {
        let all = of(&[(1, 3), (5, 9)]);
        assert_eq!([all.within(0, 10), all.within(2, 6), all.within(3, 5), all.within(6, 7)], [6, 2, 0, 1]);
    }

    #[test]
    fn earlier_parts_are_forgotten() {
        let mut all = of(&[(1, 3), (5, 9), (11, 12)]);
        all.forget_before(7);
        assert_eq!(all, Intervals(vec![(7, 9), (11, 12)]));
        all.forget_before(20);
        assert_eq!(all, Intervals::default());
    }

    #[test]
    fn a_union_counts_every_instant_once() {
        let mut chance = Stream::new(3, "intervals", &[]);
        for _ in 0..200 {
            let mut instants = [false; 60];
            let (mut one, mut other) = (Intervals::default(), Intervals::default());
            for number in 0..12 {
                let (start, length) = (chance.below(50), chance.below(10));
                let set = if number % 2 == 0 { &mut one } else { &mut other };
                set.add(start, start + length);
                instants[start as usize..(start + length) as usize].fill(true);
            }
            let one = Intervals::union([&one, &other].into_iter());
            let (start, end) = (chance.below(30), 30 + chance.below(30));
            let expected = instants[start as usize..end as usize].iter().filter(|&&on| on).count();
            assert_eq!(one.within(start, end), expected as u64, "{one:?} within {start}..{end}");
            assert!(one.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "{one:?}");
        }
    }
}

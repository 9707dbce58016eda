//! Segment numbers of one timeline, as sorted ranges.
//!
//! A million segments without a gap are one range. A million single segments are a million ranges of 16 bytes.

/// Sorted ranges of numbers. Both ends are included, and between two ranges at least one number is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberRanges(Vec<(u64, u64)>);

impl NumberRanges {
    /// The empty set.
    pub const fn nothing() -> Self {
        Self(Vec::new())
    }

    /// The numbers from `first` to `last`; the empty set if `first` is greater.
    pub fn of(first: u64, last: u64) -> Self {
        [(first, last)].into_iter().collect()
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    /// Whether there is no number.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.iter().map(|(first, last)| (last - first).saturating_add(1)).fold(0, u64::saturating_add)
    }

    /// The range that contains a number.
    pub fn holding(&self, number: u64) -> Option<(u64, u64)> {
        let after = self.0.partition_point(|&(first, _)| first <= number);
        let range = *self.0.get(after.checked_sub(1)?)?;
        (number <= range.1).then_some(range)
    }

    /// Whether every number from `first` to `last` is there.
    pub fn covers(&self, first: u64, last: u64) -> bool {
        self.holding(first).is_some_and(|(_, end)| last <= end)
    }

    /// The part from `first` to `last`.
    pub fn within(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> {
        let begin = self.0.partition_point(move |&(_, end)| end < first);
        let rest = self.0.get(begin..).unwrap_or_default();
        rest.iter()
            .take_while(move |(start, _)| *start <= last)
            .map(move |&(start, end)| (start.max(first), end.min(last)))
    }

    /// The numbers that are in both sets.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        self.iter().flat_map(|(first, last)| other.within(first, last)).collect()
    }

    /// The numbers of this set that are not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for (first, last) in self.iter() {
            let mut next = Some(first);
            for (taken_first, taken_last) in other.within(first, last) {
                if let Some(start) = next.filter(|start| *start < taken_first) {
                    left.push((start, taken_first - 1));
                }
                next = taken_last.checked_add(1);
            }
            if let Some(start) = next.filter(|start| *start <= last) {
                left.push((start, last));
            }
        }
        Self(left)
    }
}

impl FromIterator<(u64, u64)> for NumberRanges {
    /// The ranges may be in any order and may overlap. A range whose first number is greater than its last is empty.
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        let mut sorted: Vec<(u64, u64)> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        if !sorted.is_sorted() {
            sorted.sort_unstable();
        }
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (first, last) in sorted {
            match joined.last_mut() {
                Some(range) if first <= range.1.saturating_add(1) => range.1 = range.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        joined.shrink_to_fit();
        Self(joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(u64, u64)]) -> NumberRanges {
        list.iter().copied().collect()
    }

    #[test]
    fn neighbours_and_overlaps_are_joined() {
        assert_eq!(ranges(&[(5, 6), (1, 2), (3, 3), (9, 8), (6, 7)]), ranges(&[(1, 3), (5, 7)]));
        assert_eq!(ranges(&[(0, u64::MAX), (3, 4)]).count(), u64::MAX);
    }

    #[test]
    fn one_taken_from_another_leaves_the_rest() {
        for (from, taken, left) in [
            (vec![(1, 9)], vec![(3, 4), (9, 9)], vec![(1, 2), (5, 8)]),
            (vec![(1, 9)], vec![(0, 20)], vec![]),
            (vec![(1, 2), (5, 6)], vec![(2, 5)], vec![(1, 1), (6, 6)]),
            (vec![(0, u64::MAX)], vec![(1, u64::MAX)], vec![(0, 0)]),
            (vec![(4, 5)], vec![], vec![(4, 5)]),
        ] {
            assert_eq!(ranges(&from).without(&ranges(&taken)), ranges(&left));
            let common = ranges(&from).common(&ranges(&taken));
            assert_eq!(ranges(&from).without(&common), ranges(&left));
        }
    }

    #[test]
    fn a_number_is_found_in_its_range() {
        let some = ranges(&[(1, 3), (7, 9)]);
        assert_eq!(some.holding(8), Some((7, 9)));
        assert_eq!(some.holding(5), None);
        assert!(some.covers(1, 3) && !some.covers(3, 7) && !some.covers(0, 1));
    }
}

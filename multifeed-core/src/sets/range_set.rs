//! A set of block indexes as ranges: what is asked for, of which a range may have no end.

use std::ops::Range;

/// Ranges of block indexes, ascending, none empty, none touching the next.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    /// The union of any ranges.
    pub(crate) fn union(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut ranges: Vec<Range<u64>> = ranges.into_iter().filter(|range| range.start < range.end).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    pub(crate) fn contains(&self, index: u64) -> bool {
        let after = self.0.partition_point(|range| range.start <= index);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|range| index < range.end)
    }

    /// The ranges, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_the_union_of_its_ranges(ranges in prop::collection::vec((0..60u64, 0..12u64), 0..12)) {
            let ranges: Vec<Range<u64>> = ranges.into_iter().map(|(start, length)| start..start + length).collect();
            let naive: BTreeSet<u64> = ranges.iter().cloned().flatten().collect();
            let set = RangeSet::union(ranges);
            prop_assert_eq!(set.iter().flatten().collect::<Vec<_>>(), naive.iter().copied().collect::<Vec<_>>());
            for index in 0..80 {
                prop_assert_eq!(set.contains(index), naive.contains(&index));
            }
            let all: Vec<_> = set.iter().collect();
            prop_assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start), "{all:?}");
        }
    }

    #[test]
    fn a_range_without_end_holds_everything_after_its_start() {
        let set = RangeSet::union([5..u64::MAX, 7..9]);
        assert!(set.contains(5) && set.contains(u64::MAX - 1) && !set.contains(4));
    }
}

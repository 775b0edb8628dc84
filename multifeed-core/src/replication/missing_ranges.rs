//! The blocks that neither side of a session had, named.

use std::ops::Range;

use multifeed_proto::FeedKey;

use crate::feed::Feed;
use crate::sets::sparse_bits::{SparseBits, words_of};

/// The blocks of a feed that are still missing after a session, and that its remote did not have either.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct FeedHoles {
    /// The feed.
    pub key: FeedKey,
    /// How many blocks are missing in all.
    pub blocks: u64,
    /// Which ones, ascending: as far as [`Limits::hole_ranges`](crate::Limits::hole_ranges) has room for them.
    pub ranges: Vec<Range<u64>>,
    /// How many of the blocks are in no range, because there was no more room.
    pub unlisted: u64,
}

/// Returns the blocks of `wanted` below the feed's length that are not held, and that `to_come` does not have. `None` if there are none.
///
/// `room` is how many ranges may still be listed: each one takes from it.
pub(crate) fn find(
    feed: &Feed,
    wanted: impl Iterator<Item = Range<u64>>,
    to_come: Option<&SparseBits>,
    room: &mut usize,
) -> Option<FeedHoles> {
    let mut holes = FeedHoles { key: feed.key(), blocks: 0, ranges: Vec::new(), unlisted: 0 };
    let mut listed = 0;
    for range in wanted {
        let range = range.start..range.end.min(feed.len());
        if range.is_empty() {
            continue;
        }
        let coming = to_come.map_or(0, |to_come| coming(feed, to_come, &range));
        let lacking = range.end - range.start - feed.count_held(range.clone()) - coming;
        if lacking == 0 {
            continue;
        }
        holes.blocks += lacking;
        let mut at = range.start;
        while *room > 0
            && let Some(hole) = next_hole(feed, at..range.end)
        {
            at = hole.end;
            listed += list(hole, to_come, &mut holes.ranges, room);
        }
    }
    holes.unlisted = holes.blocks - listed;
    (holes.blocks > 0).then_some(holes)
}

fn next_hole(feed: &Feed, range: Range<u64>) -> Option<Range<u64>> {
    let start = feed.bitfield().next_missing(range.start, range.end)?;
    Some(start..feed.bitfield().next_held(start, range.end).unwrap_or(range.end))
}

/// Lists what is left of a hole without what will come. Returns how many blocks that is.
fn list(hole: Range<u64>, to_come: Option<&SparseBits>, ranges: &mut Vec<Range<u64>>, room: &mut usize) -> u64 {
    let mut blocks = 0;
    let mut at = hole.start;
    while at < hole.end && *room > 0 {
        let next = to_come.and_then(|bits| bits.first_in(at..hole.end, None)).unwrap_or(hole.end);
        if next > at {
            blocks += next - at;
            ranges.push(at..next);
            *room -= 1;
        }
        at = to_come.map_or(next, |bits| bits.run_end(next, hole.end));
    }
    blocks
}

/// How many blocks of a range will come and are not held.
pub(crate) fn coming(feed: &Feed, to_come: &SparseBits, range: &Range<u64>) -> u64 {
    let mut blocks = 0;
    let mut at = range.start / 64;
    while let Some(word) = to_come.next_word(at).filter(|word| word * 64 < range.end) {
        let mask =
            words_of(range.start.max(word * 64), range.end.min(word * 64 + 64)).next().map_or(0, |(_, mask)| mask);
        blocks += u64::from((to_come.word(word) & mask & !feed.bitfield().word(word)).count_ones());
        at = word + 1;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use crate::keys::key_pair::KeyPair;
    use crate::storage::{MemoryStorage, Slot};

    /// A feed of this length that holds all but these blocks.
    fn feed(len: u64, missing: &BTreeSet<u64>) -> Feed {
        let mut storage = MemoryStorage::default();
        let pair = KeyPair::from_seed(&[1; 32]);
        let mut feed = Feed::create(&mut storage, Slot(0), pair.public_key(), Some(&pair), None).unwrap();
        let blocks: Vec<_> = (0..len).map(|_| bytes::Bytes::from_static(b"x")).collect();
        feed.append(&mut storage, &blocks).unwrap();
        for &index in missing {
            feed.clear(&mut storage, index..index + 1).unwrap();
        }
        feed
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn are_what_a_naive_search_finds(
            missing in prop::collection::btree_set(0..200u64, 0..60),
            to_come in prop::collection::btree_set(0..200u64, 0..60),
            start in 0..220u64,
            len in 0..220u64,
            room in 0..20usize,
        ) {
            let feed = feed(200, &missing);
            let mut bits = SparseBits::default();
            // What a remote has and we hold does not count, and can stand there still.
            to_come.iter().for_each(|&index| _ = bits.insert(index));
            let mut left = room;
            let wanted = start..if len < 20 { u64::MAX } else { start + len };
            let found = find(&feed, std::iter::once(wanted.clone()), Some(&bits), &mut left);
            let naive: Vec<u64> = missing
                .iter()
                .copied()
                .filter(|index| wanted.contains(index) && !to_come.contains(index))
                .collect();
            let Some(found) = found else {
                prop_assert!(naive.is_empty());
                return Ok(());
            };
            prop_assert_eq!(found.blocks, naive.len() as u64);
            let listed: Vec<u64> = found.ranges.iter().cloned().flatten().collect();
            prop_assert_eq!(&listed[..], &naive[..listed.len()]);
            prop_assert_eq!(found.unlisted, (naive.len() - listed.len()) as u64);
            prop_assert_eq!(left, room - found.ranges.len());
            prop_assert!(left == 0 || found.unlisted == 0);
            prop_assert!(found.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}

//! What an application waits for, of one feed: blocks, ranges, a byte's place, a length.
//!
//! [`Wants`] owns what was asked for and says when it is there. It asks nobody: the machines of the feed's sessions look at it for
//! what to request first, and, in sparse sessions, for what to request at all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::error::StoreError;
use crate::feed::{Feed, Located, Place};
use crate::limits::MAX_FEED_BLOCKS;
use crate::sets::range_set::RangeSet;
use crate::storage::Storage;

/// Something that was asked for with [`Multifeed::want`](crate::Multifeed::want), never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WantId(pub(crate) u64);

/// What can be waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Want {
    /// One block, requested before all that is not waited for by itself (hypercore's `get`).
    Block(u64),
    /// These blocks (hypercore's `download`).
    Blocks(Vec<u64>),
    /// Every block of a range, in ascending order. Without an end it is never done, and goes on with what is new.
    Range {
        /// The first block.
        start: u64,
        /// One past the last block.
        end: Option<u64>,
    },
    /// The place of a byte of the feed (hypercore's `seek`).
    Byte(u64),
    /// That the feed has at least so many blocks (hypercore's `update`).
    Length(u64),
}

/// How to wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WantOptions {
    /// When to give up, on the clock of the calls' `now`.
    pub deadline: Option<Duration>,
    /// Gives up once every session there is has told what it has, and none of them can bring it (hypercore's `ifAvailable`).
    pub if_available: bool,
}

/// How waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WantEnd {
    /// All of it is held; the feed is as long.
    Done,
    /// The place of the byte.
    Found(Place),
    /// The deadline passed.
    TimedOut,
    /// No session can bring it.
    Unavailable,
    /// [`Multifeed::cancel`](crate::Multifeed::cancel) ended it.
    Cancelled,
    /// The feed was removed from the store.
    Removed,
}

/// Why something cannot be waited for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WantError {
    /// No feed has such a block, or the range's end comes before its start.
    #[error("block {index} is past every feed, or before the start of its range")]
    OutOfRange {
        /// The block.
        index: u64,
    },
    /// The feed was removed from the store.
    #[error("the feed was removed")]
    Removed,
    /// The feed's id is of another store.
    #[error("the store has no feed of this id: it is that of another store")]
    UnknownFeed,
    /// As much is waited for as may be.
    #[error("{max} things are waited for already")]
    TooMany {
        /// [`Limits::wants`](crate::Limits::wants).
        max: usize,
    },
}

impl WantError {
    /// Returns a stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OutOfRange { .. } => "ERR_OUT_OF_RANGE",
            Self::Removed => "ERR_REMOVED",
            Self::UnknownFeed => "ERR_UNKNOWN_FEED",
            Self::TooMany { .. } => "ERR_LIMIT",
        }
    }
}

/// All that is waited for of one feed.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    asked: BTreeMap<WantId, Asked>,
    /// Who waits for each single block.
    blocks: BTreeMap<u64, Vec<WantId>>,
    /// All ranges together.
    ranges: RangeSet,
    /// What is answered by nodes of the tree, without a block.
    questions: BTreeMap<WantId, Question>,
}

#[derive(Debug)]
struct Asked {
    what: What,
    options: WantOptions,
}

#[derive(Debug)]
enum What {
    Block(u64),
    Ranges {
        ranges: RangeSet,
        /// All wanted blocks below this one are held.
        held_below: u64,
    },
    Byte(u64),
    Length(u64),
}

/// What a remote can be asked for without a block of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// The byte that is looked for; 0 if a length is.
    pub(crate) byte: u64,
    /// The blocks that an answer can be about.
    pub(crate) span: Range<u64>,
}

impl Question {
    /// A leaf's size is certain only with its block: of a pair of leaves one block has to come.
    pub(crate) fn needs_block(&self) -> bool {
        self.span.end - self.span.start <= 2
    }
}

impl Want {
    pub(crate) fn check(&self) -> Result<(), WantError> {
        let bad = match self {
            Self::Block(index) => Some(*index).filter(|index| *index >= MAX_FEED_BLOCKS),
            Self::Blocks(blocks) => blocks.iter().copied().find(|index| *index >= MAX_FEED_BLOCKS),
            Self::Range { start, end } => {
                let end = end.unwrap_or(MAX_FEED_BLOCKS);
                [*start, end].into_iter().find(|index| *index > MAX_FEED_BLOCKS).or((end < *start).then_some(end))
            }
            Self::Length(length) => Some(*length).filter(|length| *length > MAX_FEED_BLOCKS),
            Self::Byte(_) => None,
        };
        bad.map_or(Ok(()), |index| Err(WantError::OutOfRange { index }))
    }
}

impl Wants {
    pub(crate) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    pub(crate) fn add(&mut self, id: WantId, want: Want, options: WantOptions) {
        let what = match want {
            Want::Block(index) => {
                self.blocks.entry(index).or_default().push(id);
                What::Block(index)
            }
            Want::Blocks(blocks) => {
                let ranges = RangeSet::union(blocks.into_iter().map(|index| index..index + 1));
                What::Ranges { ranges, held_below: 0 }
            }
            Want::Range { start, end } => {
                What::Ranges { ranges: RangeSet::union(Some(start..end.unwrap_or(u64::MAX))), held_below: 0 }
            }
            Want::Byte(offset) => {
                self.questions.insert(id, Question { byte: offset, span: 0..u64::MAX });
                What::Byte(offset)
            }
            Want::Length(length) => {
                let span = length.saturating_sub(1)..u64::MAX;
                self.questions.insert(id, Question { byte: 0, span });
                What::Length(length)
            }
        };
        let ranged = matches!(what, What::Ranges { .. });
        self.asked.insert(id, Asked { what, options });
        if ranged {
            self.merge();
        }
    }

    /// Forgets a want. Whether there was one.
    pub(crate) fn remove(&mut self, id: WantId) -> bool {
        let Some(asked) = self.asked.remove(&id) else { return false };
        self.questions.remove(&id);
        match asked.what {
            What::Block(index) => {
                if let Some(waiting) = self.blocks.get_mut(&index) {
                    waiting.retain(|&other| other != id);
                    if waiting.is_empty() {
                        self.blocks.remove(&index);
                    }
                }
            }
            What::Ranges { .. } => self.merge(),
            What::Byte(_) | What::Length(_) => {}
        }
        true
    }

    fn merge(&mut self) {
        self.ranges = RangeSet::union(self.asked.values().flat_map(|asked| match &asked.what {
            What::Ranges { ranges, .. } => ranges.iter().collect(),
            _ => Vec::new(),
        }));
    }

    /// The wants for single blocks of a range, and for ranges that lie within it.
    pub(crate) fn within(&self, range: &Range<u64>) -> Vec<WantId> {
        let inside = |asked: &Asked| match &asked.what {
            What::Block(index) => range.contains(index),
            What::Ranges { ranges, .. } => ranges.iter().all(|one| range.start <= one.start && one.end <= range.end),
            What::Byte(_) | What::Length(_) => false,
        };
        self.asked.iter().filter(|(_, asked)| inside(asked)).map(|(&id, _)| id).collect()
    }

    /// Those that only a session that is there can fulfil.
    pub(crate) fn if_available(&self) -> Vec<WantId> {
        self.asked.iter().filter(|(_, asked)| asked.options.if_available).map(|(&id, _)| id).collect()
    }

    pub(crate) fn deadline(&self, id: WantId) -> Option<Duration> {
        self.asked.get(&id)?.options.deadline
    }

    /// The single block that a want waits for.
    pub(crate) fn block_of(&self, id: WantId) -> Option<u64> {
        match self.asked.get(&id)?.what {
            What::Block(index) => Some(index),
            _ => None,
        }
    }

    /// The blocks that somebody waits for one by one, ascending.
    pub(crate) fn urgent(&self, from: u64) -> impl Iterator<Item = u64> + '_ {
        self.blocks.range(from..).map(|(&index, _)| index)
    }

    /// All ranges that are asked for.
    pub(crate) fn ranges(&self) -> &RangeSet {
        &self.ranges
    }

    /// What can be asked of a remote without a block.
    pub(crate) fn questions(&self) -> &BTreeMap<WantId, Question> {
        &self.questions
    }

    /// Whether a block is asked for: by itself, in a range, or because it tells the place of a byte.
    pub(crate) fn wants(&self, index: u64) -> bool {
        let tells = |question: &Question| question.needs_block() && question.span.contains(&index);
        self.blocks.contains_key(&index) || self.ranges.contains(index) || self.questions.values().any(tells)
    }

    /// All blocks that are asked for, by themselves and in ranges.
    pub(crate) fn selection(&self) -> RangeSet {
        RangeSet::union(self.ranges.iter().chain(self.urgent(0).map(|index| index..index + 1)))
    }

    /// What is there by now. What is left of a seek is narrowed to the blocks in which the held nodes say that the byte is.
    pub(crate) fn fulfilled<S: Storage + ?Sized>(
        &mut self,
        feed: &mut Feed,
        storage: &mut S,
    ) -> Result<Vec<(WantId, WantEnd)>, StoreError> {
        let mut ended: Vec<(WantId, WantEnd)> = self
            .blocks
            .iter()
            .filter(|(index, _)| feed.has(**index))
            .flat_map(|(_, waiting)| waiting.iter().map(|&id| (id, WantEnd::Done)))
            .collect();
        for (&id, asked) in &mut self.asked {
            match &mut asked.what {
                What::Block(_) => {}
                What::Ranges { ranges, held_below } => {
                    let lacking = ranges
                        .iter()
                        .find_map(|range| feed.bitfield().next_missing(range.start.max(*held_below), range.end));
                    match lacking {
                        Some(index) => *held_below = index,
                        None => ended.push((id, WantEnd::Done)),
                    }
                }
                What::Length(length) => {
                    if feed.len() >= *length {
                        ended.push((id, WantEnd::Done));
                    }
                }
                What::Byte(offset) => match feed.locate(storage, *offset)? {
                    Located::At(place) => ended.push((id, WantEnd::Found(place))),
                    Located::Within(span) => {
                        if let Some(question) = self.questions.get_mut(&id) {
                            question.span = span;
                        }
                    }
                },
            }
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The naive model: what each want asks for, as a set.
    fn blocks_of(want: &Want) -> BTreeSet<u64> {
        match want {
            Want::Block(index) => BTreeSet::from([*index]),
            Want::Blocks(blocks) => blocks.iter().copied().collect(),
            Want::Range { start, end } => (*start..end.unwrap_or(200)).collect(),
            _ => BTreeSet::new(),
        }
    }

    fn want() -> impl Strategy<Value = Want> {
        prop_oneof![
            (0..100u64).prop_map(Want::Block),
            prop::collection::vec(0..100u64, 0..6).prop_map(Want::Blocks),
            (0..100u64, 0..30u64).prop_map(|(start, len)| Want::Range { start, end: Some(start + len) }),
            (0..100u64).prop_map(|start| Want::Range { start, end: None }),
        ]
    }

    proptest! {
        #[test]
        fn wants_are_the_union_of_what_is_asked_for(
            ops in prop::collection::vec((want(), any::<bool>(), any::<prop::sample::Index>()), 1..30)
        ) {
            let mut wants = Wants::default();
            let mut model: BTreeMap<WantId, Want> = BTreeMap::new();
            for (number, (want, removes, which)) in ops.into_iter().enumerate() {
                if removes && !model.is_empty() {
                    let id = *which.get(&model.keys().copied().collect::<Vec<_>>());
                    model.remove(&id).unwrap();
                    prop_assert!(wants.remove(id));
                    prop_assert!(!wants.remove(id));
                } else {
                    let id = WantId(number as u64);
                    wants.add(id, want.clone(), WantOptions::default());
                    model.insert(id, want);
                }
                let naive: BTreeSet<u64> = model.values().flat_map(blocks_of).collect();
                for index in 0..150 {
                    prop_assert_eq!(wants.wants(index), naive.contains(&index), "block {}", index);
                }
                let single: BTreeSet<u64> = model
                    .values()
                    .filter_map(|want| match want { Want::Block(index) => Some(*index), _ => None })
                    .collect();
                prop_assert_eq!(wants.urgent(0).collect::<BTreeSet<_>>(), single);
                prop_assert_eq!(wants.is_empty(), model.is_empty());
                let inside: BTreeSet<WantId> = model
                    .iter()
                    .filter(|(_, want)| blocks_of(want).iter().all(|index| (20..60).contains(index)))
                    .map(|(&id, _)| id)
                    .collect();
                prop_assert_eq!(wants.within(&(20..60)).into_iter().collect::<BTreeSet<_>>(), inside);
            }
        }
    }

    #[test]
    fn what_no_feed_has_is_refused() {
        assert_eq!(Want::Block(MAX_FEED_BLOCKS - 1).check(), Ok(()));
        let refused = [
            Want::Block(MAX_FEED_BLOCKS),
            Want::Blocks(vec![0, u64::MAX]),
            Want::Range { start: u64::MAX, end: None },
            Want::Range { start: 5, end: Some(4) },
            Want::Length(u64::MAX),
        ];
        for want in refused {
            assert_eq!(want.check().unwrap_err().code(), "ERR_OUT_OF_RANGE", "{want:?}");
        }
        assert_eq!(Want::Range { start: 5, end: Some(5) }.check(), Ok(()));
        assert_eq!(Want::Byte(u64::MAX).check(), Ok(()));
    }
}

//! Which blocks of a feed that is written here were cleared: nothing else tells them from blocks whose marks are lost.

use crate::bitfield::{Bitfield, DEFAULT_PAGE_BYTES, Marks};
use crate::limits::MAX_FEED_BLOCKS;

use super::Feed;
use super::files::BLOCKS_OF_A_PAGE;

/// The page that says that nothing was cleared: node 0 alone is marked. Journals of earlier builds have no page of a writer.
const NONE_CLEARED: [u8; 4] = [0x81, 0x20, 0x02, 0x80];

/// Blocks that were cleared. Of these one that is held again counts as held.
#[derive(Debug, Clone, Default)]
pub(super) struct Cleared(Bitfield);

impl Cleared {
    /// What a journal knows, if it does: the blocks' marks, and with them that of node 0.
    pub(super) fn read(marks: &Marks) -> Option<Self> {
        let mut entries = marks.iter();
        if matches!((entries.next(), entries.next()), (Some((0, entry)), None) if entry[..] == NONE_CLEARED) {
            return Some(Self::default());
        }
        let pages = marks.iter().last().map_or(0, |(last, _)| u64::from(last) + 1);
        if pages > MAX_FEED_BLOCKS / BLOCKS_OF_A_PAGE {
            return None;
        }
        let mut blocks = Bitfield::load(DEFAULT_PAGE_BYTES, pages);
        (blocks.load_marks(marks) && blocks.node(0)).then_some(Self(blocks))
    }

    /// For the journal, without those that are `held` again.
    fn marks(&self, held: &Bitfield) -> Marks {
        let mut blocks = self.0.clone();
        blocks.set_node_alone(0);
        let mut at = 0;
        while let Some(block) = blocks.next_held(at, blocks.end()) {
            at = block + 1;
            if held.get(block) {
                blocks.set(block, false);
            }
        }
        blocks.marks()
    }

    /// To be kept, if there are any.
    pub(super) fn kept(self) -> Option<Box<Self>> {
        (self.0.count() > 0).then(|| Box::new(self))
    }

    pub(super) fn add(&mut self, block: u64) {
        self.0.set(block, true);
    }

    fn take(&mut self, block: u64) {
        self.0.set(block, false);
    }

    /// The first block in `from..to` that was cleared.
    pub(super) fn next(&self, from: u64, to: u64) -> Option<u64> {
        self.0.next_held(from, to)
    }

    /// The first block in `from..to` that was not cleared.
    pub(super) fn next_other(&self, from: u64, to: u64) -> Option<u64> {
        self.0.next_missing(from, to)
    }
}

impl Feed {
    /// Notes that a block is not held because it was cleared.
    pub(super) fn note_cleared(&mut self, block: u64) {
        if self.writable() {
            self.cleared.get_or_insert_default().add(block);
        }
    }

    /// Notes that a block is not held though nobody cleared it.
    pub(super) fn note_lost(&mut self, block: u64) {
        if let Some(cleared) = &mut self.cleared {
            cleared.take(block);
        }
    }

    /// Which blocks of a feed that is written here were cleared, for the journal.
    pub(crate) fn cleared_marks(&self) -> Marks {
        match &self.cleared {
            _ if self.length == 0 => Marks::default(),
            None => Marks::new([(0, NONE_CLEARED)]),
            Some(cleared) => cleared.marks(&self.bitfield),
        }
    }

    /// The first block from this one on, and before `to`, that was written here, is not held and was not cleared.
    pub(super) fn next_lost(&self, from: u64, to: u64) -> Option<u64> {
        if !self.writable() {
            return None;
        }
        let to = to.min(self.length);
        let mut at = from;
        while let Some(missing) = self.bitfield.next_missing(at, to) {
            at = self.cleared.as_ref().map_or(Some(missing), |cleared| cleared.next_other(missing, to))?;
            if at == missing {
                return Some(missing);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_journal_has_of_them_is_read_again() {
        let mut blocks = Bitfield::new();
        blocks.set_node_alone(0);
        let none = Marks::new([(0, NONE_CLEARED)]);
        assert_eq!((&none, &Cleared::default().marks(&Bitfield::new())), (&blocks.marks(), &none));
        assert!(Cleared::read(&none).is_some_and(|read| read.next(0, u64::MAX).is_none()));
        assert!(Cleared::read(&Marks::default()).is_none());
        let mut cleared = Cleared::default();
        let mut held = Bitfield::new();
        [3, 4, 9, 70_000].into_iter().for_each(|block| cleared.add(block));
        held.set(4, true);
        let read = Cleared::read(&cleared.marks(&held)).unwrap();
        let listed: Vec<_> = (0..80_000).filter(|block| read.next(*block, block + 1).is_some()).collect();
        assert_eq!(listed, [3, 9, 70_000]);
    }
}

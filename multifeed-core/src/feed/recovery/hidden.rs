//! Blocks of a feed that is written here whose marks are gone, though the blocks are there: a bad sector, or a bit that flipped, in `bitfield`.
//!
//! Of a block that is not marked the journal knows whether it was cleared. If it was not, or no journal tells, what stands around the mark does: a
//! program that clears a block writes the index with it, and leaves its leaf marked. Nobody marks a block again that is not there as its leaf says.

use std::ops::Range;

use super::State;
use super::report::Recovered;
use crate::bitfield::Bitfield;
use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::feed::Feed;
use crate::feed::cleared::Cleared;
use crate::feed::files::{Files, NODE};
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

/// Blocks that are not marked, and may be there.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    ranges: Vec<(Range<u64>, Why)>,
    /// That some are missing was known, and reported.
    told: bool,
}

/// Why a block that is not marked may be there.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Why {
    /// Its mark does not fit what stands around it.
    Damage,
    /// It does, and the journal does not know that it was cleared: a bit flipped, or another program cleared it.
    Unknown,
}

impl Feed {
    /// Marks the nodes of a writable feed again whose marks are gone, and says which of its blocks are not marked and may be there. Of each other one
    /// it is noted that it was cleared.
    pub(super) fn find_hidden<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        marked: u64,
        known: Option<&Checkpoint>,
    ) -> Result<Hidden, StoreError> {
        let recorded = known.and_then(|mark| Cleared::read(&mark.pages));
        let told = known.is_some_and(|mark| mark.writer_behind);
        let mut hidden = Hidden { ranges: Vec::new(), told };
        if self.bitfield.next_missing(0, marked).is_none() {
            self.mark_nodes_again(storage, marked, known)?;
            self.cleared = recorded.unwrap_or_default().kept();
            return Ok(hidden);
        }
        let before = self.bitfield.clone();
        self.mark_nodes_again(storage, marked, known)?;
        let mut cleared = recorded.clone().unwrap_or_default();
        let mut at = 0;
        while let Some(first) = before.next_missing(at, marked) {
            at = before.next_held(first, marked).unwrap_or(marked);
            let mut next = first;
            while next < at {
                let start = recorded.as_ref().map_or(Some(next), |recorded| recorded.next_other(next, at));
                let Some(start) = start else { break };
                let end = recorded.as_ref().and_then(|recorded| recorded.next(start, at)).unwrap_or(at);
                let damaged = self.is_mark_damaged(&before, start);
                let same = |block: &u64| self.is_mark_damaged(&before, *block) == damaged;
                let range = start..(start + 1..end).find(|block| !same(block)).unwrap_or(end);
                next = range.end;
                match damaged {
                    true => hidden.ranges.push((range, Why::Damage)),
                    // One bit flips, and not several.
                    false if recorded.is_some() && range.end == range.start + 1 => {
                        hidden.ranges.push((range, Why::Unknown));
                    }
                    false if recorded.is_some() && told => {}
                    false => range.for_each(|block| cleared.add(block)),
                }
            }
        }
        self.cleared = cleared.kept();
        Ok(hidden)
    }

    /// Whether a block's mark does not fit what stood around it before the nodes were marked again.
    fn is_mark_damaged(&self, before: &Bitfield, block: u64) -> bool {
        before.is_index_off(block) || (!before.node(2 * block) && self.bitfield.node(2 * block))
    }

    /// Marks the nodes up to a length that are not marked and stand in `tree`: a writer has all of them. What is wrong of these is noticed on
    /// use, as of any other. One that takes back what it lacks has not, and a kill may have torn one: of these only what is proven is marked.
    fn mark_nodes_again<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        marked: u64,
        known: Option<&Checkpoint>,
    ) -> Result<(), StoreError> {
        let Some(known) = known.filter(|known| known.writer_behind) else {
            return self.mark_all_nodes(storage, marked);
        };
        let before = self.bitfield.clone();
        self.mark_all_nodes(storage, marked)?;
        let candidates = std::mem::replace(&mut self.bitfield, before);
        let roots = self.marked_roots(storage, &candidates, known.length)?;
        let roots = roots.filter(|roots| known.has_root(&merkle::root_hash(roots)));
        roots.into_iter().flatten().for_each(|root| self.bitfield.set_node_alone(root.index));
        self.recheck_nodes(storage, &candidates)
    }

    fn mark_all_nodes<S: Storage + ?Sized>(&mut self, storage: &mut S, marked: u64) -> Result<(), StoreError> {
        let end = (2 * marked).saturating_sub(1);
        let mut at = 0;
        while let Some(node) = self.bitfield.next_missing_node(at, end) {
            at = node + 1;
            if flat::right_span(node) >= end {
                continue;
            }
            if self.readable_node(storage, node)?.is_some() {
                self.bitfield.set_node_alone(node);
                continue;
            }
            match self.next_entry(storage, FileKind::Tree, NODE, at)? {
                Some(next) => at = next,
                None => break,
            }
        }
        Ok(())
    }

    /// Marks blocks again that are there as their leaves say. Those that are not are lost, or another program cleared them.
    pub(super) fn mark_hidden<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        hidden: Hidden,
        report: &mut Recovered,
    ) -> Result<(), StoreError> {
        if hidden.ranges.is_empty() {
            return Ok(());
        }
        let data_len = Files { storage, slot: self.slot }.len(FileKind::Data)?.unwrap_or(0);
        let regained = report.blocks_regained;
        for (range, why) in hidden.ranges {
            for block in range.start..range.end.min(self.length) {
                if self.bitfield.get(block) {
                    continue;
                }
                report.blocks_checked += 1;
                let state = match self.state_of(storage, block, data_len) {
                    Err(error) if error.is_unreadable() => State::Unreadable,
                    state => state?,
                };
                match (state, why) {
                    (State::Whole | State::SaysNothing, _) => {
                        self.bitfield.set(block, true);
                        report.blocks_regained += 1;
                    }
                    (State::Missing, Why::Unknown) if !hidden.told => self.note_cleared(block),
                    _ if hidden.told => self.writer_behind = true,
                    _ => {
                        report.blocks_unmarked += 1;
                        self.report_lost(block, report);
                    }
                }
            }
        }
        if report.blocks_regained > regained {
            self.bitfield.mend_index();
        }
        Ok(())
    }
}

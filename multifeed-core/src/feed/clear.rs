//! Giving blocks up: what is cleared, and what an audit finds damaged. Their hashes stay, so that the feed stays provable.

use std::ops::Range;

use super::cache::Window;
use super::covered::Cover;
use super::files::Files;
use super::{Cursor, Feed};
use crate::error::StoreError;
use crate::merkle;
use crate::storage::{FileId, FileKind, Storage};

/// What checking a block counts against a slice's bytes, besides its own.
const BLOCK_COST: usize = 256;

/// What an audit of held blocks found (hypercore's `audit`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Blocks that have their hash.
    pub valid: u64,
    /// Blocks that were marked as held and have not: they are no longer held, and can be fetched again.
    pub invalid: u64,
    /// Those, as ranges, ascending.
    pub dropped: Vec<Range<u64>>,
    /// Leaves that were made again of their blocks, which are valid.
    pub leaves_made: u64,
    /// The block to go on with; `None` when all were checked.
    pub next: Option<u64>,
}

impl Feed {
    /// Forgets blocks: afterwards they are not held, and can be fetched again. Returns the ranges that were held.
    ///
    /// Their bytes go back to the disk if nothing that is held follows them in `data`, or if the disk can make holes ([`Storage::punch`]). Else
    /// they stay where they are, unread. The marks are on the disk before.
    ///
    /// # Errors
    /// [`StoreError::NotRegular`] if `data` is behind a link: then nothing was changed. Else the storage's error: the blocks then count as not held,
    /// and the next write of the bitfield says so on disk.
    pub fn clear<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        range: Range<u64>,
    ) -> Result<Vec<Range<u64>>, StoreError> {
        self.check_clearable(storage, &range)?;
        let cleared = self.unmark(storage, range)?;
        self.give_back(storage, &cleared)?;
        Ok(cleared)
    }

    /// Fails if blocks of a range are held, and their bytes must stay: nothing is deleted through a link.
    pub(crate) fn check_clearable<S: Storage + ?Sized>(
        &self,
        storage: &mut S,
        range: &Range<u64>,
    ) -> Result<(), StoreError> {
        if self.bitfield.next_held(range.start, range.end.min(self.length)).is_none() {
            return Ok(());
        }
        let data = FileId::new(self.slot, FileKind::Data);
        storage.check_cuttable(data).map_err(|error| StoreError::from_file(data, "cut", error))
    }

    /// Forgets blocks, and leaves their bytes. Returns the ranges that were held.
    pub(crate) fn unmark<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        range: Range<u64>,
    ) -> Result<Vec<Range<u64>>, StoreError> {
        self.check_changeable()?;
        self.flush(storage)?;
        let end = range.end.min(self.length);
        let mut cleared: Vec<Range<u64>> = Vec::new();
        let mut from = range.start;
        while let Some(start) = self.bitfield.next_held(from, end) {
            let stop = self.bitfield.next_missing(start, end).unwrap_or(end);
            for block in start..stop {
                self.bitfield.set(block, false);
                self.note_cleared(block);
            }
            cleared.push(start..stop);
            from = stop;
        }
        if cleared.is_empty() {
            return Ok(cleared);
        }
        self.forget_reads();
        self.untouched = false;
        self.write_bitfield(storage)?;
        Ok(cleared)
    }

    /// Gives the bytes of blocks that were unmarked back to the disk, with those beside them that are not held either: the disk gives back whole
    /// blocks of its own. If nothing that is held follows them, `data` is cut.
    ///
    /// First the marks, then the bytes: a mark without its block would be damage. So whatever knows the marks, a journal too, knows by now
    /// that they are gone.
    pub(crate) fn give_back<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        unmarked: &[Range<u64>],
    ) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (unmarked.first(), unmarked.last()) else { return Ok(()) };
        let missing = first.start..last.end;
        let data_end = Files { storage, slot: self.slot }.len(FileKind::Data)?.unwrap_or(0);
        // If it is not certain where they are, nothing is given back.
        let start = match self.bitfield.last_held(missing.start) {
            None => 0,
            Some(before) => {
                let Some(place) = self.certain_place(storage, before)? else { return Ok(()) };
                place.end
            }
        };
        let after = self.bitfield.next_held(missing.end, self.length);
        let end = match after {
            None => data_end,
            Some(after) => {
                let Some(place) = self.certain_place(storage, after)? else { return Ok(()) };
                place.start.min(data_end)
            }
        };
        if start >= end || (after.is_some() && !storage.can_punch()) {
            return Ok(());
        }
        // The order has to hold in a power cut too.
        let mut files = Files { storage, slot: self.slot };
        files.sync(FileKind::Bitfield)?;
        match after {
            None => files.truncate(FileKind::Data, start),
            Some(_) => files.punch(FileKind::Data, start..end),
        }
    }

    /// Where a block lies in `data`, if its leaf leads to roots that are signed.
    fn certain_place<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
    ) -> Result<Option<Range<u64>>, StoreError> {
        let Some(leaf) = self.marked_readable_node(storage, 2 * block)? else { return Ok(None) };
        Ok(match self.cover(storage, leaf)? {
            Cover::Signed { start } => Some(start..start.saturating_add(leaf.size)),
            Cover::Misfit { .. } | Cover::Unknown => None,
        })
    }

    /// Checks held blocks against their hashes, from `from` on, for about this many bytes of work, and forgets those that do not have them. A hash
    /// that rotted is made again of its block, if those around it prove that.
    /// What is not staged is read from the files anew, not from caches.
    ///
    /// # Errors
    /// The storage's error; what it holds that is wrong is what an audit finds, not an error.
    pub fn audit_step<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        from: u64,
        max_bytes: usize,
    ) -> Result<Audit, StoreError> {
        self.check_changeable()?;
        let mut dropped = Vec::new();
        let found = self.without_caches(|feed| feed.audit_on(storage, from, max_bytes, &mut dropped));
        if found.as_ref().is_ok_and(|audit| audit.invalid == 0) && self.staged.is_empty() {
            return found;
        }
        self.forget_reads();
        self.untouched = false;
        let audit = found?;
        // Leaves that were made again.
        self.flush(storage)?;
        self.write_bitfield(storage)?;
        self.erase_nodes(storage, &dropped)?;
        Ok(audit)
    }

    fn audit_on<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        from: u64,
        max_bytes: usize,
        dropped: &mut Vec<u64>,
    ) -> Result<Audit, StoreError> {
        let mut audit = Audit::default();
        let mut work = 0;
        let mut at = from;
        while let Some(block) = self.bitfield.next_held(at, self.length) {
            if work >= max_bytes.max(1) {
                audit.next = Some(block);
                break;
            }
            at = block + 1;
            let found = match self.get(storage, block) {
                Ok(Some(bytes)) => {
                    work = work.saturating_add(bytes.len());
                    self.find_node(storage, 2 * block)?.is_some_and(|leaf| leaf.hash == merkle::leaf_hash(&bytes))
                }
                Ok(None) => false,
                Err(error) if error.is_of_one_place() => false,
                Err(error) => return Err(error),
            };
            work = work.saturating_add(BLOCK_COST);
            // It may be its leaf that rotted: the block proves what that was. Or a node that tells where it begins.
            let leaf = if found { None } else { self.readable_node(storage, 2 * block)? };
            if found || self.remake_leaf(storage, block)? || self.is_found_within(storage, block)? {
                audit.valid += 1;
                audit.leaves_made += u64::from(!found && leaf != self.readable_node(storage, 2 * block)?);
                continue;
            }
            audit.invalid += 1;
            self.bitfield.set(block, false);
            self.note_lost(block);
            // One of ours is fetched too, as it was not cleared.
            self.writer_behind = self.writable();
            // A mark without its node, or of another, would keep the block from coming again.
            if self.drop_leaf_unless_covered(storage, block)? {
                dropped.push(2 * block);
            }
            self.forget_reads();
            match audit.dropped.last_mut() {
                Some(last) if last.end == block => last.end += 1,
                _ => audit.dropped.push(block..block + 1),
            }
        }
        Ok(audit)
    }

    fn forget_reads(&mut self) {
        self.window = Window::default();
        self.large.forget_ready();
        self.read_cursor = Cursor::default();
    }
}

//! A feed that was fetched: what of it is lost comes again from a peer, and what the journal knows of it is not given up before.

use super::report::Recovered;
use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::feed::Feed;
use crate::feed::files::{NODE, WAY_OUT};
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

/// Nodes that are looked at for each search for the next data of `tree`.
const NODES_AT_ONCE: u64 = 1024;

impl Feed {
    /// As [`recover`](Self::recover), of a feed that was fetched.
    pub(super) fn recover_reader<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        known: Option<&Checkpoint>,
        mut report: Recovered,
        told: &mut Vec<StoreError>,
    ) -> Result<(), StoreError> {
        let of_marks = |error: &StoreError| matches!(error, StoreError::Io { file: Some(FileKind::Bitfield), .. });
        let marks_unread = told.iter().any(of_marks);
        let before = known.filter(|known| report.unclean && known.synced).map(|known| (known, self.bitfield.clone()));
        let least = known.map_or(0, |known| known.length);
        let nodes = self.unmark_past_the_tree(storage, &mut report)?;
        let mut most = least;
        if report.unclean {
            self.bitfield.mend_index();
            if marks_unread || report.marked_length < least {
                let length = self.whole_signatures(storage)?.max(least);
                self.mark_anew(storage, nodes.min(2 * length), &mut report)?;
            }
            self.recheck(storage, known, &mut report)?;
        } else {
            most = most.max(report.marked_length);
            let length = self.whole_signatures(storage)?.max(least);
            if marks_unread || report.marked_length < length {
                self.mark_anew(storage, nodes.min(2 * length), &mut report)?;
            }
        }
        self.find_length(storage, most.max(merkle::length(&self.bitfield)), known, report.unclean)?;
        match known {
            Some(known) if self.length < known.length => return self.keep_all_of(storage, known, &mut report, told),
            Some(_) => {}
            None if report.unclean => {}
            None => {
                // What the disk does not give now is no reason to give anything up.
                if self.length < report.marked_length {
                    for root in flat::full_roots(report.marked_length) {
                        self.marked_node(storage, root)?;
                    }
                }
                self.check_owner(storage, merkle::length(&self.bitfield))?;
            }
        }
        if self.lacks_signature() {
            self.incomplete = true;
            told.push(self.without_signature(storage));
        }
        self.check_leaves(storage, &mut report)?;
        self.check_tail(storage, true, &mut report)?;
        report.length = self.length;
        report.synced_lost = before.map_or(0, |(known, before)| self.bitfield.lost_of(&known.pages, &before));
        self.write_repairs(storage, report)?;
        self.cut_signatures(storage)
    }

    /// Takes the greatest length up to `most` that is proven: by its signature, or because the journal knows its root.
    fn find_length<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        most: u64,
        known: Option<&Checkpoint>,
        unclean: bool,
    ) -> Result<(), StoreError> {
        if let Some((roots, _)) = self.signed_roots(storage, most, known.filter(|_| !unclean))? {
            self.set_roots(roots);
            return Ok(());
        }
        if self.remake_roots(storage, most, known)?.is_some() {
            return Ok(());
        }
        self.find_signed_length(storage, most)?;
        let Some(known) = known.filter(|known| self.length < known.length) else { return Ok(()) };
        // Its signature is lost. It was verified before.
        let roots = self.roots_of(storage, known.length)?;
        match roots.filter(|roots| known.has_root(&merkle::root_hash(roots))) {
            Some(roots) => self.set_roots(roots),
            None => _ = self.remake_roots(storage, known.length, Some(known))?,
        }
        Ok(())
    }

    /// Less can be proven than the journal knows: `tree` is damaged, or the folder is an older copy. Nothing is changed. What can be proven is read
    /// and served until a remote brings the rest.
    fn keep_all_of<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        known: &Checkpoint,
        report: &mut Recovered,
        told: &mut Vec<StoreError>,
    ) -> Result<(), StoreError> {
        let unread = flat::full_roots(known.length).find_map(|root| self.marked_node(storage, root).err());
        told.extend(unread);
        self.forget_after(self.length);
        self.check_leaves(storage, report)?;
        self.check_tail(storage, true, report)?;
        self.forget_remade();
        self.incomplete = true;
        self.stay_older_than(known);
        Ok(())
    }

    /// Refuses a remote feed that the journal knows under another key: in `key` a bit flipped. Of a writer's feed the secret key tells.
    pub(in crate::feed) fn check_key<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        known: &Checkpoint,
    ) -> Result<(), StoreError> {
        if self.writable() {
            return Ok(());
        }
        let roots = self.roots_of(storage, known.length)?.filter(|roots| !roots.is_empty());
        if roots.is_some_and(|roots| known.has_root(&merkle::root_hash(&roots))) {
            let why = "they were known by another key than that in `key`; nothing was changed. Put the right `key` back; or move the folder away \
                       once a sync has fetched the feed into another one";
            return Err(StoreError::damaged(self.slot, FileKind::Signatures, why));
        }
        Ok(())
    }

    /// Refuses a remote feed that has roots and a signature, and no signature that is the key's: a bit flipped in `key`, or in the only
    /// signature. To unmark all of it would be to lose it, and nothing would come again if the key is nobody's.
    fn check_owner<S: Storage + ?Sized>(&mut self, storage: &mut S, marked: u64) -> Result<(), StoreError> {
        if self.length > 0 || self.roots_of(storage, marked)?.is_none() {
            return Ok(());
        }
        if self.signature(storage, marked)?.is_some() {
            let why = format!("none is of the key in `key`, and there are blocks; nothing was changed. {WAY_OUT}");
            return Err(StoreError::damaged(self.slot, FileKind::Signatures, why));
        }
        Ok(())
    }

    /// What is reported of a feed whose newest signature is none.
    fn without_signature<S: Storage + ?Sized>(&mut self, storage: &mut S) -> StoreError {
        let length = self.length;
        self.signature(storage, length).err().unwrap_or_else(|| {
            let why = format!(
                "the signature of {length} blocks is missing or damaged: the journal proves them, and they can be read; a sync with a peer that \
                 has the feed brings it back"
            );
            StoreError::damaged(self.slot, FileKind::Signatures, why)
        })
    }

    /// Marks a remote feed's nodes and blocks again, as far as they are proven, if `bitfield` tells of fewer than were known or have
    /// signatures. Then it is lost, or was cut, or a part of it is on a bad sector. Nodes before `end` are looked for.
    fn mark_anew<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        end: u64,
        report: &mut Recovered,
    ) -> Result<(), StoreError> {
        let before = self.bitfield.clone();
        let mut from = 0;
        while from < end {
            let Some(first) = self.next_entry(storage, FileKind::Tree, NODE, from)? else { break };
            from = end.min(first + NODES_AT_ONCE);
            let mut found = false;
            for node in first..from {
                if self.find_node(storage, node)?.is_some() {
                    found = true;
                    self.bitfield.set_node_alone(node);
                    if node % 2 == 0 {
                        self.bitfield.set(node / 2, true);
                    }
                }
            }
            if !found {
                self.pass_zeros(FileKind::Tree, NODES_AT_ONCE * NODE as u64)?;
            }
        }
        self.bitfield.mend_index();
        let unmarked = (report.blocks_unmarked, report.nodes_unmarked);
        self.recheck(storage, None, report)?;
        (report.blocks_unmarked, report.nodes_unmarked) = unmarked;
        report.blocks_unmarked += before.blocks_besides(&self.bitfield);
        report.nodes_unmarked += before.nodes_besides(&self.bitfield);
        report.blocks_regained += self.bitfield.blocks_besides(&before);
        Ok(())
    }
}

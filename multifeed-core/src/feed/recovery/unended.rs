//! What an append that never ended leaves past a writer's end, and what may be more than that.
//!
//! JS writes data, tree and signature of an append at once, in any order. It marks the blocks, and shows them to others, only when all of that is
//! written. So if a process of it is killed, what goes on after a `bitfield` that tells exactly of the whole, signed blocks is one append that nobody
//! saw. It is completed if its signature proves that all of it is here, and else cut off. If more follows than one append can leave, or the
//! `bitfield` itself may have lost its end, blocks may have been seen: they are not signed over.

use multifeed_proto::Node;

use super::lengths::gather_roots;
use super::report::Recovered;
use super::writer::{climb, ends};
use crate::error::StoreError;
use crate::feed::Feed;
use crate::feed::files::{BLOCKS_OF_A_PAGE, Files, HEADER, SIGNATURE, node_offset};
use crate::limits::MAX_MESSAGE_BYTES;
use crate::merkle;
use crate::storage::{FileKind, Storage};

/// A writer to which nothing is appended, and whose files are not changed, before it is longer than what may have been signed of it.
#[derive(Debug)]
pub(in crate::feed) struct Refused {
    /// Why.
    error: StoreError,
    /// The length in blocks that may have been signed.
    signed: u64,
}

impl Feed {
    /// The leaf of a block that is all the rest of `data` from this offset on, if a signature proves it on these roots of the blocks before it. Its leaf
    /// is not in `tree`: the append that wrote the others never ended.
    pub(super) fn leaf_of_the_rest<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
        offset: u64,
        roots: &[Node],
    ) -> Result<Option<Node>, StoreError> {
        let len = Files { storage, slot: self.slot }.len(FileKind::Data)?.unwrap_or(0);
        let size = len.checked_sub(offset).filter(|size| *size <= MAX_MESSAGE_BYTES as u64);
        let (Some(size), Some(signature)) = (size, self.stored_signature(storage, block + 1)?) else { return Ok(None) };
        let Some(hash) = self.hash_in_data(storage, offset, size)? else { return Ok(None) };
        let leaf = Node { index: 2 * block, hash, size };
        let mut roots = roots.to_vec();
        climb(&mut roots, leaf, |_| {});
        Ok(self.signature_is_valid(&merkle::root_hash(&roots), block + 1, &signature).then_some(leaf))
    }

    /// Whether what is past the length is no more than one append leaves that was cut before its blocks were marked. Then `bitfield` tells exactly
    /// of the whole, signed blocks; there is one signature after theirs; and `tree` ends with the blocks that it is of.
    ///
    /// A `bitfield` that ends with a page may have lost others.
    pub(super) fn is_one_unended_append<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        marked: u64,
        most_marked: u64,
    ) -> Result<bool, StoreError> {
        let length = self.length;
        if marked != length || most_marked != length || length.is_multiple_of(BLOCKS_OF_A_PAGE) {
            return Ok(false);
        }
        let Some(last) = self.next_signature(storage, length)? else { return Ok(false) };
        if self.next_signature(storage, last + 1)?.is_some() {
            return Ok(false);
        }
        let tree = Files { storage, slot: self.slot }.len(FileKind::Tree)?.unwrap_or(0);
        Ok(tree <= node_offset(2 * last + 1))
    }

    /// Takes back marks past a length where `tree`, `data` and `signatures` all end, and which is signed, if they do not go on from there. An append
    /// marks the next block, and its leaf for good. So a sector of `bitfield` holds something else.
    pub(super) fn forget_stray_marks<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        report: &mut Recovered,
    ) -> Result<(), StoreError> {
        if self.bitfield.next_missing(0, report.marked_length).is_none() {
            return Ok(());
        }
        let signatures = Files { storage, slot: self.slot }.len(FileKind::Signatures)?.unwrap_or(0);
        let length = signatures.saturating_sub(HEADER as u64) / SIGNATURE as u64;
        let goes_on = self.bitfield.get(length) || (self.bitfield.node(2 * length) && self.has_marks_of_appends());
        if length == 0 || report.marked_length <= length || goes_on {
            return Ok(());
        }
        // What marks the roots may be what is wrong.
        let Some(roots) = gather_roots(length, |root| self.readable_node(storage, root))? else { return Ok(()) };
        let signature = self.readable_signature(storage, length)?;
        if !signature.is_some_and(|it| self.signature_is_valid(&merkle::root_hash(&roots), length, &it)) {
            return Ok(());
        }
        for (kind, end) in ends(length, roots.iter().fold(0u64, |sum, root| sum.saturating_add(root.size))) {
            if (Files { storage, slot: self.slot }).len(kind)? != Some(end) {
                return Ok(());
            }
        }
        let (blocks, nodes) = self.forget_after(length);
        report.blocks_unmarked += blocks;
        report.nodes_unmarked += nodes;
        report.marked_length = length;
        Ok(())
    }

    /// Whether the last leaf of the length that the bitfield tells is marked, and nothing past it.
    fn has_marks_of_appends(&self) -> bool {
        let length = merkle::length(&self.bitfield);
        let (last, end) = (2 * length.saturating_sub(1), self.bitfield.nodes_end());
        let is_past =
            self.bitfield.next_node(last + 1, end).is_some() || self.bitfield.last_held(u64::MAX) >= Some(length);
        self.bitfield.node(last) && !is_past
    }

    /// The error for a writer whose files go on after its length, though `bitfield` tells of no more; `None` if none of them does.
    pub(super) fn past_the_end<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
    ) -> Result<Option<StoreError>, StoreError> {
        let length = self.length;
        let (mut first, mut cuts) = (None, Vec::new());
        for (kind, end) in ends(length, self.byte_length) {
            if (Files { storage, slot: self.slot }).len(kind)?.is_some_and(|len| len > end) {
                first = first.or(Some(kind));
                cuts.push(format!("`{kind}` to {end} bytes"));
            }
        }
        let why = format!(
            "{length} blocks of this writer are marked, whole and signed, and the files go on after them: there may have been more. Nothing was \
             changed, and nothing can be appended to it. A sync with a peer that has more, or a newer copy of the folder, brings them back. If \
             nobody has more, cut {} while the store is closed",
            cuts.join(", ")
        );
        Ok(first.map(|kind| StoreError::damaged(self.slot, kind, why)))
    }

    /// Cuts what a torn append left past the length, in all files. Of a feed whose length ends with a page of the bitfield that would be taken for
    /// blocks whose marks are lost, once the store was closed. So the disk has to know of it before.
    pub(super) fn cut_past_the_end<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        let mut files = Files { storage, slot: self.slot };
        for (kind, end) in ends(self.length, self.byte_length) {
            if files.len(kind)?.is_some_and(|len| len > end) {
                files.truncate(kind, end)?;
                files.sync(kind)?;
            }
        }
        Ok(())
    }

    /// More of a writer may have been signed than can be proven, and no journal tells. It is read and served as far as it is proven, and nothing of
    /// its files is changed. Nothing is appended to it before a remote brings a length beyond all that may have been signed.
    pub(super) fn refuse_appends<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        error: StoreError,
        marked: u64,
    ) -> Result<(), StoreError> {
        let signed = marked.max(self.whole_signatures(storage)?).max(self.length + 1);
        self.forget_after(self.length);
        self.forget_remade();
        self.untouched = true;
        self.refused = Some(Box::new(Refused { error, signed }));
        Ok(())
    }

    /// Why nothing is appended to a writer of which more may have been signed than is here.
    pub(in crate::feed) fn refusal(&self) -> Option<&StoreError> {
        let refused = self.refused.as_ref().filter(|refused| self.length < refused.signed)?;
        Some(&refused.error)
    }

    /// How long it may have been, if that is more than is here.
    pub(super) fn refused_length(&self) -> Option<u64> {
        self.refused.as_ref().map(|refused| refused.signed).filter(|signed| self.length < *signed)
    }

    /// Fails if its marks are all that tells of blocks which are not here: they are not changed.
    pub(in crate::feed) fn check_changeable(&self) -> Result<(), StoreError> {
        self.refusal().map_or(Ok(()), |refusal| Err(refusal.clone()))
    }

    /// Whether a proof is of less than may have been signed of a writer. Nothing of it is taken, as its marks in `bitfield` would then be all that
    /// anybody knows.
    pub(in crate::feed) fn awaits_more_than(&self, length: u64) -> bool {
        self.refusal().is_some() && self.refused.as_ref().is_some_and(|refused| length < refused.signed)
    }
}

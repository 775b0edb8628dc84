//! What a bad sector or a changed byte took of a feed's end, while opening it: found, made again if what is left proves it, and else given up,
//! block by block. The length stays.

use multifeed_proto::Node;

use super::report::Recovered;
use super::{State, is_known};
use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::feed::covered::Cover;
use crate::feed::files::{Files, SIGNATURE, signature_offset};
use crate::feed::read::MAX_HOLES;
use crate::feed::{Cursor, Feed};
use crate::limits::MAX_FEED_BYTES;
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

/// Bytes of a block that are read at once when it is checked.
const PIECE: u64 = 64 << 10;
/// Blocks that are lost of a writer's feed and reported one by one.
const MAX_LOST: usize = 16;

/// What `data` has in a block's place.
#[derive(Debug)]
pub(super) enum InData {
    Whole,
    /// Something else, or it ends before.
    Other,
    /// The disk does not give it.
    Unreadable(StoreError),
}

impl Feed {
    /// Reads a node, if there is one that the disk gives.
    pub(in crate::feed) fn readable_node<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
    ) -> Result<Option<Node>, StoreError> {
        match self.find_node(storage, index) {
            Err(error) if error.is_unreadable() => Ok(None),
            found => found,
        }
    }

    /// As [`marked_node`](Self::marked_node), if the disk gives it. What is not given need not be gone: nothing is cut off because of this.
    pub(in crate::feed) fn marked_readable_node<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        node: u64,
    ) -> Result<Option<Node>, StoreError> {
        if self.bitfield.node(node) { self.readable_node(storage, node) } else { Ok(None) }
    }

    /// Reads the signature of a length, if there is one that the disk gives.
    pub(in crate::feed) fn readable_signature<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        blocks: u64,
    ) -> Result<Option<[u8; SIGNATURE]>, StoreError> {
        match self.signature(storage, blocks) {
            Err(error) if error.is_unreadable() => Ok(None),
            found => found,
        }
    }

    /// Reads signatures from a position on, and returns how many bytes there are. One that the disk does not give is zeros.
    pub(super) fn read_signatures<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<usize, StoreError> {
        let mut files = Files { storage, slot: self.slot };
        match files.read(FileKind::Signatures, signature_offset(start), buffer) {
            Err(error) if error.is_unreadable() => {}
            read => return read,
        }
        let mut count = 0;
        for (position, signature) in (start..).zip(buffer.chunks_mut(SIGNATURE)) {
            let read = files.read(FileKind::Signatures, signature_offset(position), signature);
            if read.as_ref().is_err_and(StoreError::is_unreadable) {
                signature.fill(0);
                count += signature.len();
                continue;
            }
            count += read?;
        }
        Ok(count)
    }

    /// A block is not held any more. Of a feed that is written here it is fetched by the next session.
    pub(super) fn lose_block(&mut self, block: u64, report: &mut Recovered) {
        if !self.bitfield.set(block, false) {
            return;
        }
        report.blocks_unmarked += 1;
        if self.writable() && block < self.length {
            self.report_lost(block, report);
        }
    }

    /// A block of a writable feed is not held, and nobody cleared it.
    pub(super) fn report_lost(&mut self, block: u64, report: &mut Recovered) {
        self.note_lost(block);
        self.writer_behind = true;
        if report.lost.len() < MAX_LOST {
            report.lost.push(block);
        }
    }

    /// Marks the last block of a writable feed again if it was lost and the disk gives it now. What was cleared is not there.
    pub(super) fn find_last_again<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        report: &mut Recovered,
    ) -> Result<(), StoreError> {
        let Some(last) = self.length.checked_sub(1).filter(|last| self.writable() && !self.bitfield.get(*last)) else {
            return Ok(());
        };
        let data_len = Files { storage, slot: self.slot }.len(FileKind::Data)?.unwrap_or(0);
        let is_empty = self.marked_readable_node(storage, 2 * last)?.is_none_or(|leaf| leaf.size == 0);
        if is_empty || data_len < self.byte_length {
            return Ok(());
        }
        if matches!(self.state_of(storage, last, data_len)?, State::Whole) {
            self.bitfield.set(last, true);
            report.blocks_regained += 1;
        } else {
            self.writer_behind = true;
        }
        Ok(())
    }

    /// Makes a leaf again of its block, if what is held above and beside it proves it.
    pub(in crate::feed) fn remake_leaf<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
    ) -> Result<bool, StoreError> {
        match self.leaf_of_block(storage, block)? {
            Some((leaf, sibling, parent)) => self.take_leaf(storage, leaf, sibling, parent),
            None => Ok(false),
        }
    }

    /// The leaf that a block makes, the one beside it, and the node above them, if that is what the two make: whatever stands in the leaf's place.
    pub(in crate::feed) fn leaf_of_block<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
    ) -> Result<Option<(Node, Node, Node)>, StoreError> {
        let index = 2 * block;
        let Some(parent) = self.marked_readable_node(storage, flat::parent(index))? else { return Ok(None) };
        let Some(sibling) = self.readable_node(storage, flat::sibling(index))? else { return Ok(None) };
        let Some(size) = parent.size.checked_sub(sibling.size) else { return Ok(None) };
        let Ok(offset) = self.offset_of(storage, block, Cursor::default()) else { return Ok(None) };
        let hash = match self.hash_in_data(storage, offset, size) {
            Err(error) if error.is_unreadable() => None,
            hash => hash?,
        };
        let leaf = hash.map(|hash| Node { index, hash, size });
        Ok(leaf.filter(|leaf| merkle::parent_of(*leaf, sibling) == Some(parent)).map(|leaf| (leaf, sibling, parent)))
    }

    /// Marks a leaf and its sibling, to be written again, if their parent is made of them, and fits what is above it.
    pub(super) fn take_leaf<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        leaf: Node,
        sibling: Node,
        parent: Node,
    ) -> Result<bool, StoreError> {
        if merkle::parent_of(leaf, sibling) != Some(parent)
            || matches!(self.cover(storage, parent)?, Cover::Misfit { .. })
        {
            return Ok(false);
        }
        for node in [leaf, sibling] {
            self.staged.put_node(&node);
            self.bitfield.set_node(node.index);
        }
        Ok(true)
    }

    /// Makes the roots of a length again of what is below them, the last leaf of its block, if the signature or the journal proves them. Returns
    /// whether that length was signed again; `None` if it is not proven.
    pub(super) fn remake_roots<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
        known: Option<&Checkpoint>,
    ) -> Result<Option<bool>, StoreError> {
        let data_len = Files { storage, slot: self.slot }.len(FileKind::Data)?.unwrap_or(0);
        let (mut roots, mut offset) = (Vec::new(), 0u64);
        for root in flat::full_roots(length) {
            let node = match flat::children(root) {
                Some((left, right)) => {
                    let below = (self.marked_readable_node(storage, left)?, self.marked_readable_node(storage, right)?);
                    match below {
                        (Some(left), Some(right)) => merkle::parent(&left, &right),
                        _ => self.marked_readable_node(storage, root)?,
                    }
                }
                None => {
                    let size = data_len.saturating_sub(offset);
                    let hash = match self.hash_in_data(storage, offset, size) {
                        Err(error) if error.is_unreadable() => None,
                        hash => hash?,
                    };
                    hash.map(|hash| Node { index: root, hash, size })
                }
            };
            let Some(node) = node else { return Ok(None) };
            offset = offset.saturating_add(node.size);
            roots.push(node);
        }
        if roots.is_empty() || offset > MAX_FEED_BYTES {
            return Ok(None);
        }
        let root_hash = merkle::root_hash(&roots);
        let signature = self.readable_signature(storage, length)?;
        let signature = signature.filter(|signature| self.signature_is_valid(&root_hash, length, signature));
        if signature.is_none() && !is_known(known, length, &root_hash) {
            return Ok(None);
        }
        for root in &roots {
            if self.readable_node(storage, root.index)? != Some(*root) {
                self.staged.put_node(root);
                self.bitfield.set_node(root.index);
            }
        }
        match signature {
            Some(signature) => {
                self.verified(length, &signature);
                self.set_roots(roots);
                Ok(Some(false))
            }
            None if self.writable() => {
                self.set_signed_roots(length, roots)?;
                Ok(Some(true))
            }
            None => {
                self.set_roots(roots);
                Ok(Some(false))
            }
        }
    }

    /// Takes roots of a writable feed that are known to be signed, and signs them again: that gives the same signature.
    pub(super) fn set_signed_roots(&mut self, length: u64, roots: Vec<Node>) -> Result<(), StoreError> {
        if let (Some(writer_key), Some(last)) = (&self.writer_key, length.checked_sub(1)) {
            let signature = writer_key.sign(self.slot, &merkle::signable(&merkle::root_hash(&roots), length))?;
            self.staged.put_signature(last, signature);
            self.verified(length, &signature);
        }
        self.set_roots(roots);
        Ok(())
    }

    /// Whether `data` has the leaf's block at this offset.
    pub(in crate::feed) fn has_block<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        offset: u64,
        leaf: &Node,
    ) -> Result<bool, StoreError> {
        Ok(matches!(self.look_for(storage, offset, leaf)?, InData::Whole))
    }

    /// Returns what `data` has at this offset, the place of the leaf's block.
    pub(super) fn look_for<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        offset: u64,
        leaf: &Node,
    ) -> Result<InData, StoreError> {
        match self.hash_in_data(storage, offset, leaf.size) {
            Ok(hash) if hash == Some(leaf.hash) => Ok(InData::Whole),
            Ok(_) => Ok(InData::Other),
            Err(error) if error.is_unreadable() => Ok(InData::Unreadable(error)),
            Err(error) => Err(error),
        }
    }

    /// Returns the hash of a block of this size at this offset of `data`; `None` if the file ends before it. It is read in pieces: JS
    /// writes blocks of any size, and damage tells of any.
    pub(in crate::feed) fn hash_in_data<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        offset: u64,
        size: u64,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        let len = Files { storage, slot: self.slot }.len(FileKind::Data)?.unwrap_or(0);
        let (end, mut holes) = (offset.saturating_add(size), 0);
        if size > 0 && len < end {
            return Ok(None);
        }
        let mut hasher = merkle::LeafHasher::new(size);
        let mut at = offset;
        let mut left = size;
        let mut buffer = vec![0; PIECE.min(size) as usize];
        while left > 0 {
            let wanted = PIECE.min(left);
            let piece = &mut buffer[..wanted as usize];
            let mut files = Files { storage, slot: self.slot };
            if at >= MAX_FEED_BYTES || files.read(FileKind::Data, at, piece)? < piece.len() {
                return Ok(None);
            }
            // Somebody's zeros are a block like any other. Those of a hole cost nobody anything, and are hashed all the same.
            if piece.iter().all(|byte| *byte == 0) {
                // The bytes are there, whether the disk says what of them is a hole or not.
                let hole = match files.hole_at(FileKind::Data, at, end) {
                    Err(error) if error.is_unreadable() => wanted,
                    hole => hole?,
                };
                if holes + hole > MAX_HOLES {
                    return Ok(None);
                }
                holes += hole.min(wanted);
                self.pass_zeros(FileKind::Data, hole.min(wanted))?;
            }
            hasher.update(piece);
            at += wanted;
            left -= wanted;
        }
        Ok(Some(hasher.finish()))
    }
}

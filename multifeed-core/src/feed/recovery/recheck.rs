//! Checking what came to a remote feed since the journal knew of it, after the store was not closed.
//!
//! What the journal knows is believed: it was whole. Of all that was marked later nothing is known: any of the writes may have been
//! lost, or be there in part, whatever came after them. So each later mark is taken back, and set again if the files prove it as
//! a peer would have to. A signature proves the roots of its length, a node that is proven proves its two children, and a leaf
//! its block. What is not proven stays unmarked, and comes again with the next sync. A signature that is not one, or whose roots
//! are not there, is taken out: it would look like damage as soon as the roots came.

use multifeed_proto::Node;

use super::lengths::gather_roots;
use super::report::Recovered;
use crate::bitfield::Bitfield;
use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::feed::Feed;
use crate::feed::files::{Files, HEADER, SIGNATURE, SIGNATURES_AT_ONCE};
use crate::limits::MAX_FEED_BLOCKS;
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

impl Feed {
    /// Proves all that is marked and not known, or unmarks it.
    pub(in crate::feed) fn recheck<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        known: Option<&Checkpoint>,
        report: &mut Recovered,
    ) -> Result<(), StoreError> {
        let marked = self.bitfield.clone();
        match known {
            Some(known) => self.bitfield.keep_only(&known.pages),
            None => self.bitfield.keep_only(&Default::default()),
        }
        self.recheck_signatures(storage, &marked, report)?;
        self.recheck_nodes(storage, &marked)?;
        self.recheck_blocks(storage, &marked, report)?;
        report.blocks_unmarked += marked.count() - self.bitfield.count();
        report.nodes_unmarked += marked.nodes_besides(&self.bitfield);
        self.bitfield.forget_unchanged(&marked);
        Ok(())
    }

    /// Marks the roots of each signature that is theirs, and takes the others out.
    fn recheck_signatures<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        marked: &Bitfield,
        report: &mut Recovered,
    ) -> Result<(), StoreError> {
        let mut files = Files { storage, slot: self.slot };
        let len = files.len(FileKind::Signatures)?.unwrap_or(0).saturating_sub(HEADER as u64);
        let stored = len.div_ceil(SIGNATURE as u64).min(MAX_FEED_BLOCKS);
        let mut start = 0;
        while let Some(first) =
            self.next_entry(storage, FileKind::Signatures, SIGNATURE, start)?.filter(|first| *first < stored)
        {
            start = first;
            // One that ends too early is as good as one that ends in zeros, and one past the end as none.
            let mut buffer = vec![0; SIGNATURES_AT_ONCE as usize * SIGNATURE];
            let count = self.read_signatures(storage, start, &mut buffer)?;
            if buffer.iter().all(|byte| *byte == 0) {
                self.pass_zeros(FileKind::Signatures, count as u64)?;
            }
            for (position, bytes) in (start..).zip(buffer.chunks_exact(SIGNATURE)) {
                let Ok(signature) = <[u8; SIGNATURE]>::try_from(bytes) else { continue };
                if signature == [0; SIGNATURE] {
                    continue;
                }
                let roots = self.marked_roots(storage, marked, position + 1)?;
                let valid = roots
                    .as_ref()
                    .is_some_and(|roots| self.signature_is_valid(&merkle::root_hash(roots), position + 1, &signature));
                match roots {
                    Some(roots) if valid => roots.iter().for_each(|root| self.bitfield.set_node_alone(root.index)),
                    _ => {
                        self.staged.put_signature(position, [0; SIGNATURE]);
                        report.signatures_mended += 1;
                    }
                }
            }
            start += SIGNATURES_AT_ONCE;
        }
        // An unsigned feed of JS's is proven by its key.
        let length = merkle::length(marked);
        if let Some(roots) = self.marked_roots(storage, marked, length)?
            && length > 0
            && merkle::root_hash(&roots) == *self.key.as_bytes()
        {
            roots.iter().for_each(|root| self.bitfield.set_node_alone(root.index));
        }
        Ok(())
    }

    /// Marks the nodes below those that are marked already, as far as their hashes lead.
    pub(super) fn recheck_nodes<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        marked: &Bitfield,
    ) -> Result<(), StoreError> {
        let mut next = 0;
        while let Some(node) = marked.next_node(next, marked.nodes_end()) {
            next = node + 1;
            // Up to what is proven, and down again.
            let mut path = Vec::new();
            let mut top = node;
            while !self.bitfield.node(top) && marked.node(top) {
                path.push(top);
                top = flat::parent(top);
            }
            if !self.bitfield.node(top) {
                continue;
            }
            while let Some(below) = path.pop() {
                if !self.prove_children(storage, top)? {
                    break;
                }
                top = below;
            }
        }
        Ok(())
    }

    /// Marks the children of a node that is proven, if they are there and it is made of them.
    fn prove_children<S: Storage + ?Sized>(&mut self, storage: &mut S, parent: u64) -> Result<bool, StoreError> {
        let Some((left, right)) = flat::children(parent) else { return Ok(false) };
        let nodes = (self.find_node(storage, parent)?, self.find_node(storage, left)?, self.find_node(storage, right)?);
        let (Some(parent), Some(left), Some(right)) = nodes else { return Ok(false) };
        if merkle::parent(&left, &right) != Some(parent) {
            return Ok(false);
        }
        self.bitfield.set_node_alone(left.index);
        self.bitfield.set_node_alone(right.index);
        Ok(true)
    }

    /// Marks the blocks whose leaves are proven, and that are there.
    fn recheck_blocks<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        marked: &Bitfield,
        report: &mut Recovered,
    ) -> Result<(), StoreError> {
        // The place of the block after the last one.
        let mut place = (0, 0u64);
        let mut next = 0;
        while let Some(block) = marked.next_held(next, marked.end()) {
            next = block + 1;
            if self.bitfield.get(block) {
                continue;
            }
            report.blocks_checked += 1;
            let Some(leaf) = self.marked_node(storage, 2 * block)? else { continue };
            let offset = match place {
                (after, offset) if after == block => Some(offset),
                _ => self.marked_offset(storage, block)?,
            };
            let Some(offset) = offset else { continue };
            place = (next, offset.saturating_add(leaf.size));
            if self.has_block(storage, offset, &leaf)? {
                self.bitfield.set(block, true);
            }
        }
        Ok(())
    }

    /// Returns the offset of a block in `data`, if all nodes that tell it are proven.
    pub(super) fn marked_offset<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
    ) -> Result<Option<u64>, StoreError> {
        let mut offset = 0u64;
        for root in flat::full_roots(block) {
            let Some(node) = self.marked_node(storage, root)? else { return self.offset_within(storage, block) };
            offset = offset.saturating_add(node.size);
        }
        Ok(Some(offset))
    }

    /// Returns the roots of a length, if all of them are marked and there.
    pub(super) fn marked_roots<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        marked: &Bitfield,
        length: u64,
    ) -> Result<Option<Vec<Node>>, StoreError> {
        gather_roots(length, |root| if marked.node(root) { self.find_node(storage, root) } else { Ok(None) })
    }
}

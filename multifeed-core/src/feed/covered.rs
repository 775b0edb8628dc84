//! Which nodes a signature of the writer covers. Of these alone it is certain where blocks begin: a hash tells what a block is, and if bytes repeat, blocks
//! have their hashes in wrong places too. So a sector of `tree` that was written to the wrong place may fit the blocks that it leads to.

use std::ops::Range;

use multifeed_proto::Node;

use super::Feed;
use super::cache::PAGE_NODES;
use crate::error::StoreError;
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

/// Signatures that are checked for one node that could be a root. They are valid as they are written, so that the first one is, unless something rotted.
const MOST_CHECKED: usize = 4;
/// Lengths whose signatures are looked for.
const MOST_LENGTHS: usize = 256;
/// Nodes on either side of one that nothing proves that are looked at: 40 KiB of `tree`, several pages of a disk.
const NEAR: u64 = 1024;

/// What a node that is held is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    /// It leads to the roots of a length that is signed. What is below it begins here in `data`.
    Signed {
        /// An offset in bytes.
        start: u64,
    },
    /// It does not fit what is around it: it rotted, or that did.
    Misfit {
        /// The first node above it that is not what the two below it make.
        above: u64,
    },
    /// Nodes beside its way up are not held, or are lost.
    Unknown,
}

impl Feed {
    /// Whether a node leads to the roots of a length that is signed, by the nodes beside its way up. One of these that rotted or is lost is made again
    /// of its children, or a leaf of its block.
    pub(super) fn cover<S: Storage + ?Sized>(&mut self, storage: &mut S, node: Node) -> Result<Cover, StoreError> {
        let (mut top, mut before, mut misfit) = (node, 0u64, None);
        // With the bytes below it that are before those of the node.
        let mut tops = vec![(top, before)];
        loop {
            if let Some(at) = self.roots.iter().position(|root| root.index == top.index) {
                if self.roots[at] == top {
                    let start = self.roots[..at].iter().fold(before, |sum, root| sum.saturating_add(root.size));
                    return Ok(Cover::Signed { start });
                }
                misfit = misfit.or(Some(top.index));
                break;
            }
            let Some(beside) = self.node_beside(storage, top)? else { break };
            let Some(above) = merkle::parent_of(top, beside) else {
                misfit = misfit.or(Some(flat::parent(top.index)));
                break;
            };
            if self.marked_readable_node(storage, above.index)?.is_some_and(|stored| stored != above) {
                misfit = misfit.or(Some(above.index));
            }
            if beside.index < top.index {
                before = before.saturating_add(beside.size);
            }
            tops.push((above, before));
            top = above;
        }
        // What came with a shorter length, or what lies before something that rotted.
        for (top, before) in tops.into_iter().rev().filter(|(top, _)| flat::offset(top.index).is_multiple_of(2)) {
            if let Some(start) = self.start_of_signed_root(storage, top)? {
                return Ok(Cover::Signed { start: start.saturating_add(before) });
            }
        }
        Ok(misfit.map_or(Cover::Unknown, |above| Cover::Misfit { above }))
    }

    /// As [`cover`](Self::cover).
    pub(super) fn is_covered<S: Storage + ?Sized>(&mut self, storage: &mut S, node: Node) -> Result<bool, StoreError> {
        Ok(matches!(self.cover(storage, node)?, Cover::Signed { .. }))
    }

    /// Whether one of the nodes near this one in `tree`, or on its way to a root, is not what the two below it make. Then parts of `tree` may be in the wrong
    /// place, with nodes of their own that fit each other. Otherwise, what is lost is lost, and the rest is right.
    pub(super) fn misfits_near<S: Storage + ?Sized>(&mut self, storage: &mut S, node: u64) -> Result<bool, StoreError> {
        let found = match self.nodes.misfits_near(node) {
            Some(found) => found,
            None => {
                let page = node - node % PAGE_NODES;
                let found =
                    self.misfits_in(storage, page.saturating_sub(NEAR)..page.saturating_add(PAGE_NODES + NEAR))?;
                self.nodes.note_misfits(node, found);
                found
            }
        };
        let mut top = node;
        while !found && self.roots.iter().all(|root| root.index != top) && flat::right_span(top) < 2 * self.length {
            if self.is_misfit(storage, top)? || self.is_misfit(storage, flat::sibling(top))? {
                return Ok(true);
            }
            top = flat::parent(top);
        }
        Ok(found)
    }

    fn misfits_in<S: Storage + ?Sized>(&mut self, storage: &mut S, nodes: Range<u64>) -> Result<bool, StoreError> {
        let mut next = nodes.start;
        while let Some(node) = self.bitfield.next_node(next, nodes.end) {
            next = node + 1;
            let above = flat::parent(node);
            if self.is_misfit(storage, node)? || (!nodes.contains(&above) && self.is_misfit(storage, above)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a node is another one than the root, or than the two below it make, if these are there, and no part of one of them was lost.
    pub(super) fn is_misfit<S: Storage + ?Sized>(&mut self, storage: &mut S, index: u64) -> Result<bool, StoreError> {
        let Some(stored) = self.marked_readable_node(storage, index)? else { return Ok(false) };
        let fits = match self.roots.iter().find(|root| root.index == index) {
            Some(root) => *root == stored,
            None => {
                self.children(storage, index)?.is_none_or(|(left, right)| merkle::parent(&left, &right) == Some(stored))
            }
        };
        Ok(!fits && !self.is_beside_lost(storage, index)?)
    }

    /// Whether a node, or one of those that make it, stands beside one that is lost: of a sector's last node and its first a part is lost.
    fn is_beside_lost<S: Storage + ?Sized>(&mut self, storage: &mut S, index: u64) -> Result<bool, StoreError> {
        let below = flat::children(index).into_iter().flat_map(|(left, right)| [left, right]);
        for node in below.chain([index]).flat_map(|node| [node.saturating_sub(1), node + 1]) {
            if self.bitfield.node(node) && self.marked_readable_node(storage, node)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The node beside one, with which it makes the one above them, if that can be had.
    fn node_beside<S: Storage + ?Sized>(&mut self, storage: &mut S, node: Node) -> Result<Option<Node>, StoreError> {
        let beside = flat::sibling(node.index);
        if !self.bitfield.node(beside) {
            return Ok(None);
        }
        let mut stored = self.readable_node(storage, beside)?;
        if stored.is_none() && flat::depth(beside) == 0 {
            match self.regain_leaf(storage, beside / 2) {
                Err(error) if error.is_unreadable() => {}
                regained => _ = regained?,
            }
            stored = self.readable_node(storage, beside)?;
        }
        let above = self.marked_readable_node(storage, flat::parent(beside))?;
        let fits = |it: Node| merkle::parent_of(node, it).is_some_and(|made| above.is_none_or(|above| above == made));
        if stored.is_some_and(fits) {
            return Ok(stored);
        }
        let made = self.made_of_children(storage, beside)?;
        Ok(made.filter(|made| fits(*made)).or(stored).or(made))
    }

    /// If a node is a root of a length before the feed's that is signed, where what is below it begins in `data`.
    fn start_of_signed_root<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        top: Node,
    ) -> Result<Option<u64>, StoreError> {
        // That never changes.
        if let Some((_, start)) = self.signed_root.as_deref().filter(|(root, _)| *root == top) {
            return Ok(Some(*start));
        }
        let first = flat::right_span(top.index) / 2 + 1;
        let end = (flat::right_span(flat::parent(top.index)) / 2 + 1).min(self.length);
        // The one that came with it.
        let told = merkle::verified_by(&self.bitfield, top.index) / 2;
        let (mut from, mut checked, mut start) = (first, 0, None);
        if (first..end).contains(&told) {
            start = self.start_in(storage, top, told)?.flatten();
        }
        for _ in 0..MOST_LENGTHS {
            if start.is_some() || checked >= MOST_CHECKED {
                break;
            }
            let Some(position) = self.next_signature_place(storage, from - 1, end.saturating_sub(1))? else { break };
            from = position + 2;
            let found = self.start_in(storage, top, position + 1)?;
            checked += usize::from(found.is_some());
            start = found.flatten();
        }
        if let Some(start) = start {
            self.signed_root = Some(Box::new((top, start)));
        }
        Ok(start)
    }

    /// Where a root of a length begins, if the signature covers it and the others of it; `None` if one of these or the signature is not there.
    fn start_in<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        top: Node,
        length: u64,
    ) -> Result<Option<Option<u64>>, StoreError> {
        let Some(signature) = self.readable_signature(storage, length)? else { return Ok(None) };
        let Some(roots) = self.roots_with(storage, length, Some(top))? else { return Ok(None) };
        let valid = self.signature_is_valid(&merkle::root_hash(&roots), length, &signature);
        let before = roots.iter().take_while(|root| **root != top);
        Ok(Some(valid.then(|| before.fold(0u64, |sum, root| sum.saturating_add(root.size)))))
    }

    /// The error for a node that is not covered.
    pub(super) fn uncovered(&self, node: u64, cover: Cover) -> StoreError {
        let why = match cover {
            Cover::Misfit { above } => format!("node {above} is not what the two below it make"),
            Cover::Unknown | Cover::Signed { .. } => format!("nothing around node {node} proves it"),
        };
        StoreError::damaged(self.slot, FileKind::Tree, why)
    }
}

//! Making marks and files agree: marks whose node or block is gone are taken back, or the node is made again if what is left proves it.

use multifeed_proto::Node;

use super::State;
use super::remake::InData;
use super::report::Recovered;
use crate::error::StoreError;
use crate::feed::Feed;
use crate::feed::covered::Cover;
use crate::feed::files::{Files, HEADER, NODE};
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

/// Levels above the last block that opening a feed holds against each other: those that lie in one page of the bitfield. In a feed that is long
/// by claim alone each one above is a read of its own. What is served is held against what is above it in any case.
const LEVELS_CHECKED: u32 = 13;

impl Feed {
    /// Unmarks the nodes past the end of `tree`, and marks those that stand over two pages. Returns how many nodes `tree` has room for.
    pub(super) fn unmark_past_the_tree<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        report: &mut Recovered,
    ) -> Result<u64, StoreError> {
        let len = Files { storage, slot: self.slot }.len(FileKind::Tree)?.unwrap_or(0);
        let nodes = len.saturating_sub(HEADER as u64) / NODE as u64;
        report.nodes_unmarked += self.unmark_nodes_from(nodes);
        self.mark_parents_between_pages(storage)?;
        Ok(nodes)
    }

    /// Unmarks the nodes past the end of `tree`.
    pub(super) fn unmark_nodes_from(&mut self, nodes: u64) -> u64 {
        let end = self.bitfield.nodes_end();
        let mut from = nodes;
        let mut unmarked = 0;
        while let Some(node) = self.bitfield.next_node(from, end) {
            unmarked += u64::from(self.bitfield.clear_node(node));
            from = node;
        }
        unmarked
    }

    /// A node over two pages of the bitfield is marked in the first of them, which may be the one that was not written.
    pub(super) fn mark_parents_between_pages<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
    ) -> Result<(), StoreError> {
        for node in self.bitfield.nodes_over_pages() {
            let both =
                flat::children(node).is_some_and(|(left, right)| self.bitfield.node(left) && self.bitfield.node(right));
            if both && !self.bitfield.node(node) && self.find_node(storage, node)?.is_some() {
                self.bitfield.set_node(node);
            }
        }
        Ok(())
    }

    /// Blocks that are marked while their leaves are not: a page was written in part, or `tree` ends too early.
    pub(super) fn check_leaves<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        report: &mut Recovered,
    ) -> Result<(), StoreError> {
        let mut from = 0;
        while let Some(block) = self.bitfield.next_without_leaf(from) {
            // It is marked no more after this, or its leaf is.
            from = block;
            if self.regain_leaf(storage, block)? {
                continue;
            }
            report.blocks_unmarked += u64::from(self.bitfield.set(block, false));
            if self.writable() && block < self.length {
                self.find_signed_length(storage, block)?;
            }
        }
        Ok(())
    }

    /// Unmarks what lies past the length, and makes sure that the last block held is there: then those before it are. The length stays: it is signed.
    pub(super) fn check_tail<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        may_mend: bool,
        report: &mut Recovered,
    ) -> Result<(), StoreError> {
        let data_len = Files { storage, slot: self.slot }.len(FileKind::Data)?.unwrap_or(0);
        let (mut end, mut is_rebuilt) = (u64::MAX, !may_mend);
        loop {
            let (blocks, nodes) = self.forget_after(self.length);
            report.blocks_unmarked += blocks;
            report.nodes_unmarked += nodes;
            let Some(last) = self.bitfield.last_held(end.min(self.length)) else { return Ok(()) };
            end = last;
            match self.state_of(storage, last, data_len)? {
                State::Whole | State::Unreadable => return Ok(()),
                State::SaysNothing => {}
                State::Missing if may_mend && self.mend_leaf(storage, last, data_len)? => return Ok(()),
                State::Missing if !is_rebuilt => {
                    self.rebuild_page(storage, 2 * last)?;
                    (end, is_rebuilt) = (last + 1, true);
                }
                State::Missing => {
                    let leaf = match self.find_node(storage, 2 * last) {
                        Err(error) if error.is_unreadable() => return Ok(()),
                        found => found?,
                    };
                    self.lose_block(last, report);
                    if leaf.is_none() {
                        report.nodes_unmarked += u64::from(self.bitfield.clear_node(2 * last));
                    }
                }
            }
        }
    }

    /// Whether a block is in `data` as its leaf says, and the leaf under what is held above it.
    pub(super) fn state_of<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
        data_len: u64,
    ) -> Result<State, StoreError> {
        let Some(leaf) = self.marked_readable_node(storage, 2 * block)? else { return Ok(State::Missing) };
        let Some(offset) = self.marked_offset(storage, block)? else { return Ok(State::Missing) };
        match self.look_for(storage, offset, &leaf)? {
            InData::Unreadable(_) => return Ok(State::Unreadable),
            InData::Whole if self.is_under_held(storage, leaf)? => {}
            InData::Whole | InData::Other => return Ok(State::Missing),
        }
        Ok(if leaf.size == 0 && offset > data_len { State::SaysNothing } else { State::Whole })
    }

    /// Whether the held nodes above a leaf are made of it, as far up as [`LEVELS_CHECKED`] of them. One that is not and can be made again is. One further
    /// up that can't says nothing of the leaf: a node between is made of it.
    pub(super) fn is_under_held<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        leaf: Node,
    ) -> Result<bool, StoreError> {
        let mut node = leaf;
        for level in 0..LEVELS_CHECKED {
            let Some(parent) = self.marked_node(storage, flat::parent(node.index))? else { return Ok(true) };
            let Some(sibling) = self.marked_node(storage, flat::sibling(node.index))? else { return Ok(true) };
            node = if merkle::parent_of(node, sibling) == Some(parent) {
                parent
            } else {
                let Some(mended) = self.mend_above(storage, node, sibling, parent)? else { return Ok(level > 0) };
                mended
            };
        }
        Ok(true)
    }

    /// Of a node and the one beside it another is made than is held above them: makes that again if what is above it proves it, or the one beside it of
    /// what is below that. Returns the one above.
    fn mend_above<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        node: Node,
        sibling: Node,
        parent: Node,
    ) -> Result<Option<Node>, StoreError> {
        if let Some(made) = merkle::parent_of(node, sibling)
            && self.is_proven(storage, made)?
        {
            self.staged.put_node(&made);
            return Ok(Some(made));
        }
        let beside = self.made_of_children(storage, sibling.index)?;
        let beside = beside.filter(|beside| merkle::parent_of(node, *beside) == Some(parent));
        beside.iter().for_each(|beside| self.staged.put_node(beside));
        Ok(beside.map(|_| parent))
    }

    /// Makes the leaf of a block again that is whole, or that of the block beside it.
    pub(super) fn mend_leaf<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
        data_len: u64,
    ) -> Result<bool, StoreError> {
        let mended = self.regain_rotten_leaf(storage, block)?;
        Ok(mended && matches!(self.state_of(storage, block, data_len)?, State::Whole))
    }

    /// Makes a node again that is marked and was lost since the feed was opened, which reads few of them. It is made of its block or its
    /// children, if what is held above and beside it proves it. The next write puts it back.
    pub(in crate::feed) fn regain_node<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        index: u64,
    ) -> Result<Option<Node>, StoreError> {
        if !self.bitfield.node(index) {
            return Ok(None);
        }
        let Some((left, right)) = flat::children(index) else {
            let regained = self.regain_leaf(storage, index / 2)?;
            return if regained { self.find_node(storage, index) } else { Ok(None) };
        };
        let children = (self.marked_node(storage, left)?, self.marked_node(storage, right)?);
        let (Some(left), Some(right)) = children else { return Ok(None) };
        let Some(node) = merkle::parent(&left, &right) else { return Ok(None) };
        let above = self.marked_node(storage, flat::parent(index))?;
        let beside = self.marked_node(storage, flat::sibling(index))?;
        let proven = match (above, beside) {
            (Some(above), Some(beside)) => merkle::parent_of(node, beside) == Some(above),
            _ => self.roots.contains(&node),
        };
        if !proven || matches!(self.cover(storage, node)?, Cover::Misfit { .. }) {
            return Ok(None);
        }
        self.staged.put_node(&node);
        Ok(Some(node))
    }

    /// Finds a leaf in `tree`, or makes it again from its block, if what is held above and beside it proves it.
    pub(in crate::feed) fn regain_leaf<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
    ) -> Result<bool, StoreError> {
        let index = 2 * block;
        let Some(parent) = self.marked_node(storage, flat::parent(index))? else { return Ok(false) };
        let Some(sibling) = self.find_node(storage, flat::sibling(index))? else { return Ok(false) };
        let Some(size) = parent.size.checked_sub(sibling.size) else { return Ok(false) };
        match self.find_node(storage, index)? {
            Some(leaf) => self.take_leaf(storage, Node { size, ..leaf }, sibling, parent),
            None => self.remake_leaf(storage, block),
        }
    }

    pub(in crate::feed) fn marked_node<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        node: u64,
    ) -> Result<Option<Node>, StoreError> {
        if self.bitfield.node(node) { self.find_node(storage, node) } else { Ok(None) }
    }

    /// JS cannot read an empty block if there is no `data` at all, which a feed of empty blocks alone may have lost.
    pub(super) fn keep_data_file<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        let mut files = Files { storage, slot: self.slot };
        if self.bitfield.count() > 0 && files.len(FileKind::Data)?.is_none() {
            files.write(FileKind::Data, 0, &[])?;
        }
        Ok(())
    }
}

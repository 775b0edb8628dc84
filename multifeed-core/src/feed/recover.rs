//! Opening a feed after whatever happened to it.

use core::fmt;

use multifeed_proto::Node;

use super::{Cursor, Feed, Files, HEADER, NODE, SIGNATURE, signature_offset};
use crate::error::StoreError;
use crate::limits::{MAX_FEED_BLOCKS, MAX_FEED_BYTES, MAX_MESSAGE_BYTES};
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Slot, Storage};

/// Signatures that are read at once when a signed length is searched for.
const SIGNATURES_AT_ONCE: u64 = 1024;

/// What opening a feed had to set right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// The folder.
    pub slot: Slot,
    /// The length in blocks that the bitfield told.
    pub marked_length: u64,
    /// The length in blocks that the feed has now.
    pub length: u64,
    /// Blocks that were marked as held and are not there, or lie past the length.
    pub blocks_unmarked: u64,
    /// Tree nodes that were marked as held and are not there, or lie past the length.
    pub nodes_unmarked: u64,
    /// Blocks of a writable feed that were there, whole and signed, and not marked.
    pub blocks_regained: u64,
    /// Whether a writable feed, found whole block for block, was signed again because its newest signature was gone.
    pub signed_again: bool,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, marked_length, length, blocks_unmarked, blocks_regained, signed_again, .. } = self;
        write!(f, "folder {slot} told a length of {marked_length} blocks, and has {length} now")?;
        for (count, what) in [(blocks_unmarked, "were not there"), (blocks_regained, "were not marked, and are there")]
        {
            if *count > 0 {
                write!(f, "; blocks that {what}: {count}")?;
            }
        }
        if *signed_again { f.write_str("; its newest signature was made again") } else { Ok(()) }
    }
}

/// What the last block held tells of `data`.
enum State {
    /// It is there, and so `data` goes as far as any block before it.
    Whole,
    /// It is empty, and lies past the end of `data`: whether those before it are there it does not tell.
    SaysNothing,
    Missing,
}

impl Feed {
    /// Finds the length, and makes marks and files agree. See [`Feed::open`] for what is looked at.
    pub(super) fn recover<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        let mut files = Files { storage, slot: self.slot };
        let tree_len = files.len(FileKind::Tree)?.unwrap_or(0);
        let mut report =
            Recovered { slot: self.slot, marked_length: merkle::length(&self.bitfield), ..Recovered::default() };

        let nodes = tree_len.saturating_sub(HEADER as u64) / NODE as u64;
        report.nodes_unmarked += self.unmark_nodes_from(nodes);
        self.mark_parents_between_pages(storage)?;
        let marked = merkle::length(&self.bitfield);
        match self.signed_roots(storage, marked)? {
            Some(roots) => self.set_roots(roots),
            None => report.signed_again = self.sign_again(storage, marked)?,
        }
        if self.length != marked {
            self.find_signed_length(storage, marked)?;
        }

        self.check_leaves(storage, &mut report)?;
        self.check_tail(storage, &mut report)?;
        if self.writable() {
            report.blocks_regained = self.regain(storage)?;
        }
        report.length = self.length;
        if self.writable() && self.length < report.marked_length {
            self.refuse_to_fork(storage, report.marked_length)?;
        }
        if self.bitfield.is_dirty() || !self.staged.is_empty() || report.marked_length != report.length {
            self.flush(storage)?;
            self.recovered = Some(report);
        }
        // Of an append that was cut: what comes to stand there will not be what it signed.
        self.cut_signatures(storage)
    }

    /// Signs a writable feed again whose newest signature is gone, where every block is there: it is the history that was
    /// signed before.
    fn sign_again<S: Storage + ?Sized>(&mut self, storage: &mut S, length: u64) -> Result<bool, StoreError> {
        let Some(pair) = self.key_pair.clone() else { return Ok(false) };
        let Some(held) = self.roots_of(storage, length)? else { return Ok(false) };
        let mut roots: Vec<Node> = Vec::new();
        let mut offset = 0u64;
        for block in 0..length {
            let Some(leaf) = self.marked_node(storage, 2 * block)? else { return Ok(false) };
            if !self.bitfield.get(block) || !self.has_block(storage, offset, &leaf)? {
                return Ok(false);
            }
            offset = offset.saturating_add(leaf.size);
            climb(&mut roots, leaf, |_| {});
        }
        if length == 0 || roots != held {
            return Ok(false);
        }
        // What is left of a signature that was cut would look like a wrong one.
        let mut files = Files { storage, slot: self.slot };
        let stored = files.len(FileKind::Signatures)?.unwrap_or(0).saturating_sub(HEADER as u64) / SIGNATURE as u64;
        if files.len(FileKind::Signatures)?.is_some_and(|len| len > signature_offset(stored)) {
            files.truncate(FileKind::Signatures, signature_offset(stored))?;
        }
        let signature = pair.sign(&merkle::signable(&merkle::root_hash(&roots), length));
        self.staged.put_signature(length - 1, signature);
        self.set_roots(roots);
        Ok(true)
    }

    /// A crash tears the last append. Where more is gone, the folder is damaged: going on from a shorter length would sign a
    /// second history, and write over blocks that may still be saved.
    fn refuse_to_fork<S: Storage + ?Sized>(&mut self, storage: &mut S, marked: u64) -> Result<(), StoreError> {
        let mut before = marked - 1;
        while before > self.length {
            if self.signature(storage, before)?.is_some() {
                let length = self.length;
                let why = format!(
                    "it tells {marked} blocks of this writer, and no more than {length} are whole and signed; \
                     nothing was changed, and nothing can be appended to it"
                );
                return Err(StoreError::damaged(self.slot, FileKind::Bitfield, why));
            }
            before -= 1;
        }
        Ok(())
    }

    /// Cuts signatures past the length.
    pub(super) fn cut_signatures<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        let end = signature_offset(self.length);
        let mut files = Files { storage, slot: self.slot };
        if files.len(FileKind::Signatures)?.is_some_and(|len| len > end) {
            files.truncate(FileKind::Signatures, end)?;
        }
        Ok(())
    }

    /// Blocks that are marked while their leaves are not: a page was written in part, or `tree` ends too early.
    fn check_leaves<S: Storage + ?Sized>(&mut self, storage: &mut S, report: &mut Recovered) -> Result<(), StoreError> {
        let mut from = 0;
        while let Some(block) = self.bitfield.next_without_leaf(from) {
            from = block + 1;
            if block < self.length && self.regain_leaf(storage, block)? {
                continue;
            }
            report.blocks_unmarked += u64::from(self.bitfield.set(block, false));
            if self.writable() && block < self.length {
                self.find_signed_length(storage, block)?;
            }
        }
        Ok(())
    }

    /// Finds a leaf in `tree`, or makes it again from its block, where what is held above and beside it proves it.
    fn regain_leaf<S: Storage + ?Sized>(&mut self, storage: &mut S, block: u64) -> Result<bool, StoreError> {
        let index = 2 * block;
        let Some(parent) = self.marked_node(storage, flat::parent(index))? else { return Ok(false) };
        let Some(sibling) = self.find_node(storage, flat::sibling(index))? else { return Ok(false) };
        let Some(size) = parent.size.checked_sub(sibling.size) else { return Ok(false) };
        let hash = match self.find_node(storage, index)? {
            Some(leaf) => leaf.hash,
            None if size > 2 * MAX_MESSAGE_BYTES as u64 => return Ok(false),
            None => {
                let Ok(offset) = self.offset_of(storage, block, Cursor::default()) else { return Ok(false) };
                match self.read_block(storage, offset, size, false) {
                    Ok(block) => merkle::leaf_hash(&block),
                    Err(StoreError::Damaged { .. }) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
        };
        let leaf = Node { index, hash, size };
        let (left, right) = if index < sibling.index { (&leaf, &sibling) } else { (&sibling, &leaf) };
        if merkle::parent(left, right).as_ref() != Some(&parent) {
            return Ok(false);
        }
        for node in [leaf, sibling] {
            self.staged.put_node(&node);
            self.bitfield.set_node(node.index);
        }
        Ok(true)
    }

    /// Unmarks what lies past the length, and makes sure that the last block held is there: then those before it are.
    fn check_tail<S: Storage + ?Sized>(&mut self, storage: &mut S, report: &mut Recovered) -> Result<(), StoreError> {
        let data_len = Files { storage, slot: self.slot }.len(FileKind::Data)?.unwrap_or(0);
        let mut end = u64::MAX;
        loop {
            let (blocks, nodes) = self.forget_after(self.length);
            report.blocks_unmarked += blocks;
            report.nodes_unmarked += nodes;
            let Some(last) = self.bitfield.last_held(end.min(self.length)) else { return Ok(()) };
            end = last;
            match self.state_of(storage, last, data_len)? {
                State::Whole => return Ok(()),
                State::SaysNothing => {}
                State::Missing if self.writable() => self.find_signed_length(storage, last)?,
                State::Missing => {
                    self.bitfield.set(last, false);
                    report.blocks_unmarked += 1;
                    if self.find_node(storage, 2 * last)?.is_none() {
                        report.nodes_unmarked += u64::from(self.bitfield.clear_node(2 * last));
                    }
                }
            }
        }
    }

    fn set_roots(&mut self, roots: Vec<Node>) {
        self.length = roots.last().map_or(0, |last| flat::right_span(last.index) / 2 + 1);
        self.byte_length = roots.iter().map(|root| root.size).sum();
        self.roots = roots;
        self.read_cursor = Cursor::default();
    }

    /// Unmarks the nodes past the end of `tree`.
    fn unmark_nodes_from(&mut self, nodes: u64) -> u64 {
        let end = self.bitfield.nodes_end();
        let mut from = nodes;
        let mut unmarked = 0;
        while let Some(node) = self.bitfield.next_node(from, end) {
            unmarked += u64::from(self.bitfield.clear_node(node));
            from = node + 1;
        }
        unmarked
    }

    /// A node over two pages of the bitfield is marked in the first of them, which may be the one that was not written.
    fn mark_parents_between_pages<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        const PAGE_NODES: u64 = 2048 * 8;
        for page in 1..self.bitfield.nodes_end() / PAGE_NODES {
            let node = page * PAGE_NODES - 1;
            let both =
                flat::children(node).is_some_and(|(left, right)| self.bitfield.node(left) && self.bitfield.node(right));
            if both && !self.bitfield.node(node) && self.find_node(storage, node)?.is_some() {
                self.bitfield.set_node(node);
            }
        }
        Ok(())
    }

    /// The roots of a length, where all are there and the signature of that length is theirs.
    fn signed_roots<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        length: u64,
    ) -> Result<Option<Vec<Node>>, StoreError> {
        let Some(roots) = self.roots_of(storage, length)? else { return Ok(None) };
        if length == 0 {
            return Ok(Some(roots));
        }
        let root_hash = merkle::root_hash(&roots);
        let valid = match self.signature(storage, length)? {
            Some(signature) => self.signature_is_valid(&root_hash, length, &signature),
            // An unsigned feed of JS's.
            None => root_hash == *self.key.as_bytes(),
        };
        Ok(valid.then_some(roots))
    }

    fn roots_of<S: Storage + ?Sized>(&mut self, storage: &mut S, length: u64) -> Result<Option<Vec<Node>>, StoreError> {
        if length > MAX_FEED_BLOCKS {
            return Ok(None);
        }
        let mut roots = Vec::new();
        let mut bytes = 0u64;
        for root in flat::full_roots(length) {
            let node = if self.bitfield.node(root) { self.find_node(storage, root)? } else { None };
            let Some(node) = node else { return Ok(None) };
            bytes = bytes.saturating_add(node.size);
            roots.push(node);
        }
        Ok((bytes <= MAX_FEED_BYTES).then_some(roots))
    }

    /// Takes the greatest length up to this one that is signed and whose roots are there.
    fn find_signed_length<S: Storage + ?Sized>(&mut self, storage: &mut S, most: u64) -> Result<(), StoreError> {
        let mut files = Files { storage, slot: self.slot };
        let stored = files.len(FileKind::Signatures)?.unwrap_or(0).saturating_sub(HEADER as u64) / SIGNATURE as u64;
        let mut end = most.min(stored);
        let mut buffer = vec![0; SIGNATURES_AT_ONCE as usize * SIGNATURE];
        while end > 0 {
            let start = end.saturating_sub(SIGNATURES_AT_ONCE);
            let buffer = &mut buffer[..(end - start) as usize * SIGNATURE];
            let count =
                Files { storage, slot: self.slot }.read(FileKind::Signatures, signature_offset(start), buffer)?;
            for (position, signature) in buffer[..count].chunks_exact(SIGNATURE).enumerate().rev() {
                if signature.iter().all(|byte| *byte == 0) {
                    continue;
                }
                if let Some(roots) = self.signed_roots(storage, start + position as u64 + 1)? {
                    self.set_roots(roots);
                    return Ok(());
                }
            }
            end = start;
        }
        self.set_roots(Vec::new());
        Ok(())
    }

    /// Whether a block is in `data` as its leaf says, and the leaf under what is held above it.
    fn state_of<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        block: u64,
        data_len: u64,
    ) -> Result<State, StoreError> {
        let Some(leaf) = self.marked_node(storage, 2 * block)? else { return Ok(State::Missing) };
        let mut offset = 0u64;
        for root in flat::full_roots(block) {
            let Some(node) = self.marked_node(storage, root)? else { return Ok(State::Missing) };
            offset = offset.saturating_add(node.size);
        }
        if !self.has_block(storage, offset, &leaf)? || !self.is_under_held(storage, leaf)? {
            return Ok(State::Missing);
        }
        Ok(if leaf.size == 0 && offset > data_len { State::SaysNothing } else { State::Whole })
    }

    /// Whether the held nodes above a leaf are made of it.
    fn is_under_held<S: Storage + ?Sized>(&mut self, storage: &mut S, leaf: Node) -> Result<bool, StoreError> {
        let mut node = leaf;
        loop {
            let Some(parent) = self.marked_node(storage, flat::parent(node.index))? else { return Ok(true) };
            let Some(sibling) = self.marked_node(storage, flat::sibling(node.index))? else { return Ok(true) };
            let (left, right) = if node.index < sibling.index { (node, sibling) } else { (sibling, node) };
            if merkle::parent(&left, &right).as_ref() != Some(&parent) {
                return Ok(false);
            }
            node = parent;
        }
    }

    fn marked_node<S: Storage + ?Sized>(&mut self, storage: &mut S, node: u64) -> Result<Option<Node>, StoreError> {
        if self.bitfield.node(node) { self.find_node(storage, node) } else { Ok(None) }
    }

    /// Whether `data` has the leaf's block at this offset.
    fn has_block<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        offset: u64,
        leaf: &Node,
    ) -> Result<bool, StoreError> {
        if leaf.size > 2 * MAX_MESSAGE_BYTES as u64 {
            return Ok(false);
        }
        match self.read_block(storage, offset, leaf.size, false) {
            Ok(block) => Ok(merkle::leaf_hash(&block) == leaf.hash),
            Err(StoreError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes up blocks after the length of a writable feed that are in `data` and `tree`, as far as one of the signatures
    /// after it covers them. Only leaves are read, everything above them is computed again.
    fn regain<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<u64, StoreError> {
        let mut files = Files { storage, slot: self.slot };
        let stored = files.len(FileKind::Signatures)?.unwrap_or(0).saturating_sub(HEADER as u64) / SIGNATURE as u64;
        let start = self.length;
        let mut roots = self.roots.clone();
        let mut offset = self.byte_length;
        let mut pending = Vec::new();
        for block in start..stored.min(MAX_FEED_BLOCKS) {
            let Some(leaf) = self.nodes.get(storage, self.slot, 2 * block)? else { break };
            if leaf.size > MAX_FEED_BYTES - offset || !self.has_block(storage, offset, &leaf)? {
                break;
            }
            offset += leaf.size;
            climb(&mut roots, leaf, |node| pending.push(node));
            let Some(signature) = self.signature(storage, block + 1)? else { continue };
            if !self.signature_is_valid(&merkle::root_hash(&roots), block + 1, &signature) {
                continue;
            }
            for node in pending.drain(..) {
                self.staged.put_node(&node);
                self.bitfield.set_node(node.index);
            }
            for regained in self.length..=block {
                self.bitfield.set(regained, true);
            }
            self.set_roots(roots.clone());
        }
        Ok(self.length - start)
    }
}

/// Adds a leaf to the roots of the blocks before it; `made` is told the leaf, and each parent that comes to be.
fn climb(roots: &mut Vec<Node>, leaf: Node, mut made: impl FnMut(Node)) {
    let mut node = leaf;
    made(node);
    while let Some(left) = roots.last()
        && left.index == flat::sibling(node.index)
        && let Some(parent) = merkle::parent(left, &node)
    {
        roots.pop();
        made(parent);
        node = parent;
    }
    roots.push(node);
}

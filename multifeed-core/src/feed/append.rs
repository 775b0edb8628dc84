//! Appending blocks to a feed whose secret key is here.

use core::ops::Range;

use bytes::Bytes;
use multifeed_proto::Node;

use super::Feed;
use super::cache::{Window, encode};
use super::files::{Files, NODE, node_offset, signature_offset};
use crate::error::{AppendError, StoreError};
use crate::limits::{MAX_BLOCK_BYTES, MAX_FEED_BLOCKS, MAX_FEED_BYTES};
use crate::merkle::{self, index};
use crate::storage::{FileKind, Storage};

/// Blocks of a batch are written together up to this many bytes.
const MAX_WRITE: usize = 1 << 20;
/// Blocks of at least this size are written as they are, without a copy.
const MIN_DIRECT: usize = 32 * 1024;

impl Feed {
    /// Appends blocks as one batch, under one signature, and writes them: data, nodes, signature, then the bitfield. Returns
    /// the blocks' numbers.
    ///
    /// An empty block is a block. An empty batch changes nothing. What [`put`](Self::put) staged is flushed first.
    ///
    /// # Errors
    /// [`AppendError`], with the feed as it was before.
    pub fn append<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        blocks: &[Bytes],
    ) -> Result<Range<u64>, AppendError> {
        let Some(writer_key) = &self.writer_key else {
            return Err(AppendError::ReadOnly { key: self.key });
        };
        if let Some(older) = self.older_copy() {
            return Err(older.into());
        }
        let start = self.length;
        for (position, block) in blocks.iter().enumerate() {
            if block.len() > MAX_BLOCK_BYTES {
                return Err(AppendError::BlockTooLarge { position, size: block.len(), max: MAX_BLOCK_BYTES });
            }
        }
        let end = start.saturating_add(blocks.len() as u64);
        let bytes = blocks.iter().fold(self.byte_length, |sum, block| sum.saturating_add(block.len() as u64));
        if end > MAX_FEED_BLOCKS || bytes > MAX_FEED_BYTES {
            return Err(AppendError::FeedTooLong { blocks: end, bytes });
        }
        if blocks.is_empty() {
            return Ok(start..start);
        }

        let grown = Grown::new(&self.roots, start, blocks);
        let signature = writer_key.sign(self.slot, &merkle::signable(&merkle::root_hash(&grown.roots), end))?;
        self.flush(storage)?;
        if self.append_failed {
            self.cut_signatures(storage)?;
        }
        self.append_failed = true;
        self.write_batch(storage, blocks, &grown, &signature)?;
        for block in start..end {
            self.bitfield.set(block, true);
            self.bitfield.set_node(2 * block);
        }
        if let Err(error) = self.write_bitfield(storage) {
            // It was not appended. Should the page have reached the disk after all, opening the feed finds all of the
            // batch there, and signed.
            self.forget_after(start);
            return Err(error.into());
        }
        for (node, bytes) in grown.tree.chunks_exact(NODE).enumerate() {
            if let Ok(bytes) = bytes.try_into() {
                self.nodes.wrote(2 * start + node as u64, bytes);
            }
        }
        for node in &grown.left {
            self.nodes.wrote(node.index, &encode(node));
        }
        self.append_failed = false;
        self.window = Window::default();
        self.large.forget_ready();
        self.length = end;
        self.byte_length = bytes;
        self.roots = grown.roots;
        self.verified(end, &signature);
        Ok(start..end)
    }

    /// Takes what an append that failed left behind out of the files, before they count as whole. Opening the feed would find more in them than it
    /// has, and refuse it.
    ///
    /// # Errors
    /// The storage's error. The feed has to be looked at when it is opened then, as after a crash.
    pub(crate) fn undo_failed_append<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        if !self.append_failed {
            return Ok(());
        }
        // First the marks: one without its block would be damage.
        self.write_bitfield(storage)?;
        let ends = [
            (FileKind::Signatures, signature_offset(self.length)),
            (FileKind::Tree, node_offset((2 * self.length).saturating_sub(1))),
            (FileKind::Data, self.byte_length),
        ];
        let mut files = Files { storage, slot: self.slot };
        for (kind, end) in ends {
            if files.len(kind)?.is_some_and(|len| len > end) {
                files.truncate(kind, end)?;
            }
        }
        self.append_failed = false;
        Ok(())
    }

    fn write_batch<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        blocks: &[Bytes],
        grown: &Grown,
        signature: &[u8; 64],
    ) -> Result<(), StoreError> {
        let mut files = Files { storage, slot: self.slot };
        let mut offset = self.byte_length;
        let mut run = Vec::new();
        for block in blocks {
            let direct = block.len() >= MIN_DIRECT || blocks.len() == 1;
            if !run.is_empty() && (direct || run.len() + block.len() > MAX_WRITE) {
                files.write(FileKind::Data, offset, &run)?;
                offset += run.len() as u64;
                run.clear();
            }
            if direct && !block.is_empty() {
                files.write(FileKind::Data, offset, block)?;
                offset += block.len() as u64;
            } else {
                run.extend_from_slice(block);
            }
        }
        if !run.is_empty() || offset == 0 {
            // JS makes the file with the first append, empty or not.
            files.write(FileKind::Data, offset, &run)?;
        }
        files.write(FileKind::Tree, node_offset(2 * self.length), &grown.tree)?;
        for node in &grown.left {
            files.write(FileKind::Tree, node_offset(node.index), &encode(node))?;
        }
        let last = self.length + blocks.len() as u64 - 1;
        files.write(FileKind::Signatures, signature_offset(last), signature)
    }

    /// Unmarks all blocks from this length on, and all nodes that reach past it.
    pub(super) fn forget_after(&mut self, length: u64) -> (u64, u64) {
        let (mut blocks, mut nodes) = (0, 0);
        let end = self.bitfield.end();
        let mut from = length;
        while let Some(block) = self.bitfield.next_held(from, end) {
            blocks += u64::from(self.bitfield.set(block, false));
            from = block + 1;
        }
        let end = self.bitfield.nodes_end();
        let mut from = (2 * length).saturating_sub(1);
        while let Some(node) = self.bitfield.next_node(from, end) {
            nodes += u64::from(self.bitfield.clear_node(node));
            from = node + 1;
        }
        // Those that begin before the end and reach past it lie above the first block after it.
        let mut node = 2 * length;
        while node < 4 * MAX_FEED_BLOCKS {
            node = index::parent(node);
            if node < 2 * length {
                nodes += u64::from(self.bitfield.clear_node(node));
            }
        }
        (blocks, nodes)
    }
}

/// The tree after a batch.
struct Grown {
    /// What to write from node `2 * old length` on: 40 bytes each, zeros for a node whose last block is yet to come.
    tree: Vec<u8>,
    /// Finished nodes further left.
    left: Vec<Node>,
    roots: Vec<Node>,
}

impl Grown {
    fn new(roots: &[Node], start: u64, blocks: &[Bytes]) -> Self {
        let mut hashes = Vec::with_capacity(blocks.len());
        merkle::leaf_hashes(blocks.iter().map(|block| &block[..]), &mut hashes);
        let leaves = hashes.into_iter().zip(blocks).map(|(hash, block)| (hash, block.len() as u64));
        Self::from_leaves(roots, start, blocks.len(), leaves)
    }

    fn from_leaves(roots: &[Node], start: u64, count: usize, leaves: impl Iterator<Item = ([u8; 32], u64)>) -> Self {
        let first = 2 * start;
        let mut grown = Self { tree: vec![0; (2 * count - 1) * NODE], left: Vec::new(), roots: roots.to_vec() };
        for (number, (hash, size)) in leaves.enumerate() {
            let mut node = Node { index: first + 2 * number as u64, hash, size };
            grown.keep(first, &node);
            while let Some(left) = grown.roots.last()
                && left.index == index::sibling(node.index)
                && let Some(parent) = merkle::parent(left, &node)
            {
                grown.roots.pop();
                node = parent;
                grown.keep(first, &node);
            }
            grown.roots.push(node);
        }
        grown
    }

    fn keep(&mut self, first: u64, node: &Node) {
        match node.index.checked_sub(first) {
            Some(position) => {
                let at = position as usize * NODE;
                self.tree[at..at + NODE].copy_from_slice(&encode(node));
            }
            None => self.left.push(*node),
        }
    }
}

//! What was verified and not written yet, and writing it.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use multifeed_proto::Node;

use super::Feed;
use super::cache::{Window, encode};
use super::files::{Files, NODE, SIGNATURE, node_offset, signature_offset};
use crate::error::StoreError;
use crate::sets::sparse_bits::SparseBits;
use crate::storage::{FileKind, Storage};

/// Blocks below this size are gathered, so that a run of them is one write and none pins the buffer it came in.
const GATHERED: usize = 16 * 1024;
/// A run of gathered blocks is no longer than this.
const MAX_RUN: usize = 1 << 20;

/// Verified blocks, nodes and signatures on their way to the files. The feed's own calls find what is in here; remotes are
/// [shown](Feed::serves) no block of it.
#[derive(Debug, Default)]
pub(super) struct Staged {
    /// By flat-tree index: hash and size.
    nodes: BTreeMap<u64, ([u8; 32], u64)>,
    /// By length less one.
    signatures: BTreeMap<u64, [u8; SIGNATURE]>,
    /// By offset in `data`.
    data: BTreeMap<u64, Chunk>,
    /// The blocks, by number; nothing of a feed that rests.
    blocks: Option<Box<StagedBlocks>>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct StagedBlocks {
    numbers: SparseBits,
    /// A block of no bytes is among them: `data` must be there all the same, or JS can't read that block.
    has_empty: bool,
}

#[derive(Debug)]
enum Chunk {
    Run(Vec<u8>),
    Block(Bytes),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Run(bytes) => bytes,
            Chunk::Block(bytes) => bytes,
        }
    }
}

impl Staged {
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.signatures.is_empty() && self.blocks.is_none()
    }

    pub(super) fn has_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    pub(super) fn node(&self, index: u64) -> Option<Node> {
        self.nodes.get(&index).map(|(hash, size)| Node { index, hash: *hash, size: *size })
    }

    /// The nodes, by index.
    pub(super) fn nodes(&self) -> impl Iterator<Item = u64> {
        self.nodes.keys().copied()
    }

    pub(super) fn put_node(&mut self, node: &Node) {
        if self.nodes.insert(node.index, (node.hash, node.size)).is_none() {
            self.bytes += NODE;
        }
    }

    pub(super) fn signature(&self, position: u64) -> Option<[u8; SIGNATURE]> {
        self.signatures.get(&position).copied()
    }

    /// The first position from this one on that has a signature.
    pub(super) fn next_signature(&self, from: u64) -> Option<u64> {
        self.signatures.range(from..).next().map(|(position, _)| *position)
    }

    pub(super) fn put_signature(&mut self, position: u64, signature: [u8; SIGNATURE]) {
        if self.signatures.insert(position, signature).is_none() {
            self.bytes += SIGNATURE;
        }
    }

    pub(super) fn block(&self, offset: u64, size: usize) -> Option<Bytes> {
        let (start, chunk) = self.data.range(..=offset).next_back()?;
        let start = usize::try_from(offset - start).ok()?;
        match chunk {
            Chunk::Run(bytes) => bytes.get(start..start.checked_add(size)?).map(Bytes::copy_from_slice),
            Chunk::Block(bytes) => (start == 0 && bytes.len() == size).then(|| bytes.clone()),
        }
    }

    /// Of the 64 blocks from `64 * number` on, those that are in here, the first in the most significant bit.
    pub(super) fn word(&self, number: u64) -> u64 {
        self.blocks.as_ref().map_or(0, |blocks| blocks.numbers.word(number))
    }

    /// How many blocks are in here.
    pub(super) fn count(&self) -> u64 {
        self.blocks.as_ref().map_or(0, |blocks| blocks.numbers.count())
    }

    /// The first block of a range that is in here.
    pub(super) fn next_block(&self, range: Range<u64>) -> Option<u64> {
        self.blocks.as_ref()?.numbers.first_in(range, None)
    }

    /// The first block from `index` on that is not in here, `end` at the most.
    pub(super) fn run_end(&self, index: u64, end: u64) -> u64 {
        self.blocks.as_ref().map_or(index, |blocks| blocks.numbers.run_end(index, end))
    }

    fn has_empty_block(&self) -> bool {
        self.blocks.as_ref().is_some_and(|blocks| blocks.has_empty)
    }

    pub(super) fn put_block(&mut self, index: u64, offset: u64, block: &Bytes) {
        let blocks = self.blocks.get_or_insert_default();
        blocks.numbers.insert(index);
        blocks.has_empty |= block.is_empty();
        if block.is_empty() {
            return;
        }
        self.bytes += block.len();
        if block.len() >= GATHERED {
            self.data.insert(offset, Chunk::Block(block.clone()));
            return;
        }
        if let Some((start, Chunk::Run(run))) = self.data.range_mut(..offset).next_back()
            && *start + run.len() as u64 == offset
            && run.len() + block.len() <= MAX_RUN
        {
            run.extend_from_slice(block);
            return;
        }
        self.data.insert(offset, Chunk::Run(block.to_vec()));
    }
}

impl Feed {
    /// Returns about how much memory waits for [`flush`](Self::flush), in bytes.
    pub fn staged_bytes(&self) -> usize {
        self.staged.bytes
    }

    /// Returns whether anything waits for [`flush`](Self::flush).
    pub fn is_staged(&self) -> bool {
        !self.staged.is_empty() || (self.bitfield.is_dirty() && !self.is_untouched())
    }

    /// Writes what was staged: blocks, nodes, signatures, and last the bitfield that says they are there. Neighbours go
    /// in one write.
    ///
    /// # Errors
    /// The storage's error. All stays staged then, and the next call tries again.
    pub fn flush<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        let mut files = Files { storage, slot: self.slot };
        if self.is_untouched() {
            return Ok(());
        }
        self.untouched = false;
        if !self.staged.is_empty() {
            if self.staged.has_empty_block() && files.len(FileKind::Data)?.is_none() {
                files.write(FileKind::Data, 0, &[])?;
            }
            for (offset, chunk) in &self.staged.data {
                files.write(FileKind::Data, *offset, chunk.bytes())?;
            }
            write_runs(
                &mut files,
                FileKind::Tree,
                node_offset,
                self.staged
                    .nodes
                    .iter()
                    .map(|(index, (hash, size))| (*index, encode(&Node { index: *index, hash: *hash, size: *size }))),
            )?;
            let signatures = self.staged.signatures.iter().map(|(position, signature)| (*position, *signature));
            write_runs(&mut files, FileKind::Signatures, signature_offset, signatures)?;
        }
        self.write_bitfield(storage)?;
        let staged = std::mem::take(&mut self.staged);
        for (index, (hash, size)) in staged.nodes {
            self.nodes.wrote(index, &encode(&Node { index, hash, size }));
        }
        if !staged.data.is_empty() {
            // It may have been read before these blocks were there.
            self.window = Window::default();
            self.large.forget_ready();
        }
        Ok(())
    }

    /// Writes the pages of the bitfield that changed.
    pub(super) fn write_bitfield<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        if !self.bitfield.is_dirty() {
            return Ok(());
        }
        let mut files = Files { storage, slot: self.slot };
        let size = self.bitfield.page_bytes() as u64;
        for number in self.bitfield.dirty_pages() {
            let Some(page) = self.bitfield.page_as_stored(number) else { continue };
            files.write(FileKind::Bitfield, super::files::HEADER as u64 + number as u64 * size, &page)?;
        }
        self.bitfield.mark_clean();
        Ok(())
    }
}

/// Writes entries in ascending order, neighbours together.
fn write_runs<S: Storage + ?Sized, const N: usize>(
    files: &mut Files<'_, S>,
    kind: FileKind,
    offset_of: fn(u64) -> u64,
    entries: impl Iterator<Item = (u64, [u8; N])>,
) -> Result<(), StoreError> {
    let mut run: Vec<u8> = Vec::new();
    let mut first = 0;
    for (position, entry) in entries {
        if !run.is_empty() && (position != first + (run.len() / N) as u64 || run.len() >= MAX_RUN) {
            files.write(kind, offset_of(first), &run)?;
            run.clear();
        }
        if run.is_empty() {
            first = position;
        }
        run.extend_from_slice(&entry);
    }
    if run.is_empty() { Ok(()) } else { files.write(kind, offset_of(first), &run) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_where_they_are_staged() {
        let mut staged = Staged::default();
        staged.put_block(5, 100, &Bytes::from_static(b"abc"));
        staged.put_block(6, 103, &Bytes::from_static(b"de"));
        staged.put_block(7, 105, &Bytes::from(vec![1; GATHERED]));
        staged.put_block(1, 10, &Bytes::from_static(b"x"));
        assert_eq!(staged.data.len(), 3);
        assert_eq!(staged.block(103, 2).unwrap(), "de");
        assert_eq!(staged.block(100, 3).unwrap(), "abc");
        assert_eq!(staged.block(105, GATHERED).unwrap().len(), GATHERED);
        assert_eq!(staged.block(10, 1).unwrap(), "x");
        assert_eq!(staged.block(11, 1), None);
        assert_eq!(staged.block(99, 1), None);
        assert_eq!(staged.block(104, 2), None);
    }
}

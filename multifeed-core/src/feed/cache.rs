//! What was read from `tree` and `data` and may be wanted again.

use bytes::Bytes;
use multifeed_proto::Node;

use super::{Files, HEADER, NODE, node_offset};
use crate::error::StoreError;
use crate::storage::{FileKind, Slot, Storage};

/// Nodes that are read at once: neighbours are wanted together.
const PAGE_NODES: u64 = 128;
/// Pages that are kept: a proof's path touches one on each high level.
const MAX_PAGES: usize = 32;

/// Pages of `tree`.
#[derive(Debug, Default)]
pub(super) struct NodeCache {
    pages: Vec<Page>,
    /// Where the last one was found.
    last: usize,
    clock: u64,
}

#[derive(Debug)]
struct Page {
    number: u64,
    /// As far as the file went.
    bytes: Vec<u8>,
    used: u64,
}

impl NodeCache {
    pub(super) fn get<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        slot: Slot,
        index: u64,
    ) -> Result<Option<Node>, StoreError> {
        let number = index / PAGE_NODES;
        let position = match self.position(number) {
            Some(position) => position,
            None => self.load(storage, slot, number)?,
        };
        let within = (index % PAGE_NODES) as usize * NODE;
        let Some(page) = self.pages.get(position) else { return Ok(None) };
        Ok(page.bytes.get(within..within + NODE).and_then(|bytes| decode(index, bytes)))
    }

    /// A node was written to the file.
    pub(super) fn wrote(&mut self, index: u64, node: &[u8; NODE]) {
        let Some(position) = self.position(index / PAGE_NODES) else { return };
        let within = (index % PAGE_NODES) as usize * NODE;
        let Some(page) = self.pages.get_mut(position) else { return };
        if page.bytes.len() < within + NODE {
            page.bytes.resize(within + NODE, 0);
        }
        page.bytes[within..within + NODE].copy_from_slice(node);
    }

    fn position(&mut self, number: u64) -> Option<usize> {
        self.clock += 1;
        let found = match self.pages.get(self.last) {
            Some(page) if page.number == number => self.last,
            _ => self.pages.iter().position(|page| page.number == number)?,
        };
        self.last = found;
        self.pages[found].used = self.clock;
        Some(found)
    }

    fn load<S: Storage + ?Sized>(&mut self, storage: &mut S, slot: Slot, number: u64) -> Result<usize, StoreError> {
        let mut bytes = vec![0; PAGE_NODES as usize * NODE];
        let count = Files { storage, slot }.read(FileKind::Tree, node_offset(number * PAGE_NODES), &mut bytes)?;
        bytes.truncate(count);
        if count < PAGE_NODES as usize * NODE {
            bytes.shrink_to_fit();
        }
        let page = Page { number, bytes, used: self.clock };
        let oldest = self.pages.iter().enumerate().min_by_key(|(_, page)| page.used).map(|(position, _)| position);
        self.last = match oldest {
            Some(oldest) if self.pages.len() >= MAX_PAGES => {
                self.pages[oldest] = page;
                oldest
            }
            _ => {
                self.pages.push(page);
                self.pages.len() - 1
            }
        };
        Ok(self.last)
    }
}

/// A node as it stands in the file; all zeros is none.
fn decode(index: u64, bytes: &[u8]) -> Option<Node> {
    let (hash, size) = bytes.split_at_checked(32)?;
    let node = Node { index, hash: hash.try_into().ok()?, size: u64::from_be_bytes(size.try_into().ok()?) };
    (node.size != 0 || node.hash != [0; 32]).then_some(node)
}

/// A node as it stands in the file.
pub(super) fn encode(node: &Node) -> [u8; NODE] {
    let mut bytes = [0; NODE];
    bytes[..32].copy_from_slice(&node.hash);
    bytes[32..].copy_from_slice(&node.size.to_be_bytes());
    bytes
}

/// A stretch of `data` that was read ahead of blocks read in order.
#[derive(Debug, Default)]
pub(super) struct Window {
    start: u64,
    bytes: Bytes,
}

impl Window {
    pub(super) fn new(start: u64, bytes: Bytes) -> Self {
        Self { start, bytes }
    }

    pub(super) fn get(&self, offset: u64, size: usize) -> Option<Bytes> {
        let start = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let end = start.checked_add(size)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}

const _: () = assert!(HEADER == 32 && NODE == 40);

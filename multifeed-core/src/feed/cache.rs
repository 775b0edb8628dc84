//! What was read from `tree` and `data` and may be wanted again, and what of it was checked.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use multifeed_proto::Node;

use super::files::{Files, HEADER, NODE, node_offset};
use crate::error::StoreError;
use crate::storage::{FileKind, Slot, Storage};

/// Nodes that are read at once: neighbours are wanted together.
pub(super) const PAGE_NODES: u64 = 128;
/// Pages that are kept.
const MAX_PAGES: usize = 32;
/// Nodes that are kept of those at the top of a page's tree and above: all of 130,000 blocks. JS readers ask in random order. Of each path one page has the
/// lowest six levels, and every other level is in a page of its own.
const MAX_ABOVE: usize = 4096;
/// Blocks of a window that are known to be checked.
const MAX_CHECKED: usize = 1024;

/// Pages of `tree`.
#[derive(Debug, Default)]
pub(super) struct NodeCache {
    pages: Vec<Page>,
    /// Where pages were found last, by the lowest bits of their numbers.
    places: [u8; 8],
    clock: u64,
    /// Nodes above the pages that were read by themselves, and whether each was proven since.
    above: BTreeMap<u64, (Node, bool)>,
}

#[derive(Debug)]
struct Page {
    number: u64,
    /// As far as the file went.
    bytes: Vec<u8>,
    used: u64,
    /// A bit for each node that was proven up to a root, as it is in `bytes`.
    proven: [u64; 2],
    /// Whether nodes in or near it do not fit each other, if that was looked for.
    misfits: Option<bool>,
}

impl Page {
    fn is_proven(&self, index: u64) -> bool {
        self.proven[half(index)] >> (index % 64) & 1 == 1
    }

    fn prove(&mut self, index: u64) {
        self.proven[half(index)] |= 1 << (index % 64);
    }
}

impl NodeCache {
    pub(super) fn get<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        slot: Slot,
        index: u64,
    ) -> Result<Option<Node>, StoreError> {
        Ok(self.get_checked(storage, slot, index)?.map(|(node, _)| node))
    }

    /// A node, and whether it was proven since it was read.
    pub(super) fn get_checked<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        slot: Slot,
        index: u64,
    ) -> Result<Option<(Node, bool)>, StoreError> {
        let number = index / PAGE_NODES;
        let position = match self.position(number) {
            Some(position) => position,
            None if is_above(index) => return self.get_above(storage, slot, index),
            None => match self.load(storage, slot, number) {
                // What lies beside a bad sector can be read by itself, and is not kept.
                Err(error) if error.is_of_one_place() => return read_alone(storage, slot, index),
                loaded => loaded?,
            },
        };
        let within = (index % PAGE_NODES) as usize * NODE;
        let Some(page) = self.pages.get(position) else { return Ok(None) };
        let node = page.bytes.get(within..within + NODE).and_then(|bytes| decode(index, bytes));
        Ok(node.map(|node| (node, page.is_proven(index))))
    }

    /// A node above the pages, without its page: those beside it there are seldom wanted with it.
    fn get_above<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        slot: Slot,
        index: u64,
    ) -> Result<Option<(Node, bool)>, StoreError> {
        if let Some(&found) = self.above.get(&index) {
            return Ok(Some(found));
        }
        let read = read_alone(storage, slot, index)?;
        if let Some(read) = read {
            if self.above.len() >= MAX_ABOVE {
                self.above.clear();
            }
            self.above.insert(index, read);
        }
        Ok(read)
    }

    /// What is kept of a node above the pages.
    fn above_mut(&mut self, index: u64) -> Option<&mut (Node, bool)> {
        if is_above(index) { self.above.get_mut(&index) } else { None }
    }

    /// A node that is here and was proven.
    pub(super) fn get_proven(&mut self, index: u64) -> Option<Node> {
        let Some(position) = self.position(index / PAGE_NODES) else {
            return self.above_mut(index).filter(|(_, proven)| *proven).map(|(node, _)| *node);
        };
        let page = self.pages.get(position).filter(|page| page.is_proven(index))?;
        let within = (index % PAGE_NODES) as usize * NODE;
        decode(index, page.bytes.get(within..within + NODE)?)
    }

    /// Notes that a node was proven, if it is still here.
    pub(super) fn proved(&mut self, index: u64) {
        if let Some((_, proven)) = self.above_mut(index) {
            *proven = true;
        }
        if let Some(position) = self.position(index / PAGE_NODES)
            && let Some(page) = self.pages.get_mut(position)
        {
            page.prove(index);
        }
    }

    /// Whether nodes near one do not fit each other, if that was looked for since it was read.
    pub(super) fn misfits_near(&mut self, index: u64) -> Option<bool> {
        let position = self.position(index / PAGE_NODES)?;
        self.pages.get(position)?.misfits
    }

    pub(super) fn note_misfits(&mut self, index: u64, found: bool) {
        if let Some(position) = self.position(index / PAGE_NODES)
            && let Some(page) = self.pages.get_mut(position)
        {
            page.misfits = Some(found);
        }
    }

    /// A node was written to the file. It was proven before.
    pub(super) fn wrote(&mut self, index: u64, node: &[u8; NODE]) {
        if let (Some(kept), Some(written)) = (self.above_mut(index), decode(index, node)) {
            *kept = (written, true);
        }
        let Some(position) = self.position(index / PAGE_NODES) else { return };
        let within = (index % PAGE_NODES) as usize * NODE;
        let Some(page) = self.pages.get_mut(position) else { return };
        if page.bytes.len() < within + NODE {
            page.bytes.resize(within + NODE, 0);
        }
        page.bytes[within..within + NODE].copy_from_slice(node);
        page.prove(index);
    }

    fn position(&mut self, number: u64) -> Option<usize> {
        self.clock += 1;
        let place = &mut self.places[(number % 8) as usize];
        let found = match self.pages.get(usize::from(*place)) {
            Some(page) if page.number == number => usize::from(*place),
            _ => self.pages.iter().position(|page| page.number == number)?,
        };
        *place = found as u8;
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
        let page = Page { number, bytes, used: self.clock, proven: [0; 2], misfits: None };
        let oldest = self.pages.iter().enumerate().min_by_key(|(_, page)| page.used).map(|(position, _)| position);
        match oldest {
            Some(oldest) if self.pages.len() >= MAX_PAGES => {
                self.pages[oldest] = page;
                Ok(oldest)
            }
            _ => {
                self.pages.push(page);
                Ok(self.pages.len() - 1)
            }
        }
    }
}

/// Whether a node is the top of a page's tree, which is wanted beside the one of the next page, or above it.
fn is_above(index: u64) -> bool {
    index % (PAGE_NODES / 2) == PAGE_NODES / 2 - 1
}

/// Reads one node without its neighbours.
pub(super) fn read_alone<S: Storage + ?Sized>(
    storage: &mut S,
    slot: Slot,
    index: u64,
) -> Result<Option<(Node, bool)>, StoreError> {
    let mut bytes = [0; NODE];
    let count = Files { storage, slot }.read(FileKind::Tree, node_offset(index), &mut bytes)?;
    Ok(decode(index, &bytes[..count]).map(|node| (node, false)))
}

/// Which half of its page's set a node is in.
fn half(index: u64) -> usize {
    (index % PAGE_NODES / 64) as usize
}

/// A node as it stands in the file; all zeros is none.
pub(super) fn decode(index: u64, bytes: &[u8]) -> Option<Node> {
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

/// A stretch of `data` that was read ahead of blocks read in order, and which blocks of it have the hashes of their leaves.
///
/// A feed that rests has none.
#[derive(Debug, Default)]
pub(super) struct Window(Option<Box<Stretch>>);

#[derive(Debug, Default)]
struct Stretch {
    start: u64,
    bytes: Bytes,
    /// The offset in `bytes` of the first block that was checked, and its number.
    checked_from: usize,
    first: u64,
    /// The ends of it and of those after it that were checked.
    ends: Vec<usize>,
}

impl Window {
    pub(super) fn new(start: u64, bytes: Bytes) -> Self {
        Self(Some(Box::new(Stretch { start, bytes, ..Stretch::default() })))
    }

    pub(super) fn get(&self, offset: u64, size: usize) -> Option<Bytes> {
        let stretch = self.0.as_ref()?;
        Some(stretch.bytes.slice(stretch.within(offset, size)?))
    }

    /// A block that was checked, and the offset of its end in `data`.
    pub(super) fn checked(&self, block: u64) -> Option<(Bytes, u64)> {
        let stretch = self.0.as_ref()?;
        let number = usize::try_from(block.checked_sub(stretch.first)?).ok()?;
        let end = *stretch.ends.get(number)?;
        let start = number.checked_sub(1).map_or(stretch.checked_from, |before| stretch.ends[before]);
        Some((stretch.bytes.slice(start..end), stretch.start + end as u64))
    }

    /// Whether a block was checked.
    pub(super) fn has_checked(&self, block: u64) -> bool {
        self.0.as_ref().is_some_and(|stretch| {
            block.checked_sub(stretch.first).is_some_and(|number| number < stretch.ends.len() as u64)
        })
    }

    /// Whether the block before this one was the last that was checked.
    pub(super) fn follows(&self, block: u64) -> bool {
        self.0.as_ref().is_some_and(|stretch| stretch.follows(block))
    }

    /// Notes that a block was checked, at this offset in `data`.
    pub(super) fn check(&mut self, block: u64, offset: u64, size: usize) {
        if let Some(stretch) = &mut self.0 {
            stretch.check(block, offset, size);
        }
    }
}

impl Stretch {
    fn follows(&self, block: u64) -> bool {
        !self.ends.is_empty() && block == self.first + self.ends.len() as u64
    }

    fn check(&mut self, block: u64, offset: u64, size: usize) {
        let Some(Range { start, end }) = self.within(offset, size) else { return };
        let next = self.ends.last() == Some(&start) && self.follows(block);
        if !next || self.ends.len() >= MAX_CHECKED {
            self.ends.clear();
            (self.first, self.checked_from) = (block, start);
        }
        self.ends.push(end);
    }

    fn within(&self, offset: u64, size: usize) -> Option<Range<usize>> {
        let start = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let end = start.checked_add(size)?;
        (end <= self.bytes.len()).then_some(start..end)
    }
}

const _: () = assert!(HEADER == 32 && NODE == 40);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{FileId, MemoryStorage};

    #[test]
    fn what_was_checked_is_found_by_its_number() {
        let mut window = Window::new(100, Bytes::from_static(b"abcdefgh"));
        window.check(7, 102, 2);
        window.check(8, 104, 0);
        window.check(9, 104, 3);
        // Past the end of what was read.
        window.check(10, 107, 2);
        let checked = |window: &Window| (6..=11).map(|block| window.checked(block)).collect::<Vec<_>>();
        let block = |bytes: &'static [u8], end| Some((Bytes::from_static(bytes), end));
        assert_eq!(checked(&window), [None, block(b"cd", 104), block(b"", 104), block(b"efg", 107), None, None]);
        // One that does not follow begins anew, also if only the number or only the place does not.
        window.check(11, 107, 1);
        assert_eq!(checked(&window), [None, None, None, None, None, block(b"h", 108)]);
        window.check(6, 100, 1);
        window.check(7, 102, 1);
        assert_eq!(checked(&window), [None, block(b"c", 103), None, None, None, None]);
        for block in 8..8 + 2 * MAX_CHECKED as u64 {
            window.check(block, 103, 0);
            assert!(window.checked(block).is_some() && window.0.as_ref().unwrap().ends.len() <= MAX_CHECKED);
        }
    }

    #[test]
    fn a_page_that_is_read_again_is_not_proven() {
        let (mut disk, mut cache) = (MemoryStorage::new(), NodeCache::default());
        let file = FileId::new(Slot(0), FileKind::Tree);
        disk.write_at(file, HEADER as u64, &[1; NODE * PAGE_NODES as usize * (MAX_PAGES + 1)]).unwrap();
        let mut read = |cache: &mut NodeCache, index| cache.get_checked(&mut disk, Slot(0), index).unwrap().unwrap().1;
        assert!(!read(&mut cache, 3) && !read(&mut cache, 130));
        cache.proved(3);
        assert!(read(&mut cache, 3) && !read(&mut cache, 4) && !read(&mut cache, 131));
        cache.wrote(4, &[2; NODE]);
        assert!(read(&mut cache, 4));
        for page in 1..=MAX_PAGES as u64 {
            read(&mut cache, page * PAGE_NODES);
        }
        // It is not here any more.
        cache.proved(5);
        assert!(!read(&mut cache, 3) && !read(&mut cache, 4) && !read(&mut cache, 5));
    }

    #[test]
    fn nodes_above_the_pages_outlast_them() {
        let (mut disk, mut cache) = (MemoryStorage::new(), NodeCache::default());
        let file = FileId::new(Slot(0), FileKind::Tree);
        let nodes = PAGE_NODES * 2 * MAX_PAGES as u64;
        disk.write_at(file, HEADER as u64, &vec![1; NODE * nodes as usize]).unwrap();
        let last = |page: u64| page * PAGE_NODES + PAGE_NODES - 1;
        for page in 0..2 * MAX_PAGES as u64 {
            assert!(cache.get_checked(&mut disk, Slot(0), last(page)).unwrap().is_some_and(|(_, proven)| !proven));
            cache.proved(last(page));
        }
        assert!(cache.pages.is_empty());
        // Pages come and go.
        (0..2 * MAX_PAGES as u64).for_each(|page| _ = cache.get(&mut disk, Slot(0), page * PAGE_NODES).unwrap());
        assert!(cache.get_proven(last(0)).is_some());
        // What is written is found there, and what rots on the disk is not.
        cache.wrote(last(0), &[2; NODE]);
        disk.write_at(file, node_offset(last(0)), &[3; NODE]).unwrap();
        assert_eq!(
            cache.get_checked(&mut disk, Slot(0), last(0)).unwrap(),
            decode(last(0), &[2; NODE]).map(|node| (node, true))
        );
        // No more are kept than so many.
        let many = PAGE_NODES * (MAX_ABOVE as u64 + 10);
        disk.write_at(file, node_offset(many), &[1; NODE]).unwrap();
        for page in 0..MAX_ABOVE as u64 + 10 {
            disk.write_at(file, node_offset(last(page)), &[1; NODE]).unwrap();
            cache.get(&mut disk, Slot(0), last(page)).unwrap();
            assert!(cache.above.len() <= MAX_ABOVE);
        }
    }
}

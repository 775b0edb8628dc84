//! Which blocks and tree nodes of a feed are held, paged as hypercore 9 keeps them in `bitfield`.
//!
//! A page is 1024 bytes of block bits, 2048 of node bits, and an index over the block bits (512 in today's stores); bits are
//! most significant first. In memory only what is neither all zeros nor all ones takes room, and a page that holds nothing is not there. A feed
//! that is long by its writer's word alone costs what is held of it.

mod holes;
mod index;
mod marks;
mod page;
pub mod rle;

use std::collections::BTreeSet;

use crate::limits::MAX_FEED_BLOCKS;
use crate::merkle::{HeldNodes, index as flat};
pub(crate) use marks::Marks;
use page::{MAX_PAGE_BYTES, Page};

/// The size of the pages that JS writes today.
pub const DEFAULT_PAGE_BYTES: usize = DATA_BYTES + TREE_BYTES + 512;

const DATA_BYTES: usize = 1024;
const TREE_BYTES: usize = 2048;
/// Blocks that a page tells of.
const BLOCKS: u64 = DATA_BYTES as u64 * 8;
const NODES: u64 = TREE_BYTES as u64 * 8;

/// Which blocks of a feed are held; inside the crate, also which nodes.
#[derive(Debug, Clone)]
pub struct Bitfield {
    /// Those that hold anything, by number, ascending.
    pages: Vec<(u32, Page)>,
    /// How many there are, with those that hold nothing.
    page_count: u64,
    page_bytes: usize,
    /// Numbers of the pages that changed since they were last written.
    dirty: BTreeSet<u32>,
    count: u64,
    /// JS's idea of a part's length in bytes: whole pages when a feed is opened, then the last byte written. Its
    /// index depends on it.
    data_len: u64,
    index_len: u64,
}

/// The three parts of a page.
#[derive(Debug, Clone, Copy)]
enum Part {
    Data,
    Tree,
    Index,
}

impl Bitfield {
    /// Makes a bitfield in which no block is held.
    pub fn new() -> Self {
        Self::with_page_bytes(DEFAULT_PAGE_BYTES)
    }

    fn with_page_bytes(page_bytes: usize) -> Self {
        Self {
            pages: Vec::new(),
            page_count: 0,
            page_bytes,
            dirty: BTreeSet::new(),
            count: 0,
            data_len: 0,
            index_len: 0,
        }
    }

    /// Whether pages can have this size: beside block and node bits, an index whose size is a power of two, at most 1024 bytes (JS
    /// has written 256 and 512).
    pub(crate) fn is_page_size(page_bytes: usize) -> bool {
        let index = page_bytes.checked_sub(DATA_BYTES + TREE_BYTES);
        page_bytes <= MAX_PAGE_BYTES && index.is_some_and(usize::is_power_of_two)
    }

    /// The bitfield of a file of so many pages, before any was taken up.
    pub(crate) fn load(page_bytes: usize, pages: u64) -> Self {
        debug_assert!(Self::is_page_size(page_bytes) && pages <= MAX_FEED_BLOCKS / BLOCKS);
        let mut bitfield = Self::with_page_bytes(page_bytes);
        bitfield.page_count = pages;
        bitfield.data_len = pages * DATA_BYTES as u64;
        bitfield.index_len = pages * bitfield.index_bytes() as u64;
        bitfield
    }

    /// Takes up a page of the file, after those before it; one that was cut short is taken as far as it goes.
    pub(crate) fn load_page(&mut self, number: u64, stored: &[u8]) {
        let stored = stored.get(..self.page_bytes).unwrap_or(stored);
        let number = u32::try_from(number).ok().filter(|number| u64::from(*number) < self.page_count);
        let page = Page::new(stored);
        if let (Some(number), false) = (number, page.is_empty()) {
            debug_assert!(self.pages.last().is_none_or(|(last, _)| *last < number));
            let (words, rest) = stored[..stored.len().min(DATA_BYTES)].as_chunks();
            let words = words.iter().map(|word| u64::from_ne_bytes(*word).count_ones());
            self.count += words.chain(rest.iter().map(|byte| byte.count_ones())).map(u64::from).sum::<u64>();
            self.pages.push((number, page));
        }
    }

    /// Returns whether a block is held.
    pub fn get(&self, block: u64) -> bool {
        self.bit(Part::Data, block)
    }

    /// Returns how many blocks are held.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns a number past every block that is held, a multiple of 8192.
    pub fn end(&self) -> u64 {
        self.page_count * BLOCKS
    }

    /// Returns the 64 blocks from `64 * number` on, the first in the most significant bit.
    pub fn word(&self, number: u64) -> u64 {
        self.word_of(Part::Data, number)
    }

    /// Returns the first block in `from..to` that is not held.
    pub fn next_missing(&self, from: u64, to: u64) -> Option<u64> {
        self.scan(Part::Data, from, to, true)
    }

    /// Returns the first block in `from..to` that is held.
    pub fn next_held(&self, from: u64, to: u64) -> Option<u64> {
        self.scan(Part::Data, from, to.min(self.end()), false)
    }

    /// Returns the last block before `end` that is held.
    pub fn last_held(&self, end: u64) -> Option<u64> {
        let mut end = end.min(self.end());
        while end > 0 {
            let number = (end - 1) / BLOCKS;
            let first = number * BLOCKS;
            let place = match self.place_of(number) {
                Ok(place) => place,
                Err(place) => {
                    end = place.checked_sub(1).map_or(0, |before| (u64::from(self.pages[before].0) + 1) * BLOCKS);
                    continue;
                }
            };
            let bytes = (end - first).div_ceil(8) as usize;
            let Some(bytes) = self.pages[place].1.end_before(bytes) else {
                end = first;
                continue;
            };
            end = end.min(first + bytes as u64 * 8);
            let number = (end - 1) / 64;
            let word = self.word(number) & !u64::MAX.checked_shr((end - number * 64) as u32).unwrap_or(0);
            if word != 0 {
                return Some(number * 64 + 63 - u64::from(word.trailing_zeros()));
            }
            end = number * 64;
        }
        None
    }

    /// How many blocks of a range are held.
    pub(crate) fn count_in(&self, range: std::ops::Range<u64>) -> u64 {
        let mut count = 0;
        let mut at = range.start;
        while let Some(held) = self.next_held(at, range.end) {
            let within = self.word(held / 64) & (u64::MAX >> (held % 64));
            let past = (held / 64 + 1).saturating_mul(64).saturating_sub(range.end).min(63);
            count += u64::from((within >> past).count_ones());
            at = (held / 64 + 1).saturating_mul(64);
        }
        count
    }

    /// Returns the run-length encoded bits of a range, as a Have answers a Want of it: JS's very bytes. Both numbers are taken
    /// as multiples of 8, as a Want's are; length 0 from 0 on is the whole.
    ///
    /// A range in which nothing is held gives no bytes.
    pub fn rle_range(&self, start: u64, length: u64) -> Vec<u8> {
        self.rle_range_of(start, length, |_, byte| byte)
    }

    /// As [`rle_range`](Self::rle_range), of what `shown` leaves of each byte that is not zero, whose number it is given.
    pub(crate) fn rle_range_of(&self, start: u64, length: u64, shown: impl Fn(u64, u8) -> u8) -> Vec<u8> {
        let first = start / 8;
        let last = if start == 0 && length == 0 { u64::MAX } else { start.saturating_add(length).div_ceil(8) };
        let last = last.min(self.end() / 8);
        let mut encoder = rle::Encoder::default();
        let mut at = first;
        let place = self.place_of(first / DATA_BYTES as u64).unwrap_or_else(|next| next);
        for (number, page) in &self.pages[place..] {
            let page_start = u64::from(*number) * DATA_BYTES as u64;
            if page_start >= last {
                break;
            }
            let (from, to) = (page_start.max(first), last.min(page_start + DATA_BYTES as u64));
            encoder.push(0, from - at);
            let bytes = page.bytes((from - page_start) as usize..(to - page_start) as usize);
            for (number, byte) in (from..).zip(bytes) {
                encoder.push(if byte == 0 { 0 } else { shown(number, byte) }, 1);
            }
            at = to;
        }
        encoder.finish()
    }

    /// Marks a block held or not. Returns whether that changed anything.
    pub(crate) fn set(&mut self, block: u64, held: bool) -> bool {
        if !held && self.page(block / BLOCKS).is_none() {
            // As in JS, pages up to this one then count; how far its index reaches depends on that.
            self.page_count = self.page_count.max(block / BLOCKS + 1);
            return false;
        }
        let Some(byte) = self.set_bit(Part::Data, block, held) else { return false };
        if held {
            self.count += 1;
        } else {
            self.count -= 1;
        }
        self.update_index(block / 8, byte);
        true
    }

    /// Whether a tree node is held.
    pub(crate) fn node(&self, node: u64) -> bool {
        self.bit(Part::Tree, node)
    }

    /// The 64 nodes from `64 * number` on, the first in the most significant bit.
    pub(crate) fn word_of_nodes(&self, number: u64) -> u64 {
        self.word_of(Part::Tree, number)
    }

    /// Marks a node held, and each parent whose two children then are.
    pub(crate) fn set_node(&mut self, node: u64) {
        let mut node = node;
        while self.set_node_bit(node, true) && self.node(flat::sibling(node)) {
            node = flat::parent(node);
        }
    }

    pub(crate) fn clear_node(&mut self, node: u64) -> bool {
        self.page(node / NODES).is_some() && self.set_node_bit(node, false)
    }

    /// The first block from this one on that is held while its leaf is not: a page was written in part.
    pub(crate) fn next_without_leaf(&self, from: u64) -> Option<u64> {
        let mut block = from;
        while let Some(held) = self.next_held(block, self.end()) {
            let number = held / 64;
            let blocks = self.word(number) & (u64::MAX >> (held % 64));
            let leaves = |half: u64| evens(self.word_of(Part::Tree, 2 * number + half));
            let missing = blocks & !(leaves(0) << 32 | leaves(1));
            if missing != 0 {
                return Some(number * 64 + u64::from(missing.leading_zeros()));
            }
            block = (number + 1) * 64;
        }
        None
    }

    /// The first node in `from..to` that is held.
    pub(crate) fn next_node(&self, from: u64, to: u64) -> Option<u64> {
        self.scan(Part::Tree, from, to.min(self.nodes_end()), false)
    }

    /// A position past every node that is held: whole pages.
    pub(crate) fn nodes_end(&self) -> u64 {
        self.page_count * NODES
    }

    /// The size of a page, and of the header's entry.
    pub(crate) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// The pages that changed since they were last written, last ones first.
    pub(crate) fn dirty_pages(&self) -> impl Iterator<Item = usize> {
        self.dirty.iter().rev().map(|number| *number as usize)
    }

    /// A page as it stands in the file.
    pub(crate) fn page_as_stored(&self, number: usize) -> Option<Vec<u8>> {
        self.page(number as u64).map(|page| page.bytes(0..self.page_bytes))
    }

    /// Every changed page was written.
    pub(crate) fn mark_clean(&mut self) {
        self.dirty.clear();
    }

    /// Gives back memory that is kept for what may come.
    pub(crate) fn shrink(&mut self) {
        let dirty = &self.dirty;
        self.pages.retain(|(number, page)| !page.is_empty() || dirty.contains(number));
        self.pages.shrink_to_fit();
        self.pages.iter_mut().for_each(|(_, page)| page.shrink());
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The pages that hold anything.
    pub(crate) fn marks(&self) -> Marks {
        let held = |page: &Page| rle::encode(&page.bytes(0..self.page_bytes));
        Marks::new(self.pages.iter().filter(|(_, page)| !page.is_empty()).map(|(number, page)| (*number, held(page))))
    }

    /// Takes up all pages of the file, of which these are known to be those that hold anything. False if they cannot be.
    pub(crate) fn load_marks(&mut self, marks: &Marks) -> bool {
        marks.iter().all(|(number, page)| {
            let is_next =
                self.pages.last().is_none_or(|(last, _)| *last < number) && u64::from(number) < self.page_count;
            if !is_next {
                return false;
            }
            // Most pages of a feed that is long by claim alone hold a node or two.
            if let Some((places, bytes)) = rle::few(page, self.page_bytes) {
                let blocks = places.iter().zip(bytes).filter(|(place, _)| usize::from(**place) < DATA_BYTES);
                self.count += blocks.map(|(_, byte)| u64::from(byte.count_ones())).sum::<u64>();
                self.pages.push((number, Page::of_few(places, bytes)));
                return true;
            }
            let page = rle::decode(page, self.page_bytes);
            page.map(|page| self.load_page(number.into(), &page)).is_ok()
        })
    }

    /// Unmarks all blocks and nodes that are not in `marks` too.
    pub(crate) fn keep_only(&mut self, marks: &Marks) {
        let numbers: Vec<u32> = self.pages.iter().map(|(number, _)| *number).collect();
        let mut marks = marks.iter().peekable();
        for number in numbers {
            let Some(page) = self.page(number.into()) else { continue };
            while marks.next_if(|(before, _)| *before < number).is_some() {}
            let kept = marks.next_if(|(same, _)| *same == number);
            let kept = kept.and_then(|(_, marks)| rle::decode(marks, MAX_PAGE_BYTES).ok()).unwrap_or_default();
            let lost = |(at, byte): (usize, &u8)| (at, byte & !kept.get(at).copied().unwrap_or(0));
            let bytes = page.bytes(0..DATA_BYTES + TREE_BYTES);
            let number = u64::from(number);
            let lost: Vec<(usize, u8)> = bytes.iter().enumerate().map(lost).filter(|(_, bits)| *bits != 0).collect();
            for (at, bits) in lost {
                for bit in (0..8).filter(|bit| bits & (128 >> bit) != 0) {
                    match at.checked_sub(DATA_BYTES) {
                        None => self.set(number * BLOCKS + at as u64 * 8 + bit, false),
                        Some(at) => self.clear_node(number * NODES + at as u64 * 8 + bit),
                    };
                }
            }
        }
    }

    /// The nodes that stand over two pages or more and may have children that are held: those are in other pages than the node is.
    pub(crate) fn nodes_over_pages(&self) -> BTreeSet<u64> {
        let first = |number: &u32| u64::from(*number) * NODES;
        let highest = self.pages.iter().flat_map(|(number, _)| [NODES / 2, NODES].map(|end| first(number) + end - 1));
        highest.map(flat::parent).collect()
    }

    /// Marks a node held, and nothing above it.
    pub(crate) fn set_node_alone(&mut self, node: u64) {
        self.set_node_bit(node, true);
    }

    /// Takes the pages that are as they were in `before`, and not to be written there, for written.
    pub(crate) fn forget_unchanged(&mut self, before: &Bitfield) {
        let dirty = std::mem::take(&mut self.dirty);
        let changed = |number: &u32| match (self.page((*number).into()), before.page((*number).into())) {
            (Some(page), Some(old)) => before.dirty.contains(number) || page != old,
            _ => true,
        };
        self.dirty = dirty.into_iter().filter(changed).collect();
    }

    fn set_node_bit(&mut self, node: u64, held: bool) -> bool {
        self.set_bit(Part::Tree, node, held).is_some()
    }

    fn index_bytes(&self) -> usize {
        self.page_bytes - DATA_BYTES - TREE_BYTES
    }

    /// Returns the offset of a part in a page, and its size there.
    #[inline(always)]
    fn place(&self, part: Part) -> (usize, usize) {
        match part {
            Part::Data => (0, DATA_BYTES),
            Part::Tree => (DATA_BYTES, TREE_BYTES),
            Part::Index => (DATA_BYTES + TREE_BYTES, self.index_bytes()),
        }
    }

    #[inline]
    fn page(&self, number: u64) -> Option<&Page> {
        self.place_of(number).ok().map(|place| &self.pages[place].1)
    }

    /// Returns the position of a page among those that hold anything, or else the one that it would have.
    #[inline]
    fn place_of(&self, number: u64) -> Result<usize, usize> {
        // In a feed without great holes it stands where its number says, and never after that.
        let guess = usize::try_from(number).unwrap_or(usize::MAX);
        match self.pages.get(guess) {
            Some((there, _)) if u64::from(*there) == number => Ok(guess),
            _ => self.search(number, guess),
        }
    }

    #[cold]
    fn search(&self, number: u64, guess: usize) -> Result<usize, usize> {
        let before = &self.pages[..guess.min(self.pages.len())];
        before.binary_search_by_key(&number, |(number, _)| u64::from(*number))
    }

    #[inline(always)]
    fn bit(&self, part: Part, number: u64) -> bool {
        self.byte(part, number / 8) & (128 >> (number % 8)) != 0
    }

    // With the part known there are no divisions in it: it runs tens of times for each block.
    #[inline(always)]
    fn byte(&self, part: Part, at: u64) -> u8 {
        let (start, size) = self.place(part);
        let Some(page) = self.page(at / size as u64) else { return 0 };
        page.get(start + (at % size as u64) as usize)
    }

    /// Writes a byte of a part, whose callers bound `at` by the feed's largest length. Returns whether it changed.
    #[inline(always)]
    fn set_byte(&mut self, part: Part, at: u64, byte: u8) -> bool {
        self.change_byte(part, at, |_| byte).is_some()
    }

    /// Writes a bit of a part, as [`set_byte`](Self::set_byte) a byte. Returns its byte if that changed.
    #[inline(always)]
    fn set_bit(&mut self, part: Part, number: u64, held: bool) -> Option<u8> {
        let mask = 128 >> (number % 8);
        self.change_byte(part, number / 8, |byte| if held { byte | mask } else { byte & !mask })
    }

    #[inline(always)]
    fn change_byte(&mut self, part: Part, at: u64, change: impl FnOnce(u8) -> u8) -> Option<u8> {
        let (start, size) = self.place(part);
        let (number, within) = (at / size as u64, start + (at % size as u64) as usize);
        self.page_count = self.page_count.max(number + 1);
        let (place, byte) = match self.place_of(number) {
            Ok(place) => (place, change(self.pages[place].1.get(within))),
            Err(place) => {
                let byte = change(0);
                if byte == 0 {
                    return None;
                }
                self.pages.insert(place, (number as u32, Page::new(&[])));
                (place, byte)
            }
        };
        let (number, page) = &mut self.pages[place];
        if !page.set(within, byte) {
            return None;
        }
        self.dirty.insert(*number);
        let len = match part {
            Part::Data => &mut self.data_len,
            Part::Tree => return Some(byte),
            Part::Index => &mut self.index_len,
        };
        *len = (*len).max(at + 1);
        Some(byte)
    }

    fn word_of(&self, part: Part, number: u64) -> u64 {
        let (start, size) = self.place(part);
        let per_page = (size / 8) as u64;
        let Some(page) = self.page(number / per_page) else { return 0 };
        page.word(start + (number % per_page) as usize * 8)
    }

    /// The first bit in `from..to` that is set, or with `unset` the first that is not.
    fn scan(&self, part: Part, from: u64, to: u64, unset: bool) -> Option<u64> {
        let (start, size) = self.place(part);
        let per_page = size as u64 * 8;
        let skipped = if unset { 0xff } else { 0 };
        let mut at = from;
        while at < to {
            let (number, within) = (at / per_page, (at % per_page) as usize / 8);
            let after = number.saturating_add(1).saturating_mul(per_page);
            let next = match self.place_of(number) {
                Ok(place) => self.pages[place].1.next_besides(skipped, start + within..start + size),
                Err(_) if unset => Some(start + within),
                Err(place) => {
                    at = u64::from(self.pages.get(place)?.0) * per_page;
                    continue;
                }
            };
            let Some(next) = next else {
                at = after;
                continue;
            };
            at = at.max(number * per_page + (next - start) as u64 * 8);
            let word = self.word_of(part, at / 64);
            let word = (if unset { !word } else { word }) & (u64::MAX >> (at % 64));
            if word != 0 {
                let found = at / 64 * 64 + u64::from(word.leading_zeros());
                return (found < to).then_some(found);
            }
            at = (at / 64 + 1).saturating_mul(64);
        }
        None
    }
}

/// Every other bit of a word, from the most significant one on, moved together into the low half.
fn evens(word: u64) -> u64 {
    let mut bits = word >> 1 & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    bits
}

impl Default for Bitfield {
    fn default() -> Self {
        Self::new()
    }
}

impl HeldNodes for Bitfield {
    fn holds(&self, node: u64) -> bool {
        self.node(node)
    }

    fn word(&self, number: u64) -> u64 {
        self.word_of_nodes(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn load(stored: &[u8]) -> Bitfield {
        let pages = stored.chunks(DEFAULT_PAGE_BYTES);
        let mut bitfield = Bitfield::load(DEFAULT_PAGE_BYTES, pages.len() as u64);
        for (number, page) in (0..).zip(pages) {
            bitfield.load_page(number, page);
        }
        bitfield
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_blocks(
            steps in prop::collection::vec((0u64..40_000, any::<bool>(), 1u64..100), 1..40),
            from in 0u64..40_000,
            length in 0u64..40_000,
        ) {
            let mut bitfield = Bitfield::new();
            let mut model = BTreeSet::new();
            for (start, held, count) in steps {
                for block in start..start + count {
                    let changed = if held { model.insert(block) } else { model.remove(&block) };
                    prop_assert_eq!(bitfield.set(block, held), changed);
                }
            }
            let to = from + length;
            prop_assert_eq!(bitfield.count(), model.len() as u64);
            prop_assert_eq!(bitfield.next_held(from, to), model.range(from..to).next().copied());
            prop_assert_eq!(bitfield.last_held(to), model.range(..to).next_back().copied());
            let missing = (from..to).find(|block| !model.contains(block));
            prop_assert_eq!(bitfield.next_missing(from, to), missing);
            for block in from..to.min(from + 200) {
                prop_assert_eq!(bitfield.get(block), model.contains(&block));
                prop_assert_eq!(bitfield.word(block / 64) << (block % 64) >> 63 == 1, model.contains(&block));
            }
            // What is stored is what is loaded.
            let mut stored = vec![0; bitfield.page_count as usize * bitfield.page_bytes()];
            for page in bitfield.dirty_pages() {
                let at = page * bitfield.page_bytes();
                stored[at..at + bitfield.page_bytes()].copy_from_slice(&bitfield.page_as_stored(page).unwrap());
            }
            let loaded = load(&stored);
            prop_assert_eq!(loaded.count(), bitfield.count());
            prop_assert_eq!(loaded.rle_range(0, 0), bitfield.rle_range(0, 0));
            let start = from / 8 * 8;
            let range = bitfield.rle_range(start, 8192);
            let plain = rle::decode(&range, 1024).unwrap();
            for block in start..start + 8192 {
                let at = (block - start) as usize;
                let bit = plain.get(at / 8).is_some_and(|byte| byte & (128 >> (at % 8)) != 0);
                prop_assert_eq!(bit, model.contains(&block));
            }
        }
    }

    #[test]
    fn ten_million_blocks_take_next_to_no_memory() {
        const PAGES: u64 = 10_000_000 / BLOCKS;
        let full = [0xff; DEFAULT_PAGE_BYTES];
        let mut bitfield = Bitfield::load(DEFAULT_PAGE_BYTES, PAGES);
        let memory = allocation_counter::measure(|| (0..PAGES).for_each(|page| bitfield.load_page(page, &full)));
        assert_eq!(bitfield.count(), PAGES * BLOCKS);
        assert!(memory.bytes_max < 150_000, "{memory:?}");
        // Block after block, as they come, and some that are missing.
        let memory = allocation_counter::measure(|| {
            for block in bitfield.end()..bitfield.end() + 200_000 {
                bitfield.set(block, true);
                bitfield.set_node(2 * block);
                bitfield.mark_clean();
            }
        });
        assert!(memory.bytes_current < 40_000, "{memory:?}");
        let memory = allocation_counter::measure(|| (0..1000).for_each(|at| _ = bitfield.set(at * 9_999, false)));
        assert!(memory.bytes_current < 400_000, "{memory:?}");
        assert_eq!(bitfield.next_missing(9_999 * 7 + 1, u64::MAX), Some(9_999 * 8));
    }

    #[test]
    fn a_parent_follows_its_children() {
        let mut bitfield = Bitfield::new();
        for node in [0, 4, 6, 2] {
            bitfield.set_node(node);
        }
        let held: Vec<u64> = (0..16).filter(|node| bitfield.node(*node)).collect();
        assert_eq!(held, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(bitfield.next_node(4, 100), Some(4));
        assert_eq!(bitfield.next_node(7, 100), None);
    }

    #[test]
    fn blocks_without_leaves_are_found() {
        let mut bitfield = Bitfield::new();
        for block in 0..9000 {
            bitfield.set(block, true);
            bitfield.set_node(2 * block);
        }
        assert_eq!(bitfield.next_without_leaf(0), None);
        for block in [0, 31, 32, 63, 64, 8191, 8192, 8999] {
            bitfield.clear_node(2 * block);
            assert_eq!(bitfield.next_without_leaf(0), Some(block));
            assert_eq!(bitfield.next_without_leaf(block), Some(block));
            assert_eq!(bitfield.next_without_leaf(block + 1), None);
            bitfield.set_node(2 * block);
        }
    }

    #[test]
    fn a_range_past_the_end_is_empty() {
        let mut bitfield = Bitfield::new();
        assert!(bitfield.rle_range(0, 1 << 20).is_empty());
        bitfield.set(0, true);
        bitfield.set(1, true);
        bitfield.set(2, true);
        assert_eq!(bitfield.rle_range(0, 1 << 20), [2, 0xe0]);
        assert_eq!(bitfield.rle_range(0, 0), [2, 0xe0]);
        assert!(bitfield.rle_range(8192, 8192).is_empty());
        assert!(bitfield.rle_range(u64::MAX - 7, u64::MAX).is_empty());
    }

    #[test]
    fn a_short_page_is_taken_as_far_as_it_goes() {
        let bitfield = load(&[0xff; 10]);
        assert_eq!(bitfield.count(), 80);
        assert_eq!(bitfield.next_missing(0, 200), Some(80));
    }

    #[test]
    fn page_sizes_are_checked() {
        for (size, fits) in [
            (3584, true),
            (3328, true),
            (3073, true),
            (3072, false),
            (0, false),
            (3500, false),
            (4096, true),
            (5120, false),
        ] {
            assert_eq!(Bitfield::is_page_size(size), fits, "{size}");
        }
    }

    /// xorshift32, as in `interop/vectors/folders.js`.
    struct Random(u32);

    impl Random {
        fn below(&mut self, below: u32) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 17;
            self.0 ^= self.0 << 5;
            u64::from(self.0 % below)
        }
    }

    #[test]
    fn pages_and_ranges_are_jss_to_the_byte() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/bitfield.json")).unwrap();
        for case in vectors["bitfields"].as_array().unwrap() {
            let seed = case["seed"].as_u64().unwrap() as u32;
            let mut random = Random(seed);
            let mut bitfield = Bitfield::new();
            for _ in 0..40 {
                let start = random.below(40_000);
                let count = 1 + random.below(if seed % 2 == 1 { 20 } else { 3000 });
                let held = random.below(5) != 0;
                for block in start..start + count {
                    bitfield.set(block, held);
                }
            }
            for (number, page) in case["pages"].as_array().unwrap().iter().enumerate() {
                let ours = bitfield.page_as_stored(number);
                let ours = ours.map(|page| blake2b_simd::Params::new().hash_length(32).hash(&page).to_hex());
                assert_eq!(ours.as_deref(), page.as_str(), "seed {seed}, page {number}");
            }
            for range in case["ranges"].as_array().unwrap() {
                let ours = bitfield.rle_range(range[0].as_u64().unwrap(), range[1].as_u64().unwrap());
                assert_eq!(hex::encode(ours), range[2], "seed {seed}, {range}");
            }
        }
        for run in vectors["runs"].as_array().unwrap() {
            let [plain, encoded, decoded] = [0, 1, 2].map(|part| hex::decode(run[part].as_str().unwrap()).unwrap());
            assert_eq!(rle::encode(&plain), encoded);
            assert_eq!(rle::decode(&encoded, plain.len()).unwrap(), decoded);
        }
    }
}

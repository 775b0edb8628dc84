//! What is held of a bitfield, in little memory: for the journal, which keeps it of each feed.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{BLOCKS, Bitfield, DATA_BYTES, MAX_PAGE_BYTES, Page, TREE_BYTES, rle};

/// The blocks and nodes that are held, run-length encoded, for each page that has any, ascending.
///
/// They stand behind each other as the journal writes them: the page's number (u32), the size (u16), and so many bytes; numbers are little-endian.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marks(Box<[u8]>);

/// Bytes in front of those of a page.
const HEAD: usize = 4 + 2;

impl Marks {
    /// Of pages in ascending order; one of no bytes, or more than an entry has room for, is left out.
    pub(crate) fn new(pages: impl IntoIterator<Item = (u32, impl AsRef<[u8]>)>) -> Self {
        let mut bytes = Vec::new();
        for (number, page) in pages {
            let page = page.as_ref();
            let Some(size) = u16::try_from(page.len()).ok().filter(|size| *size > 0) else { continue };
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(page);
        }
        Self(bytes.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes they take in the journal.
    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (number, after) = rest.split_first_chunk()?;
            let (size, after) = after.split_first_chunk()?;
            let (page, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*size)))?;
            rest = after;
            Some((u32::from_le_bytes(*number), page))
        })
    }

    /// The pages that are other ones in `old`, or not there, and after them, with no bytes, those that are there alone.
    pub(crate) fn changes_since<'a>(&'a self, old: &'a Marks) -> Vec<(u32, &'a [u8])> {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        let mut was = old.iter().peekable();
        for (number, page) in self.iter() {
            while let Some((before, _)) = was.next_if(|(before, _)| *before < number) {
                gone.push((before, &[][..]));
            }
            let same = was.next_if(|(before, _)| *before == number).is_some_and(|(_, before)| before == page);
            if !same {
                changed.push((number, page));
            }
        }
        gone.extend(was.map(|(number, _)| (number, &[][..])));
        changed.append(&mut gone);
        changed
    }

    /// These with pages changed that stand behind each other in the same form, in any order; the last one of a number counts, and one of no bytes
    /// goes.
    pub(crate) fn merge(self, changes: Vec<u8>) -> Self {
        let changes = Marks(changes.into());
        let mut last = None;
        let mut is_next = |(number, page): (u32, &[u8])| !page.is_empty() && last.replace(number) < Some(number);
        if self.is_empty() && changes.iter().all(&mut is_next) {
            return changes;
        }
        let changes = changes.iter().collect();
        self.with(&changes)
    }

    /// These with some pages changed; those of no bytes go.
    pub(crate) fn with(&self, changes: &BTreeMap<u32, &[u8]>) -> Self {
        let mut pages = Vec::with_capacity(self.0.len() / HEAD + changes.len());
        let mut changes = changes.iter().peekable();
        for (number, page) in self.iter() {
            while let Some((before, page)) = changes.next_if(|(before, _)| **before < number) {
                pages.push((*before, *page));
            }
            pages.push(changes.next_if(|(same, _)| **same == number).map_or((number, page), |(_, new)| (number, *new)));
        }
        pages.extend(changes.map(|(number, page)| (*number, *page)));
        Self::new(pages)
    }
}

impl Bitfield {
    /// How many nodes are marked here and not there.
    pub(crate) fn nodes_besides(&self, other: &Bitfield) -> u64 {
        self.bits_besides(other, DATA_BYTES..DATA_BYTES + TREE_BYTES)
    }

    /// How many blocks are held here and not there.
    pub(crate) fn blocks_besides(&self, other: &Bitfield) -> u64 {
        self.bits_besides(other, 0..DATA_BYTES)
    }

    fn bits_besides(&self, other: &Bitfield, part: Range<usize>) -> u64 {
        let besides = |(number, page): &(u32, Page)| -> u64 {
            let theirs =
                other.page(u64::from(*number)).map_or_else(|| vec![0; part.len()], |page| page.bytes(part.clone()));
            let pairs = page.bytes(part.clone()).into_iter().zip(theirs);
            pairs.map(|(ours, theirs)| u64::from((ours & !theirs).count_ones())).sum()
        };
        self.pages.iter().map(besides).sum()
    }

    /// How many blocks of `marks` are not held here. Those are left out that are unmarked in `before` and have their leaf marked there: they were
    /// cleared.
    pub(crate) fn lost_of(&self, marks: &Marks, before: &Bitfield) -> u64 {
        let mut lost = 0;
        for (number, page) in marks.iter() {
            let Ok(page) = rle::decode(page, MAX_PAGE_BYTES) else { continue };
            for (at, byte) in page.iter().take(DATA_BYTES).enumerate().filter(|(_, byte)| **byte != 0) {
                let first = u64::from(number) * BLOCKS + at as u64 * 8;
                let held = (0..8).filter(|bit| byte & (128 >> bit) != 0).map(|bit| first + bit);
                let is_lost = |block: &u64| !self.get(*block) && (before.get(*block) || !before.node(2 * block));
                lost += held.filter(is_lost).count() as u64;
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pages() -> impl Strategy<Value = BTreeMap<u32, Vec<u8>>> {
        prop::collection::btree_map(0..20u32, prop::collection::vec(0..3u8, 1..4), 0..12)
    }

    proptest! {
        #[test]
        fn changes_lead_from_one_to_another(old in pages(), new in pages()) {
            let [before, after] = [&old, &new].map(|pages| Marks::new(pages.iter().map(|(number, page)| (*number, page))));
            let listed: BTreeMap<u32, Vec<u8>> = after.iter().map(|(number, page)| (number, page.to_vec())).collect();
            prop_assert_eq!(&listed, &new);
            prop_assert_eq!(after.is_empty(), new.is_empty());
            let changes = after.changes_since(&before);
            let differ = (0..20).filter(|number| old.get(number) != new.get(number)).count();
            prop_assert_eq!(changes.len(), differ);
            let changes: BTreeMap<u32, &[u8]> = changes.into_iter().collect();
            prop_assert_eq!(before.with(&changes), after.clone());
            let bytes = |changes: &BTreeMap<u32, &[u8]>| -> Vec<u8> {
                let pages = changes.iter().rev();
                pages.flat_map(|(number, page)| [&number.to_le_bytes()[..], &(page.len() as u16).to_le_bytes(), page].concat()).collect()
            };
            // What a page was in between counts no more.
            let between = listed.keys().map(|number| (*number, &b"between"[..])).collect();
            let after_it: BTreeMap<u32, &[u8]> = changes.into_iter().chain(after.iter()).collect();
            prop_assert_eq!(before.clone().merge([bytes(&between), bytes(&after_it)].concat()), after);
        }
    }
}

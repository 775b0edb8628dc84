//! A set of block indexes that costs memory only where it has members.

use std::collections::BTreeMap;

/// Words of a page: 512 bits, so that a lone member costs 64 bytes. A page of nothing but members costs none.
const PAGE_WORDS: usize = 8;
const PAGE_BITS: u64 = PAGE_WORDS as u64 * 64;

/// What a remote has, what is asked for, what a remote still lacks: sets of block indexes with few, clustered members.
///
/// Pages that become empty are dropped, so an idle set is one empty map; and runs of members cost no more than some 40 bytes for each
/// 512 of them.
#[derive(Debug, Default, Clone)]
pub(crate) struct SparseBits {
    pages: BTreeMap<u64, Page>,
    count: u64,
}

#[derive(Debug, Clone)]
enum Page {
    /// Some are members.
    Mixed(Box<[u64; PAGE_WORDS]>),
    /// All are.
    Full,
}

impl Page {
    fn word(&self, at: usize) -> u64 {
        match self {
            Self::Mixed(words) => words[at],
            Self::Full => u64::MAX,
        }
    }

    /// Changes a word, and gives it as it was.
    fn replace(&mut self, at: usize, members: u64) -> u64 {
        if let Self::Full = self {
            if members == u64::MAX {
                return members;
            }
            *self = Self::Mixed(Box::new([u64::MAX; PAGE_WORDS]));
        }
        let Self::Mixed(words) = self else { return u64::MAX };
        let before = std::mem::replace(&mut words[at], members);
        if members == u64::MAX && words.iter().all(|&word| word == u64::MAX) {
            *self = Self::Full;
        }
        before
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Mixed(words) if words.iter().all(|&word| word == 0))
    }
}

impl SparseBits {
    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.pages.clear();
        self.count = 0;
    }

    pub(crate) fn get(&self, index: u64) -> bool {
        self.word(index / 64) & bit(index) != 0
    }

    /// The 64 members from `64 * word` on, the first in the most significant bit, as in a bitfield.
    pub(crate) fn word(&self, word: u64) -> u64 {
        let (page, at) = (word / PAGE_WORDS as u64, (word % PAGE_WORDS as u64) as usize);
        self.pages.get(&page).map_or(0, |page| page.word(at))
    }

    /// Adds an index; false where it was a member already.
    pub(crate) fn insert(&mut self, index: u64) -> bool {
        let members = self.word(index / 64);
        self.set_word(index / 64, members | bit(index));
        members & bit(index) == 0
    }

    /// Takes an index out; false where it was none.
    pub(crate) fn remove(&mut self, index: u64) -> bool {
        let members = self.word(index / 64);
        self.set_word(index / 64, members & !bit(index));
        members & bit(index) != 0
    }

    /// Takes every index of `start..end` out, at a cost that follows the pages held and not the range.
    pub(crate) fn remove_range(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let pages = start / PAGE_BITS..=(end - 1) / PAGE_BITS;
        let mut empty = Vec::new();
        for (&number, page) in self.pages.range_mut(pages) {
            let first = number * PAGE_BITS;
            let (from, to) = (start.max(first), end.min(first.saturating_add(PAGE_BITS)));
            for (word, mask) in words_of(from, to) {
                let at = (word % PAGE_WORDS as u64) as usize;
                let members = page.word(at);
                self.count -= u64::from((members & mask).count_ones());
                page.replace(at, members & !mask);
            }
            if page.is_empty() {
                empty.push(number);
            }
        }
        for number in empty {
            self.pages.remove(&number);
        }
    }

    /// Sets the members among the 64 from `64 * word` on.
    pub(crate) fn set_word(&mut self, word: u64, members: u64) {
        let (number, at) = (word / PAGE_WORDS as u64, (word % PAGE_WORDS as u64) as usize);
        if members != 0 {
            let page = self.pages.entry(number).or_insert_with(|| Page::Mixed(Box::new([0; PAGE_WORDS])));
            let before = page.replace(at, members);
            self.count = self.count - u64::from(before.count_ones()) + u64::from(members.count_ones());
        } else if let Some(page) = self.pages.get_mut(&number) {
            let before = page.replace(at, 0);
            self.count -= u64::from(before.count_ones());
            if before != 0 && page.is_empty() {
                self.pages.remove(&number);
            }
        }
    }

    /// The lowest word number from `word` on that has a member.
    pub(crate) fn next_word(&self, word: u64) -> Option<u64> {
        let first = word / PAGE_WORDS as u64;
        for (&number, page) in self.pages.range(first..) {
            let skip = if number == first { (word % PAGE_WORDS as u64) as usize } else { 0 };
            if let Some(at) = (skip..PAGE_WORDS).find(|&at| page.word(at) != 0) {
                return Some(number * PAGE_WORDS as u64 + at as u64);
            }
        }
        None
    }

    /// The first member of a range that is not in `except` too.
    pub(crate) fn first_in(&self, range: std::ops::Range<u64>, except: Option<&SparseBits>) -> Option<u64> {
        let mut at = range.start / 64;
        while let Some(word) = self.next_word(at) {
            let first = word * 64;
            if first >= range.end {
                return None;
            }
            let (from, to) = (range.start.max(first), range.end.min(first.saturating_add(64)));
            let mask = words_of(from, to).next().map_or(0, |(_, mask)| mask);
            let free = self.word(word) & mask & !except.map_or(0, |except| except.word(word));
            if free != 0 {
                return Some(first + u64::from(free.leading_zeros()));
            }
            at = word + 1;
        }
        None
    }

    /// The first index from `index` on that is no member, `end` at the most.
    pub(crate) fn run_end(&self, index: u64, end: u64) -> u64 {
        let mut at = index;
        while at < end {
            let run = (self.word(at / 64) << (at % 64)).leading_ones();
            at = at.saturating_add(u64::from(run));
            if !at.is_multiple_of(64) || run == 0 {
                break;
            }
        }
        at.min(end)
    }

    /// The number of members.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

fn bit(index: u64) -> u64 {
    1 << (63 - index % 64)
}

/// The words that `start..end` touches, each with the mask of its members.
pub(crate) fn words_of(start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let words = if start < end { start / 64..(end - 1) / 64 + 1 } else { 0..0 };
    words.map(move |word| {
        let from = start.saturating_sub(word * 64).min(63);
        let to = (end - word * 64).min(64);
        (word, (u64::MAX >> from) & (u64::MAX << (64 - to)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn members(bits: &SparseBits) -> BTreeSet<u64> {
        let mut out = BTreeSet::new();
        let mut at = 0;
        while let Some(word) = bits.next_word(at) {
            out.extend((0..64).filter(|b| bits.word(word) >> (63 - b) & 1 == 1).map(|b| word * 64 + b));
            at = word + 1;
        }
        out
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(ops in prop::collection::vec((0..5u8, 0..9000u64, 0..5000u64), 1..60)) {
            let (mut bits, mut set) = (SparseBits::default(), BTreeSet::new());
            for (op, a, len) in ops {
                match op {
                    0 => prop_assert_eq!(bits.insert(a), set.insert(a)),
                    1 => prop_assert_eq!(bits.remove(a), set.remove(&a)),
                    2 => { for (word, mask) in words_of(a, a + len) { let had = bits.word(word); bits.set_word(word, had | mask); } set.extend(a..a + len); }
                    3 => { bits.remove_range(a, a + len); set.retain(|i| !(a..a + len).contains(i)); }
                    _ => {
                        bits.set_word(a / 64, len);
                        set.retain(|i| i / 64 != a / 64);
                        set.extend((0..64).filter(|b| len >> (63 - b) & 1 == 1).map(|b| a / 64 * 64 + b));
                    }
                }
                prop_assert_eq!(bits.get(a), set.contains(&a));
                prop_assert_eq!(bits.first_in(a..a + len, None), set.range(a..a + len).next().copied());
                let naive_end = (a..a + len).find(|index| !set.contains(index)).unwrap_or(a + len);
                prop_assert_eq!(bits.run_end(a, a + len), naive_end);
                let mut except = SparseBits::default();
                let naive = set.range(a..).copied().find(|&index| !(index % 3 == 0 && except.insert(index)));
                prop_assert_eq!(bits.first_in(a..u64::MAX, Some(&except)), naive);
            }
            prop_assert_eq!(bits.count(), set.len() as u64);
            prop_assert_eq!(bits.is_empty(), set.is_empty());
            prop_assert_eq!(members(&bits), set);
        }
    }

    #[test]
    fn indexes_at_the_end_of_u64_do_not_overflow() {
        let mut bits = SparseBits::default();
        assert!(bits.insert(u64::MAX));
        bits.insert(u64::MAX - 70);
        bits.remove_range(0, u64::MAX);
        assert_eq!(members_near_end(&bits), [u64::MAX]);
    }

    fn members_near_end(bits: &SparseBits) -> Vec<u64> {
        (u64::MAX - 128..=u64::MAX).filter(|&index| bits.get(index)).collect()
    }
}

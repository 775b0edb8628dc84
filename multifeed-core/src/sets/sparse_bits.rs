//! A set of block indexes that costs memory only around its members.

use std::collections::BTreeMap;

/// Words of a page: 512 bits, so that a lone member costs 64 bytes.
const PAGE_WORDS: usize = 8;
const PAGE_BITS: u64 = PAGE_WORDS as u64 * 64;

/// What a remote has, what is asked for, what a remote still lacks: sets of block indexes with few, clustered members.
///
/// Pages that become empty are dropped, so an idle set is one empty map. A run of members costs some 40 bytes however long it is. A remote
/// says in a few bytes that it has a million blocks.
#[derive(Debug, Default, Clone)]
pub(crate) struct SparseBits {
    /// By the number of the first page that it is about.
    pages: BTreeMap<u64, Page>,
    count: u64,
}

#[derive(Debug, Clone)]
enum Page {
    /// Some of one page are members.
    Mixed(Box<[u64; PAGE_WORDS]>),
    /// All of so many pages are; no run follows another at once.
    Full(u64),
}

impl Page {
    fn word(&self, at: usize) -> u64 {
        match self {
            Self::Mixed(words) => words[at],
            Self::Full(_) => u64::MAX,
        }
    }

    fn count(&self) -> u64 {
        match self {
            Self::Mixed(words) => words.iter().map(|word| u64::from(word.count_ones())).sum(),
            Self::Full(pages) => pages.saturating_mul(PAGE_BITS),
        }
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
        let (number, at) = place(word);
        // Most are asked for in a page of their own, or in a run from its first page on.
        match self.pages.get(&number) {
            Some(page) => page.word(at),
            None => self.page(number).map_or(0, |(_, page)| page.word(at)),
        }
    }

    /// The page with this number, or the run that has it, and the number of its first one.
    fn page(&self, number: u64) -> Option<(u64, &Page)> {
        let (&first, page) = self.pages.range(..=number).next_back()?;
        let has = match page {
            Page::Mixed(_) => first == number,
            Page::Full(pages) => number - first < *pages,
        };
        has.then_some((first, page))
    }

    /// Adds an index; false if it was a member already.
    pub(crate) fn insert(&mut self, index: u64) -> bool {
        let before = self.change_word(index / 64, |members| members | bit(index));
        before & bit(index) == 0
    }

    /// Takes an index out; false if it was none.
    pub(crate) fn remove(&mut self, index: u64) -> bool {
        let before = self.change_word(index / 64, |members| members & !bit(index));
        before & bit(index) != 0
    }

    /// Adds every index of `start..end`, at a cost that follows the pages held and not the range.
    pub(crate) fn insert_range(&mut self, start: u64, end: u64) {
        self.set_range(start, end, true);
    }

    /// Takes every index of `start..end` out, at a cost that follows the pages held and not the range.
    pub(crate) fn remove_range(&mut self, start: u64, end: u64) {
        if !self.is_empty() {
            self.set_range(start, end, false);
        }
    }

    /// Adds every index of another set, at a cost that follows the pages held.
    pub(crate) fn insert_all(&mut self, other: &Self) {
        self.set_all(other, true);
    }

    /// Takes every index of another set out, at a cost that follows the pages held.
    pub(crate) fn remove_all(&mut self, other: &Self) {
        if !self.is_empty() {
            self.set_all(other, false);
        }
    }

    fn set_all(&mut self, other: &Self, add: bool) {
        for (&number, page) in &other.pages {
            match page {
                Page::Full(pages) => self.set_range(number * PAGE_BITS, (number + pages) * PAGE_BITS, add),
                Page::Mixed(words) => {
                    for (word, &members) in (number * PAGE_WORDS as u64..).zip(words.iter()) {
                        self.change_word(word, |before| if add { before | members } else { before & !members });
                    }
                }
            }
        }
    }

    fn set_range(&mut self, start: u64, end: u64, members: bool) {
        if start >= end {
            return;
        }
        // Whole pages in the middle, and words of others at either end.
        let (first, last) = (start.div_ceil(PAGE_BITS), end / PAGE_BITS);
        let (before, after) =
            if first < last { (start..first * PAGE_BITS, last * PAGE_BITS..end) } else { (start..end, 0..0) };
        for range in [before, after] {
            for (word, mask) in words_of(range.start, range.end) {
                let old = self.word(word);
                self.set_word(word, if members { old | mask } else { old & !mask });
            }
        }
        if first >= last {
            return;
        }
        self.split(first);
        self.split(last);
        let gone: Vec<u64> = self.pages.range(first..last).map(|(number, _)| *number).collect();
        for number in gone {
            self.count -= self.pages.remove(&number).map_or(0, |page| page.count());
        }
        if members {
            self.count += (last - first) * PAGE_BITS;
            self.pages.insert(first, Page::Full(last - first));
            self.join(first);
        }
    }

    /// Parts a run in front of a page that is in it.
    fn split(&mut self, number: u64) {
        if let Some((first, Page::Full(pages))) = self.page(number)
            && first < number
        {
            let pages = *pages;
            self.pages.insert(first, Page::Full(number - first));
            self.pages.insert(number, Page::Full(pages - (number - first)));
        }
    }

    /// Makes one run of one that begins with a page and those that touch it.
    fn join(&mut self, number: u64) {
        let Some(&Page::Full(mut pages)) = self.pages.get(&number) else { return };
        if let Some(Page::Full(more)) = number.checked_add(pages).and_then(|next| self.pages.get(&next)) {
            let next = number + pages;
            pages += more;
            self.pages.remove(&next);
        }
        let mut first = number;
        if let Some((before, Page::Full(more))) = number.checked_sub(1).and_then(|before| self.page(before)) {
            (first, pages) = (before, pages + more);
            self.pages.remove(&number);
        }
        self.pages.insert(first, Page::Full(pages));
    }

    /// Sets the members among the 64 from `64 * word` on.
    pub(crate) fn set_word(&mut self, word: u64, members: u64) {
        self.change_word(word, |_| members);
    }

    /// Makes other ones of the members among the 64 from `64 * word` on. Returns what they were.
    fn change_word(&mut self, word: u64, change: impl FnOnce(u64) -> u64) -> u64 {
        let (number, at) = place(word);
        if let Some(Page::Mixed(words)) = self.pages.get_mut(&number) {
            let before = words[at];
            let members = change(before);
            words[at] = members;
            let uniform = matches!(members, 0 | u64::MAX) && words.iter().all(|&word| word == members);
            self.recount(before, members);
            if uniform && members == 0 {
                self.pages.remove(&number);
            } else if uniform {
                self.pages.insert(number, Page::Full(1));
                self.join(number);
            }
            return before;
        }
        let before = self.page(number).map_or(0, |(_, page)| page.word(at));
        let members = change(before);
        if members != before {
            self.recount(before, members);
            self.split(number);
            self.split(number + 1);
            let mut words = [before; PAGE_WORDS];
            words[at] = members;
            self.pages.insert(number, Page::Mixed(Box::new(words)));
        }
        before
    }

    fn recount(&mut self, before: u64, members: u64) {
        self.count = self.count - u64::from(before.count_ones()) + u64::from(members.count_ones());
    }

    /// The lowest word number from `word` on that has a member.
    pub(crate) fn next_word(&self, word: u64) -> Option<u64> {
        let number = word / PAGE_WORDS as u64;
        if self.word(word) != 0 {
            return Some(word);
        }
        for (&first, page) in self.pages.range(number..) {
            let skip = if first == number { (word % PAGE_WORDS as u64) as usize } else { 0 };
            if let Some(at) = (skip..PAGE_WORDS).find(|&at| page.word(at) != 0) {
                return Some(first * PAGE_WORDS as u64 + at as u64);
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
            if let Some((run, Page::Full(pages))) = except.and_then(|except| except.page(word / PAGE_WORDS as u64)) {
                at = (run + pages).saturating_mul(PAGE_WORDS as u64);
                continue;
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
            if let Some((first, Page::Full(pages))) = self.page(at / PAGE_BITS) {
                at = first.saturating_add(*pages).saturating_mul(PAGE_BITS);
                continue;
            }
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

/// The number of a word's page, and its place in it.
fn place(word: u64) -> (u64, usize) {
    (word / PAGE_WORDS as u64, (word % PAGE_WORDS as u64) as usize)
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
        fn behaves_as_a_set(ops in prop::collection::vec((0..6u8, 0..9000u64, 0..5000u64), 1..60)) {
            let (mut bits, mut set) = (SparseBits::default(), BTreeSet::new());
            for (op, a, len) in ops {
                match op {
                    0 => prop_assert_eq!(bits.insert(a), set.insert(a)),
                    1 => prop_assert_eq!(bits.remove(a), set.remove(&a)),
                    2 => { for (word, mask) in words_of(a, a + len) { let had = bits.word(word); bits.set_word(word, had | mask); } set.extend(a..a + len); }
                    4 => { bits.insert_range(a, a + len); set.extend(a..a + len); }
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
            let runs: Vec<_> = bits.pages.iter().collect();
            let joined = |pair: &[(&u64, &Page)]| matches!(pair, [(a, Page::Full(n)), (b, Page::Full(_))] if **a + n >= **b);
            prop_assert!(!runs.windows(2).any(joined), "{runs:?}");
        }
    }

    #[test]
    fn a_run_costs_no_more_the_longer_it_is() {
        let mut bits = SparseBits::default();
        let memory = allocation_counter::measure(|| bits.insert_range(3, 1 << 60));
        assert!(memory.bytes_current < 1000 && memory.bytes_max < 1000, "{memory:?}");
        assert_eq!((bits.count(), bits.run_end(3, u64::MAX)), ((1 << 60) - 3, 1 << 60));
        bits.remove_range(1 << 40, 1 << 41);
        assert_eq!((bits.run_end(3, u64::MAX), bits.first_in(1 << 40..u64::MAX, None)), (1 << 40, Some(1 << 41)));
        assert_eq!(bits.first_in(0..u64::MAX, Some(&bits.clone())), None);
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

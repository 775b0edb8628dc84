//! A page of a bitfield in memory: a stretch that is all zeros or all ones takes no room.
//!
//! So a feed that is held whole costs some ten bytes for each 8192 blocks however long it is, and a short one a few stretches. The most
//! that a page takes, if holes are everywhere, is its size on disk and a little.

/// Bytes that are kept, or left out, together.
const CHUNK: usize = 32;
/// The largest page, in bytes: each chunk has a bit in a [`Set`].
pub(super) const MAX_PAGE_BYTES: usize = 128 * CHUNK;

/// Bytes that are not zero, up to which a page keeps them one by one.
pub(super) const FEW: usize = 4;

/// The bytes of a page. Equal bytes make equal pages.
#[derive(Debug, Clone)]
pub(super) enum Page {
    /// Nothing but zeros besides these bytes, each with its place; one that is 0 stands for none.
    Few { places: [u16; FEW], bytes: [u8; FEW] },
    /// Any.
    Chunks(Box<Chunks>),
}

impl Page {
    /// The page with these bytes, at most [`MAX_PAGE_BYTES`] of them; zeros follow.
    pub(super) fn new(stored: &[u8]) -> Self {
        let (mut places, mut bytes) = ([0; FEW], [0; FEW]);
        let mut few = places.iter_mut().zip(&mut bytes);
        for (chunk, first) in stored.chunks(CHUNK).zip((0u16..).step_by(CHUNK)) {
            if <&[u8; CHUNK]>::try_from(chunk).is_ok_and(|chunk| *chunk == [0; CHUNK]) {
                continue;
            }
            for (byte, at) in chunk.iter().zip(first..).filter(|(byte, _)| **byte != 0) {
                match few.next() {
                    Some((place, to)) => (*place, *to) = (at, *byte),
                    None => return Self::Chunks(Box::new(Chunks::new(stored))),
                }
            }
        }
        Self::Few { places, bytes }
    }

    /// The page with nothing but these bytes, each with its place.
    pub(super) fn of_few(places: [u16; FEW], bytes: [u8; FEW]) -> Self {
        Self::Few { places, bytes }
    }

    /// Whether there are nothing but zeros.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few { bytes, .. } => *bytes == [0; FEW],
            Self::Chunks(chunks) => all(chunks.mixed) | all(chunks.ones) == 0,
        }
    }

    /// A byte.
    #[inline]
    pub(super) fn get(&self, at: usize) -> u8 {
        match self {
            Self::Chunks(chunks) => chunks.get(at),
            Self::Few { .. } => self.few_at(at),
        }
    }

    /// Eight bytes, the first one the most significant; `at` is a multiple of 8.
    pub(super) fn word(&self, at: usize) -> u64 {
        match self {
            Self::Few { .. } => {
                let within = self.few().filter(|(place, _)| *place & !7 == at);
                within.fold(0, |word, (place, byte)| word | u64::from(byte) << (56 - 8 * (place % 8)))
            }
            Self::Chunks(chunks) => chunks.word(at),
        }
    }

    /// The first position in a range that is not in a stretch of nothing but `byte`: all zeros or all ones.
    pub(super) fn next_besides(&self, byte: u8, range: std::ops::Range<usize>) -> Option<usize> {
        let next = match self {
            Self::Chunks(chunks) => return chunks.next_besides(byte, range),
            // No stretch is all ones.
            Self::Few { .. } if byte != 0 => range.start,
            Self::Few { .. } => {
                let chunks = self.few().map(|(place, _)| place / CHUNK).filter(|chunk| *chunk >= range.start / CHUNK);
                range.start.max(chunks.min()? * CHUNK)
            }
        };
        (next < range.end).then_some(next)
    }

    /// Returns the end of the last stretch before `end` that is not nothing but zeros, or `end` within it.
    pub(super) fn end_before(&self, end: usize) -> Option<usize> {
        match self {
            Self::Few { .. } => self.few().map(|(place, _)| place + 1).filter(|past| *past <= end).max(),
            Self::Chunks(chunks) => {
                let before = u128::MAX.checked_shr(128 - end.div_ceil(CHUNK) as u32).unwrap_or(0);
                let others = (all(chunks.mixed) | all(chunks.ones)) & before;
                let past = (128 - others.leading_zeros()) as usize * CHUNK;
                (others != 0).then_some(past.min(end))
            }
        }
    }

    /// Sets a byte. Returns whether that changed it.
    pub(super) fn set(&mut self, at: usize, byte: u8) -> bool {
        let Self::Few { places, bytes } = self else {
            let Self::Chunks(chunks) = self else { return false };
            return chunks.set(at, byte);
        };
        let found = (0..FEW).find(|&few| bytes[few] != 0 && usize::from(places[few]) == at);
        if found.map_or(0, |few| bytes[few]) == byte {
            return false;
        }
        match (found.or_else(|| bytes.iter().position(|byte| *byte == 0)), u16::try_from(at)) {
            (Some(few), Ok(place)) => (places[few], bytes[few]) = (place, byte),
            _ => {
                let mut chunks = Chunks::default();
                self.few().for_each(|(at, byte)| _ = chunks.set(at, byte));
                chunks.set(at, byte);
                *self = Self::Chunks(Box::new(chunks));
            }
        }
        true
    }

    /// The bytes of a range.
    pub(super) fn bytes(&self, range: std::ops::Range<usize>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(range.len());
        match self {
            Self::Few { .. } => {
                bytes.resize(range.len(), 0);
                for (place, byte) in self.few().filter(|(place, _)| range.contains(place)) {
                    bytes[place - range.start] = byte;
                }
            }
            Self::Chunks(chunks) => chunks.copy(range, &mut bytes),
        }
        bytes
    }

    /// Gives back memory that is kept for what may come.
    pub(super) fn shrink(&mut self) {
        let Self::Chunks(chunks) = self else { return };
        if all(chunks.ones) == 0 && chunks.chunks.len() <= FEW {
            let page = Self::new(&self.bytes(0..MAX_PAGE_BYTES));
            *self = page;
        } else {
            chunks.chunks.shrink_to_fit();
        }
    }

    /// A byte of a page of few.
    fn few_at(&self, at: usize) -> u8 {
        self.few().find(|(place, _)| *place == at).map_or(0, |(_, byte)| byte)
    }

    /// What is not zero in a page of few such bytes, in no order.
    fn few(&self) -> impl Iterator<Item = (usize, u8)> + use<> {
        let (places, bytes) = match self {
            Self::Few { places, bytes } => (*places, *bytes),
            Self::Chunks(_) => Default::default(),
        };
        places.into_iter().map(usize::from).zip(bytes).filter(|(_, byte)| *byte != 0)
    }
}

impl PartialEq for Page {
    fn eq(&self, other: &Self) -> bool {
        let all = 0..MAX_PAGE_BYTES;
        match (self, other) {
            (Self::Chunks(a), Self::Chunks(b)) => (a.mixed, a.ones, &a.chunks) == (b.mixed, b.ones, &b.chunks),
            _ => self.bytes(all.clone()) == other.bytes(all),
        }
    }
}

/// A bit for each chunk, the first one the lowest of the first byte.
type Set = [u8; 16];

/// A set as a number, for all of it at once.
fn all(set: Set) -> u128 {
    u128::from_le_bytes(set)
}

/// Puts a chunk into a set, or takes it out.
fn mark(set: &mut Set, number: usize, member: bool) {
    let bit = 1 << (number % 8);
    let byte = &mut set[number / 8];
    *byte = if member { *byte | bit } else { *byte & !bit };
}

/// The stretches of a page with more than [`FEW`] bytes that are not zero.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunks {
    /// Which chunks are kept: those that have zeros and ones.
    mixed: Set,
    /// Which of the others are all ones.
    ones: Set,
    /// How many are kept before each eight of the page, so that none of `mixed` has to be counted but one byte.
    before: [u8; 16],
    /// What is kept, in the order of the page.
    chunks: Vec<[u8; CHUNK]>,
}

impl Chunks {
    fn new(bytes: &[u8]) -> Self {
        let mut page = Self::default();
        for (number, bytes) in bytes.chunks(CHUNK).enumerate().take(128) {
            let mut chunk = [0; CHUNK];
            chunk[..bytes.len()].copy_from_slice(bytes);
            match uniform(&chunk) {
                Some(0) => {}
                Some(_) => mark(&mut page.ones, number, true),
                None => {
                    mark(&mut page.mixed, number, true);
                    page.chunks.push(chunk);
                }
            }
        }
        page.chunks.shrink_to_fit();
        page.count();
        page
    }

    /// Counts anew how many are kept, as their set changed.
    fn count(&mut self) {
        let mut before = 0;
        for (eight, mixed) in self.before.iter_mut().zip(self.mixed) {
            *eight = before;
            before += mixed.count_ones() as u8;
        }
    }

    /// A byte.
    fn get(&self, at: usize) -> u8 {
        match self.place(at / CHUNK) {
            Ok(place) => self.chunks[place][at % CHUNK],
            Err(uniform) => uniform,
        }
    }

    /// Eight bytes, the first one the most significant; `at` is a multiple of 8.
    fn word(&self, at: usize) -> u64 {
        match self.place(at / CHUNK) {
            Ok(place) => {
                let word = self.chunks[place].get(at % CHUNK..).and_then(|rest| rest.first_chunk());
                word.copied().map_or(0, u64::from_be_bytes)
            }
            Err(0) => 0,
            Err(_) => u64::MAX,
        }
    }

    /// The first position in a range that is not in a stretch of nothing but `byte`: all zeros or all ones.
    fn next_besides(&self, byte: u8, range: std::ops::Range<usize>) -> Option<usize> {
        let others = if byte == 0 { all(self.mixed) | all(self.ones) } else { !all(self.ones) };
        let number = range.start / CHUNK;
        let rest = others.checked_shr(number as u32).filter(|rest| *rest != 0)?;
        let next = range.start.max((number + rest.trailing_zeros() as usize) * CHUNK);
        (next < range.end).then_some(next)
    }

    /// Sets a byte. Returns whether that changed it.
    fn set(&mut self, at: usize, byte: u8) -> bool {
        let number = at / CHUNK;
        match self.place(number) {
            Ok(place) => {
                let chunk = &mut self.chunks[place];
                if std::mem::replace(&mut chunk[at % CHUNK], byte) == byte {
                    return false;
                }
                if let Some(uniform) = uniform(chunk) {
                    self.chunks.remove(place);
                    mark(&mut self.mixed, number, false);
                    mark(&mut self.ones, number, uniform != 0);
                    self.count();
                }
            }
            Err(uniform) if uniform == byte => return false,
            Err(uniform) => {
                let mut chunk = [uniform; CHUNK];
                chunk[at % CHUNK] = byte;
                self.chunks.insert(self.rank(number), chunk);
                mark(&mut self.mixed, number, true);
                mark(&mut self.ones, number, false);
                self.count();
            }
        }
        true
    }

    /// Adds the bytes of a range to `out`.
    fn copy(&self, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
        let mut at = range.start;
        while at < range.end {
            let within = at % CHUNK;
            let count = (CHUNK - within).min(range.end - at);
            match self.place(at / CHUNK) {
                Ok(place) => out.extend_from_slice(&self.chunks[place][within..within + count]),
                Err(uniform) => out.resize(out.len() + count, uniform),
            }
            at += count;
        }
    }

    /// Returns the place of a chunk, or else the value of its bytes.
    fn place(&self, number: usize) -> Result<usize, u8> {
        let has = |set: &Set| set[number / 8] >> (number % 8) & 1 == 1;
        if has(&self.mixed) {
            Ok(self.rank(number))
        } else if has(&self.ones) {
            Err(0xff)
        } else {
            Err(0)
        }
    }

    /// How many chunks are kept before this one.
    fn rank(&self, number: usize) -> usize {
        let among = self.mixed[number / 8] & !(0xff << (number % 8));
        usize::from(self.before[number / 8]) + among.count_ones() as usize
    }
}

/// Returns the value of all bytes of a chunk, if they are all zeros or all ones.
fn uniform(chunk: &[u8; CHUNK]) -> Option<u8> {
    match chunk[0] {
        0 if *chunk == [0; CHUNK] => Some(0),
        0xff if *chunk == [0xff; CHUNK] => Some(0xff),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_its_bytes(
            start in prop::collection::vec(prop_oneof![Just(0u8), Just(0xffu8), any::<u8>()], 0..200),
            writes in prop::collection::vec((0usize..3500, prop_oneof![Just(0u8), Just(0xffu8), any::<u8>()], 1usize..100), 1..40),
            range in (0usize..3500, 0usize..3500),
        ) {
            let mut bytes = vec![0; 3584];
            bytes[..start.len()].copy_from_slice(&start);
            let mut page = Page::new(&start);
            for (from, value, count) in writes {
                // Often so little that a page keeps it byte by byte.
                let count = if count % 3 > 0 { 1 } else { count };
                for (at, byte) in bytes.iter_mut().enumerate().skip(from).take(count) {
                    let changed = std::mem::replace(byte, value) != value;
                    prop_assert_eq!(page.set(at, value), changed);
                }
            }
            prop_assert_eq!(page.bytes(0..3584), &bytes[..]);
            prop_assert_eq!(&page, &Page::new(&bytes));
            let range = range.0.min(range.1)..range.0.max(range.1);
            prop_assert_eq!(page.bytes(range.clone()), &bytes[range.clone()]);
            for at in (0..3584).step_by(8) {
                prop_assert_eq!(page.get(at), bytes[at]);
                prop_assert_eq!(page.word(at), u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()));
            }
            for byte in [0, 0xff] {
                let besides = |at: &usize| bytes[at / CHUNK * CHUNK..][..CHUNK].iter().any(|&other| other != byte);
                prop_assert_eq!(page.next_besides(byte, range.clone()), range.clone().find(besides));
            }
            // No more than zeros are passed over, and at the most up to the end of a stretch that has others.
            let (last, end) = (bytes[..range.end].iter().rposition(|&byte| byte != 0), page.end_before(range.end));
            prop_assert!(end.is_some() || last.is_none());
            if let Some(end) = end {
                prop_assert!(end <= range.end && last.is_none_or(|last| last < end));
                prop_assert!(bytes[(end - 1) / CHUNK * CHUNK..][..CHUNK].iter().any(|&byte| byte != 0));
            }
            let mixed = bytes.chunks(CHUNK).filter(|chunk| chunk.iter().any(|&byte| byte != chunk[0] || !matches!(byte, 0 | 0xff)));
            let few = bytes.iter().filter(|byte| **byte != 0).count() <= FEW;
            match &page {
                Page::Chunks(chunks) => prop_assert_eq!(chunks.chunks.len(), mixed.count()),
                Page::Few { .. } => prop_assert!(few),
            }
            page.shrink();
            prop_assert_eq!(matches!(page, Page::Few { .. }), few);
            prop_assert_eq!(page.is_empty(), bytes.iter().all(|byte| *byte == 0));
            prop_assert_eq!(page.bytes(0..3584), &bytes[..]);
        }
    }
}

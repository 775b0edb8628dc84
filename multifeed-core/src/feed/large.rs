//! Large blocks on their way out: hashed several at a time, and once for all who read them one after the other.

use bytes::Bytes;
use multifeed_proto::Node;
use twox_hash::XxHash3_64;

use super::Feed;
use crate::merkle;
use crate::storage::Storage;

/// Smaller blocks are read ahead and checked together in the window.
const MIN_BYTES: usize = 4096;
/// Larger ones are checked one by one: what waits takes memory.
const MAX_AHEAD_BYTES: usize = 128 * 1024;
/// As many as are hashed at a time.
const TOGETHER: usize = 4;
/// Blocks of a feed that are known again.
const MAX_KNOWN: u64 = 4096;

/// What was checked of large blocks.
#[derive(Debug, Default)]
pub(super) struct Large(Option<Box<Checked>>);

#[derive(Debug, Default)]
struct Checked {
    /// Not asked for yet.
    ready: Vec<Ready>,
    /// Blocks that had the hashes of their leaves, each at the place that its number has modulo the length: its number, and a checksum.
    known: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Ready {
    block: u64,
    bytes: Bytes,
    /// Of its end in `data`.
    end: u64,
}

/// Of a block and its leaf. Bits that rot are noticed by a checksum as well as by a hash, in a twentieth of the time; nobody chooses them.
fn checksum(leaf: &Node, block: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = leaf.hash;
    XxHash3_64::oneshot_with_seed(u64::from_le_bytes([a, b, c, d, e, f, g, h]), block)
}

impl Large {
    /// Whether the same bytes were held against the same leaf before.
    pub(super) fn knows(&self, leaf: &Node, block: &[u8]) -> bool {
        let known = self.0.as_ref().and_then(|checked| checked.known(leaf.index / 2));
        known.is_some_and(|sum| sum == checksum(leaf, block))
    }

    /// Notes that a block has the hash of its leaf, if it is a large one.
    pub(super) fn know(&mut self, leaf: &Node, block: &[u8]) {
        if block.len() > MIN_BYTES {
            self.0.get_or_insert_default().know(leaf.index / 2, checksum(leaf, block));
        }
    }

    /// A block that was checked ahead, and its end in `data`.
    pub(super) fn take(&mut self, block: u64) -> Option<(Bytes, u64)> {
        let ready = &mut self.0.as_mut()?.ready;
        let at = ready.iter().position(|ready| ready.block == block)?;
        let Ready { bytes, end, .. } = ready.swap_remove(at);
        Some((bytes, end))
    }

    /// Forgets what was read and not asked for: it may change.
    pub(super) fn forget_ready(&mut self) {
        if let Some(checked) = &mut self.0 {
            checked.ready.clear();
        }
    }

    /// Whether it was checked before, or ahead.
    fn has(&self, block: u64) -> bool {
        self.0.as_ref().is_some_and(|checked| {
            checked.known(block).is_some() || checked.ready.iter().any(|ready| ready.block == block)
        })
    }
}

impl Checked {
    fn known(&self, block: u64) -> Option<u64> {
        let at = block.checked_rem(self.known.len() as u64)?;
        self.known.get(at as usize).filter(|(number, _)| *number == block).map(|(_, sum)| *sum)
    }

    fn know(&mut self, block: u64, sum: u64) {
        let length = block.saturating_add(1).checked_next_power_of_two().unwrap_or(MAX_KNOWN).min(MAX_KNOWN) as usize;
        if length > self.known.len() {
            // What is known already stays: the lengths are powers of two, and below the longest all numbers are their own places.
            self.known.resize(length, (u64::MAX, 0));
        }
        let at = (block % self.known.len() as u64) as usize;
        self.known[at] = (block, sum);
    }
}

impl Feed {
    /// Reads large blocks that are wanted one after the other, and checks them together, as many as are hashed at a time. What goes wrong shows when
    /// each is read by itself.
    pub(crate) fn check_ahead<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        first: u64,
        others: impl Iterator<Item = u64>,
    ) {
        if self.window.has_checked(first) || self.large.has(first) {
            return;
        }
        let mut run: Vec<(Node, Bytes, u64)> = Vec::new();
        for block in std::iter::once(first).chain(others).take(TOGETHER) {
            let is_of_the_kind = |size: u64| size > MIN_BYTES as u64 && size <= MAX_AHEAD_BYTES as u64;
            // No feed of so few bytes has a large block.
            if self.byte_length <= MIN_BYTES as u64 || !self.has(block) {
                break;
            }
            let Ok(leaf) = self.node(storage, 2 * block) else { break };
            if !is_of_the_kind(leaf.size) || self.large.has(block) {
                break;
            }
            let Ok(Some(bytes)) = self.get(storage, block) else { break };
            run.push((leaf, bytes, self.read_cursor.offset));
        }
        let mut hashes = Vec::with_capacity(run.len());
        merkle::leaf_hashes(run.iter().map(|(_, bytes, _)| &bytes[..]), &mut hashes);
        self.large.forget_ready();
        for ((leaf, bytes, end), hash) in run.into_iter().zip(hashes) {
            let start = end.saturating_sub(leaf.size);
            if hash != leaf.hash || !matches!(self.misplaced(storage, leaf, start, false), Ok(None)) {
                break;
            }
            self.large.know(&leaf, &bytes);
            self.large.0.get_or_insert_default().ready.push(Ready { block: leaf.index / 2, bytes, end });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreError;
    use crate::feed::cache::Window;
    use crate::keys::key_pair::KeyPair;
    use crate::storage::{FileKind, MemoryStorage, Slot};

    const BLOCKS: u64 = 12;

    /// Small ones, large ones, and one that is not read ahead.
    fn block(index: u64) -> Bytes {
        let size = match index {
            3 => 100,
            7 => MAX_AHEAD_BYTES + 1,
            _ => MIN_BYTES + 1 + 1000 * index as usize,
        };
        vec![index as u8; size].into()
    }

    fn written() -> (Feed, MemoryStorage) {
        let pair = KeyPair::from_seed(&[1; 32]);
        let mut disk = MemoryStorage::new();
        let mut feed = Feed::create(&mut disk, Slot(0), pair.public_key(), Some(&pair), None).unwrap();
        feed.append(&mut disk, &(0..BLOCKS).map(block).collect::<Vec<_>>()).unwrap();
        feed.trim();
        (feed, disk)
    }

    fn offset(index: u64) -> u64 {
        (0..index).map(|index| block(index).len() as u64).sum()
    }

    /// As a remote that asks for these at once is served.
    fn serve(feed: &mut Feed, disk: &mut MemoryStorage, asked: &[u64]) -> Vec<Result<Option<Bytes>, StoreError>> {
        let answers = asked.iter().enumerate().map(|(at, &index)| {
            feed.check_ahead(disk, index, asked[at + 1..].iter().copied());
            match feed.checked_block(index) {
                Some(block) => Ok(Some(block)),
                None => feed.get_verified(disk, index),
            }
        });
        answers.collect()
    }

    #[test]
    fn what_is_asked_for_in_any_order_is_served_once_and_again() {
        let (mut feed, mut disk) = written();
        for step in [1, 5, 7, 11] {
            let asked: Vec<u64> = (0..3 * BLOCKS).map(|at| at * step % BLOCKS).collect();
            let served = serve(&mut feed, &mut disk, &asked);
            for (index, served) in asked.into_iter().zip(served) {
                assert_eq!(served.unwrap(), Some(block(index)), "{index}, step {step}");
            }
        }
    }

    #[test]
    fn several_are_read_and_checked_at_once_and_kept_until_they_are_asked_for() {
        let (mut feed, mut disk) = written();
        feed.check_ahead(&mut disk, 8, [9, 10, 11, 0].into_iter());
        feed.window = Window::default();
        (0..offset(BLOCKS)).step_by(1000).for_each(|at| disk.flip(FileKind::Data, at));
        for index in [9, 8, 11, 10] {
            assert_eq!(feed.get_verified(&mut disk, index).unwrap(), Some(block(index)));
            // The second time it is read.
            feed.window = Window::default();
            assert!(matches!(feed.get_verified(&mut disk, index), Err(StoreError::Damaged { .. })), "{index}");
        }
        assert!(feed.get_verified(&mut disk, 0).is_err(), "a fifth was read ahead");
    }

    #[test]
    fn one_that_is_known_and_rots_is_not_served() {
        let all: Vec<u64> = (0..BLOCKS).collect();
        for rotten in 0..BLOCKS {
            for (kind, at) in [
                (FileKind::Data, offset(rotten) + block(rotten).len() as u64 / 2),
                (FileKind::Tree, crate::feed::files::node_offset(2 * rotten) + 9),
            ] {
                let (mut feed, mut disk) = written();
                assert!(serve(&mut feed, &mut disk, &all).iter().all(Result::is_ok));
                disk.flip(kind, at);
                // All that was read is forgotten, and what is known of it is not.
                let large = std::mem::take(&mut feed.large);
                feed.trim();
                feed.large = large;
                for (index, served) in (0..).zip(serve(&mut feed, &mut disk, &all)) {
                    // A leaf that rotted is made again of its block.
                    let refused = index == rotten && kind == FileKind::Data;
                    assert_eq!(served.is_err(), refused, "{index} of {rotten}, {kind:?}");
                    assert!(refused || served.unwrap() == Some(block(index)));
                }
            }
        }
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut large = Large::default();
        let leaf = |block: u64| Node { index: 2 * block, hash: [block as u8; 32], size: 5000 };
        let bytes = [7; 5000];
        for block in [0, 1, 5, 4095, 4096, 9000, (1 << 47)] {
            large.know(&leaf(block), &bytes);
            assert!(large.knows(&leaf(block), &bytes) && !large.knows(&leaf(block), &bytes[1..]), "{block}");
            assert!(!large.knows(&Node { hash: [9; 32], ..leaf(block) }, &bytes));
        }
        // 4,096 and 1 << 47 have the place of 0.
        assert!(large.knows(&leaf(1), &bytes) && large.knows(&leaf(5), &bytes) && !large.knows(&leaf(0), &bytes));
        assert_eq!(large.0.unwrap().known.len() as u64, MAX_KNOWN);
    }
}

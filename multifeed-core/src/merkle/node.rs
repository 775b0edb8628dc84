//! Hashes of blocks, nodes and roots (hypercore-crypto's `data`, `parent`, `tree` and `signable`).

use blake2b_simd::State;
use blake2b_simd::many::{HashManyJob, hash_many, update_many};
use multifeed_proto::Node;

use super::hasher::{Hasher, bytes, hash, params};
use super::index;
use crate::limits::MAX_FEED_BYTES;

/// What stands in front of a leaf's, a parent's and a root's preimage, so that none passes for another.
const LEAF: u8 = 0;
const PARENT: u8 = 1;
const ROOT: u8 = 2;

/// Blocks up to this size are copied together to be hashed: less than it costs to begin with each where it lies.
const MAX_COPIED: usize = 4096;

/// Returns a block's hash: BLAKE2b-256 of 0, its length as u64 BE, and the block.
pub fn leaf_hash(block: &[u8]) -> [u8; 32] {
    let mut head = [LEAF; 9];
    head[1..].copy_from_slice(&(block.len() as u64).to_be_bytes());
    if block.len() <= 256 - 9 {
        // Whole in one call: no copy into the hasher's own buffer.
        let mut whole = [0; 256];
        whole[..9].copy_from_slice(&head);
        whole[9..9 + block.len()].copy_from_slice(block);
        return hash(&whole[..9 + block.len()]);
    }
    let mut hasher = Hasher::new();
    hasher.update(&head);
    hasher.update(block);
    hasher.finish()
}

/// [`leaf_hash`] of a block that comes in pieces.
pub(crate) struct LeafHasher(Hasher);

impl LeafHasher {
    /// Of a block of so many bytes.
    pub(crate) fn new(size: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&[LEAF]);
        hasher.update(&size.to_be_bytes());
        Self(hasher)
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finish()
    }
}

/// The hashes of many blocks, several at a time.
pub(crate) fn leaf_hashes<'a>(mut blocks: impl Iterator<Item = &'a [u8]>, hashes: &mut Vec<[u8; 32]>) {
    const LANES: usize = 16;
    let mut preimages = Vec::new();
    loop {
        let group: [Option<&[u8]>; LANES] = std::array::from_fn(|_| blocks.next());
        let group: Vec<&[u8]> = group.into_iter().flatten().collect();
        match &group[..] {
            [] => return,
            // Two at a time take as long as one after the other.
            [_] | [_, _] => hashes.extend(group.iter().map(|block| leaf_hash(block))),
            group if group.iter().all(|block| block.len() <= MAX_COPIED) => {
                small_leaf_hashes(group, &mut preimages, hashes);
            }
            group => large_leaf_hashes(group, hashes),
        }
    }
}

/// Each in one piece with what stands in front of it.
fn small_leaf_hashes(blocks: &[&[u8]], preimages: &mut Vec<u8>, hashes: &mut Vec<[u8; 32]>) {
    preimages.clear();
    preimages.reserve(blocks.iter().map(|block| 9 + block.len()).sum());
    let params = params();
    for block in blocks {
        preimages.push(LEAF);
        preimages.extend_from_slice(&(block.len() as u64).to_be_bytes());
        preimages.extend_from_slice(block);
    }
    let mut rest = &preimages[..];
    let mut jobs: Vec<HashManyJob<'_>> = blocks
        .iter()
        .map(|block| {
            let (preimage, after) = rest.split_at(9 + block.len());
            rest = after;
            HashManyJob::new(&params, preimage)
        })
        .collect();
    hash_many(jobs.iter_mut());
    hashes.extend(jobs.iter().map(|job| bytes(job.to_hash())));
}

/// Where they lie.
fn large_leaf_hashes(blocks: &[&[u8]], hashes: &mut Vec<[u8; 32]>) {
    let mut states: Vec<State> = blocks
        .iter()
        .map(|block| {
            let mut state = params().to_state();
            state.update(&[LEAF]).update(&(block.len() as u64).to_be_bytes());
            state
        })
        .collect();
    update_many(states.iter_mut().zip(blocks));
    hashes.extend(states.iter().map(|state| bytes(state.finalize())));
}

/// Returns the node above two siblings, left one first: BLAKE2b-256 of 1, their summed size as u64 BE, and both hashes.
///
/// `None` if the size passes [`MAX_FEED_BYTES`]: no feed has such a node.
pub fn parent(left: &Node, right: &Node) -> Option<Node> {
    let size = left.size.checked_add(right.size).filter(|size| *size <= MAX_FEED_BYTES)?;
    let mut preimage = [PARENT; 73];
    preimage[1..9].copy_from_slice(&size.to_be_bytes());
    preimage[9..41].copy_from_slice(&left.hash);
    preimage[41..].copy_from_slice(&right.hash);
    Some(Node { index: index::parent(left.index), hash: hash(&preimage), size })
}

/// The node above two siblings, in any order.
pub(crate) fn parent_of(one: Node, other: Node) -> Option<Node> {
    if one.index < other.index { parent(&one, &other) } else { parent(&other, &one) }
}

/// Returns the hash of a whole tree: BLAKE2b-256 of 2, and each root's hash, index and size as u64 BE.
pub fn root_hash(roots: &[Node]) -> [u8; 32] {
    let mut hasher = Hasher::new();
    hasher.update(&[ROOT]);
    for root in roots {
        hasher.update(&root.hash);
        hasher.update(&root.index.to_be_bytes());
        hasher.update(&root.size.to_be_bytes());
    }
    hasher.finish()
}

/// Returns what the writer signs: the root hash, and the length in blocks as u64 BE.
pub fn signable(root_hash: &[u8; 32], blocks: u64) -> [u8; 40] {
    let mut message = [0; 40];
    message[..32].copy_from_slice(root_hash);
    message[32..].copy_from_slice(&blocks.to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_a_time_are_as_one_by_one() {
        let blocks: Vec<Vec<u8>> =
            (0..50usize).map(|i| vec![i as u8; if i < 40 { i * 37 % 600 } else { i * 911 }]).collect();
        let mut hashes = Vec::new();
        leaf_hashes(blocks.iter().map(Vec::as_slice), &mut hashes);
        let single: Vec<_> = blocks.iter().map(|block| leaf_hash(block)).collect();
        assert_eq!(hashes, single);
    }

    #[test]
    fn short_and_long_blocks_hash_alike() {
        for size in [0, 1, 119, 120, 246, 247, 248, 249, 1000] {
            let block = vec![7; size];
            let mut whole = vec![0];
            whole.extend_from_slice(&(size as u64).to_be_bytes());
            whole.extend_from_slice(&block);
            assert_eq!(leaf_hash(&block)[..], *params().hash(&whole).as_bytes(), "{size}");
        }
    }

    #[test]
    fn a_size_past_all_feeds_has_no_parent() {
        let node = |index, size| Node { index, hash: [0; 32], size };
        assert!(parent(&node(0, u64::MAX), &node(2, 1)).is_none());
        assert!(parent(&node(0, MAX_FEED_BYTES), &node(2, 1)).is_none());
        assert!(parent(&node(0, MAX_FEED_BYTES), &node(2, 0)).is_some());
    }
}

//! Feeds that are long by claim alone: the writer signs a length, and makes one block.
#![allow(dead_code, missing_docs, unreachable_pub)]

use bytes::Bytes;
use multifeed_core::KeyPair;
use multifeed_core::merkle::{self, index as flat};
use multifeed_proto::{Data, Node};

/// The block at `index` of a feed that is said to have `length` blocks, as a peer sends it to who holds nothing of it.
///
/// All other hashes of the tree are made up, and all other blocks empty: a reader cannot tell them from real ones.
pub fn claim(pair: &KeyPair, length: u64, index: u64, block: &Bytes) -> Data {
    assert!(index < length);
    let made_up = |node: u64| {
        let mut hash = [0xc1; 32];
        hash[..8].copy_from_slice(&node.to_be_bytes());
        Node { index: node, hash, size: 0 }
    };
    let roots: Vec<u64> = flat::full_roots(length).collect();
    let mut top = Node { index: 2 * index, hash: merkle::leaf_hash(block), size: block.len() as u64 };
    let mut nodes = Vec::new();
    while !roots.contains(&top.index) {
        let sibling = made_up(flat::sibling(top.index));
        let pair = if sibling.index < top.index { [sibling, top] } else { [top, sibling] };
        top = merkle::parent(&pair[0], &pair[1]).unwrap();
        nodes.push(sibling);
    }
    let roots: Vec<Node> = roots.into_iter().map(|root| if root == top.index { top } else { made_up(root) }).collect();
    nodes.extend(roots.iter().filter(|root| root.index != top.index));
    let signature = pair.sign(&merkle::signable(&merkle::root_hash(&roots), length));
    Data { index, value: Some(block.clone()), nodes, signature: Some(signature) }
}

/// The second of two blocks, of a feed whose first one is said to have so many bytes.
pub fn claim_bytes(pair: &KeyPair, first: u64, block: &Bytes) -> Data {
    let sibling = Node { index: 0, hash: [0xc1; 32], size: first };
    let leaf = Node { index: 2, hash: merkle::leaf_hash(block), size: block.len() as u64 };
    let root = merkle::parent(&sibling, &leaf).unwrap();
    let signature = pair.sign(&merkle::signable(&merkle::root_hash(&[root]), 2));
    Data { index: 1, value: Some(block.clone()), nodes: vec![sibling], signature: Some(signature) }
}

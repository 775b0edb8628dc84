//! Which nodes prove a block, and how a requester says which ones it has (hypercore 9's `lib/tree-index.js`).

use super::{HeldNodes, index};
use crate::limits::MAX_FEED_BLOCKS;

/// The nodes that prove one node of a tree to somebody who holds what a digest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// The nodes: siblings upward, then the missing full roots from left to right.
    pub nodes: Vec<u64>,
    /// The length in blocks whose signature the proof needs; 0 if it ends in a node that the requester holds.
    pub signed_length: u64,
}

/// Returns what a requester holds on the way up from a node, so that nobody sends it again.
///
/// 1: the node itself, or all that is needed. Otherwise bit `j + 1` says that the sibling on level `j` is held. Bit 0 says
/// that the highest set bit is not a sibling but a held ancestor (bit `k + 1`: `k` levels up), which implies the roots to its
/// left.
pub fn digest(held: &impl HeldNodes, node: u64) -> u64 {
    let held = &Near::to(held, node);
    if held.holds(node) {
        return 1;
    }
    let mut digest = 0u64;
    let mut next = index::sibling(node);
    let mut bit = 2u64;
    // A bit for each level of the largest tree. JS looks no higher than its bitfield is long, and so overlooks nodes that it holds.
    while bit <= MAX_FEED_BLOCKS {
        if held.holds(next) {
            digest += bit;
        }
        let parent = index::parent(next);
        if held.holds(parent) {
            digest += 2 * bit + 1;
            return if digest + 1 == 4 * bit { 1 } else { digest };
        }
        next = index::sibling(parent);
        bit *= 2;
    }
    digest
}

/// Returns the proof of a node for a requester with this digest; `None` if the node is not held.
///
/// `itself` puts the node in front, as an answer without a block needs. The digest is the requester's claim and can be
/// anything.
pub fn proof(held: &impl HeldNodes, node: u64, digest: u64, itself: bool) -> Option<Proof> {
    let held = &Near::to(held, node);
    if !held.holds(node) {
        return None;
    }
    let mut proof = Proof { nodes: Vec::with_capacity(16), signed_length: 0 };
    if itself {
        proof.nodes.push(node);
    }
    if digest == 1 {
        return Some(proof);
    }

    let (mut theirs, root) = theirs(held, node, digest);
    let mut next = node;
    while !theirs.contains(next) {
        let sibling = index::sibling(next);
        if !held.holds(sibling) {
            if let Some(root) = root {
                theirs.insert_roots(held, root);
            }
            // `next` is a root of some length here.
            let end = verified_by(held, next);
            let roots = index::full_roots(end / 2).filter(|root| *root != next && !theirs.contains(*root));
            proof.nodes.extend(roots);
            proof.signed_length = end / 2;
            return Some(proof);
        }
        if !theirs.contains(sibling) {
            proof.nodes.push(sibling);
        }
        next = index::parent(next);
    }
    Some(proof)
}

/// Spells a digest out; the root that it claims apart, if that is held here. Those to its left matter only if a climb does not come that far.
fn theirs(held: &impl HeldNodes, node: u64, digest: u64) -> (Few, Option<u64>) {
    let mut theirs = Few(Vec::with_capacity(16));
    let has_root = digest & 1 == 1;
    let mut rest = digest >> 1;
    let mut next = node;
    while rest != 0 {
        if rest == 1 && has_root {
            if held.holds(next) {
                theirs.insert(next);
                return (theirs, Some(next));
            }
            theirs.insert_roots(held, next);
            break;
        }
        let sibling = index::sibling(next);
        if rest & 1 == 1 && held.holds(sibling) {
            theirs.insert(sibling);
        }
        next = index::parent(next);
        rest >>= 1;
    }
    (theirs, None)
}

/// Returns the end (twice the length) of the tree that a held node is a part of: the position past the last node of it that is held.
pub fn verified_by(held: &impl HeldNodes, node: u64) -> u64 {
    if !held.holds(node) {
        return 0;
    }
    let mut top = node;
    loop {
        let parent = index::parent(top);
        if !held.holds(parent) || !held.holds(index::sibling(top)) {
            break;
        }
        top = parent;
    }
    // Down to the right: each next neighbour that is held, or what is held to the left in it.
    let mut depth = index::depth(top);
    while depth > 0 {
        top = index::node_at(depth - 1, (index::offset(top) + 1) * 2);
        depth -= 1;
        while depth > 0 && !held.holds(top) {
            top = index::node_at(depth - 1, index::offset(top) * 2);
            depth -= 1;
        }
    }
    if held.holds(top) { top + 2 } else { top }
}

/// Returns the length in blocks that the held nodes tell, as JS takes it when it opens a feed.
pub fn length(held: &impl HeldNodes) -> u64 {
    let mut first = (0..=MAX_FEED_BLOCKS.ilog2()).rev().map(|depth| index::node_at(depth, 0));
    first.find(|node| held.holds(*node)).map_or(0, |top| verified_by(held, top) / 2)
}

/// The nodes that are held, of which those around a node were looked up at once: the lowest six levels of a climb from it, as a rule.
struct Near<'a, H> {
    held: &'a H,
    number: u64,
    word: u64,
}

impl<'a, H: HeldNodes> Near<'a, H> {
    fn to(held: &'a H, node: u64) -> Self {
        Self { held, number: node / 64, word: held.word(node / 64) }
    }
}

impl<H: HeldNodes> HeldNodes for Near<'_, H> {
    fn holds(&self, node: u64) -> bool {
        if node / 64 == self.number { self.word << (node % 64) >> 63 == 1 } else { self.held.holds(node) }
    }
}

/// A set of few nodes that, as JS's tree does, holds a parent once it holds both children.
#[derive(Debug, Default)]
struct Few(Vec<u64>);

impl Few {
    fn contains(&self, node: u64) -> bool {
        self.0.contains(&node)
    }

    /// Adds those before a root, or before its sibling: anyone who holds a root holds them.
    fn insert_roots(&mut self, held: &impl HeldNodes, root: u64) {
        let last = root.min(index::sibling(root));
        for root in index::full_roots(index::right_span(last) / 2 + 1).filter(|root| held.holds(*root)) {
            self.insert(root);
        }
    }

    fn insert(&mut self, node: u64) {
        let mut node = node;
        while !self.contains(node) {
            self.0.push(node);
            if !self.contains(index::sibling(node)) {
                return;
            }
            node = index::parent(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    struct Tree(BTreeSet<u64>);

    impl HeldNodes for Tree {
        fn holds(&self, node: u64) -> bool {
            self.0.contains(&node)
        }
    }

    fn tree(nodes: &[u64]) -> Tree {
        Tree(nodes.iter().copied().collect())
    }

    #[test]
    fn digests_of_the_first_block() {
        for (held, expected) in [
            (&[2][..], 2),
            (&[1], 5),
            (&[3], 9),
            (&[2, 3], 11),
            (&[5], 4),
            (&[3, 5], 13),
            (&[1, 2], 1),
            (&[0], 1),
            (&[], 0),
        ] {
            assert_eq!(digest(&tree(held), 0), expected, "{held:?}");
        }
    }

    #[test]
    fn digests_go_up_to_the_root_of_the_largest_feed() {
        let (block, root) = (2 * MAX_FEED_BLOCKS - 2, MAX_FEED_BLOCKS - 1);
        for node in [0, 2, block] {
            assert_eq!(digest(&tree(&[root]), node), 2 * MAX_FEED_BLOCKS + 1);
            let (_, right) = index::children(root).unwrap();
            assert_eq!(digest(&tree(&[right]), 0), MAX_FEED_BLOCKS);
        }
        assert_eq!(length(&tree(&[root])), MAX_FEED_BLOCKS);
        assert_eq!(digest(&tree(&[block]), block), 1);
        // Beyond its bitfield's end for JS, which says 0.
        assert_eq!(digest(&tree(&[15, 23]), 0), 0b110001);
    }

    /// As in JS. Parents without both of their children are what damage leaves.
    #[test]
    fn a_node_is_a_part_of_what_is_held_whole_above_it() {
        for (held, node, end) in [
            (&[0, 1][..], 0, 2),
            (&[0, 1], 1, 4),
            (&[0, 2], 0, 2),
            (&[0, 1, 2], 0, 4),
            (&[1, 5], 1, 4),
            (&[1, 5], 5, 8),
            (&[1, 3, 9], 3, 12),
            (&[1], 0, 0),
        ] {
            assert_eq!(verified_by(&tree(held), node), end, "{held:?}");
        }
    }

    #[test]
    fn a_new_requester_gets_the_whole_path_and_the_roots() {
        let whole: Vec<u64> = (0..10u64)
            .flat_map(|block| {
                let mut nodes = vec![2 * block];
                while index::right_span(index::parent(*nodes.last().unwrap())) <= 2 * block {
                    nodes.push(index::parent(*nodes.last().unwrap()));
                }
                nodes
            })
            .collect();
        let tree = tree(&whole);
        assert_eq!(length(&tree), 10);
        assert_eq!(proof(&tree, 0, 0, false), Some(Proof { nodes: vec![2, 5, 11, 17], signed_length: 10 }));
        assert_eq!(proof(&tree, 0, 1, true), Some(Proof { nodes: vec![0], signed_length: 0 }));
        assert_eq!(proof(&tree, 4, 0b1001, false), Some(Proof { nodes: vec![6, 1], signed_length: 0 }));
        assert_eq!(proof(&tree, 20, 0, false), None);
    }

    #[test]
    fn claims_that_nobody_can_have_do_no_harm() {
        let tree = tree(&[0, 1, 2]);
        for digest in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) | 1, 3, 2] {
            let _ = proof(&tree, 0, digest, true);
        }
        for node in [u64::MAX, u64::MAX - 1, 1 << 62] {
            assert_eq!(proof(&tree, node, 0, false), None);
            assert_eq!(super::digest(&tree, node), 0);
        }
    }
}

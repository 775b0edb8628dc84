//! Flat-tree positions: block `i` is node `2i`, the parent of nodes 0 and 2 is 1, of 1 and 5 is 3, and so on (npm's `flat-tree`).
//!
//! Every function gives an answer for every `u64` and never panics; answers mean something for nodes below 2^62. Where
//! an index comes from outside, its caller bounds it first.

/// Returns how far above the blocks a node is: 0 for a block.
pub fn depth(node: u64) -> u32 {
    node.trailing_ones()
}

/// Returns the node of this depth and this number from the left.
pub fn node_at(depth: u32, offset: u64) -> u64 {
    let unit = 1u64.checked_shl(depth).unwrap_or(0);
    offset.wrapping_mul(2).wrapping_add(1).wrapping_mul(unit).wrapping_sub(1)
}

/// Returns the number from the left of a node on its depth.
pub fn offset(node: u64) -> u64 {
    node.checked_shr(depth(node) + 1).unwrap_or(0)
}

/// Returns the node with the same parent.
pub fn sibling(node: u64) -> u64 {
    node ^ 2u64.checked_shl(depth(node)).unwrap_or(0)
}

/// Returns the node above.
pub fn parent(node: u64) -> u64 {
    let depth = depth(node);
    let bit = 1u64.checked_shl(depth).unwrap_or(0);
    (node | bit) & !bit.wrapping_shl(1)
}

/// Returns the two nodes below, or `None` for a block.
pub fn children(node: u64) -> Option<(u64, u64)> {
    let half = 1u64.checked_shl(depth(node).checked_sub(1)?)?;
    Some((node - half, node.saturating_add(half)))
}

/// Returns the leftmost block's node under a node.
pub fn left_span(node: u64) -> u64 {
    node & !low_mask(node)
}

/// Returns the rightmost block's node under a node.
pub fn right_span(node: u64) -> u64 {
    node.saturating_add(low_mask(node))
}

/// As many low ones as the node has.
fn low_mask(node: u64) -> u64 {
    1u64.checked_shl(depth(node)).unwrap_or(0).wrapping_sub(1)
}

/// Returns the roots of a tree of so many blocks, from left to right.
pub fn full_roots(blocks: u64) -> FullRoots {
    FullRoots { left: blocks, first: 0 }
}

/// The iterator of [`full_roots`].
#[derive(Debug, Clone)]
pub struct FullRoots {
    left: u64,
    /// The first block that no root given so far covers.
    first: u64,
}

impl Iterator for FullRoots {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let depth = self.left.checked_ilog2()?;
        let width = 1u64 << depth;
        let root = self.first.wrapping_mul(2).wrapping_add(width - 1);
        self.first += width;
        self.left -= width;
        Some(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_nodes() {
        // 3 over (1 over (0, 2), 5 over (4, 6))
        assert_eq!([0, 2, 1, 5, 3].map(depth), [0, 0, 1, 1, 2]);
        assert_eq!([0, 2, 4, 6, 1, 5].map(parent), [1, 1, 5, 5, 3, 3]);
        assert_eq!([0, 2, 4, 6, 1, 5].map(sibling), [2, 0, 6, 4, 5, 1]);
        assert_eq!(children(3), Some((1, 5)));
        assert_eq!(children(2), None);
        assert_eq!((left_span(3), right_span(3)), (0, 6));
        assert_eq!((left_span(23), right_span(23)), (16, 30));
        assert_eq!(node_at(2, 1), 11);
        assert_eq!(offset(11), 1);
    }

    #[test]
    fn roots_go_from_left_to_right() {
        assert_eq!(full_roots(0).next(), None);
        assert_eq!(full_roots(1).collect::<Vec<_>>(), [0]);
        assert_eq!(full_roots(8).collect::<Vec<_>>(), [7]);
        assert_eq!(full_roots(10).collect::<Vec<_>>(), [7, 17]);
        assert_eq!(full_roots(40).collect::<Vec<_>>(), [31, 71]);
    }

    proptest! {
        #[test]
        fn nothing_panics(node: u64, depth_: u32) {
            let _ = (depth(node), node_at(depth_, node), offset(node), sibling(node), parent(node), children(node));
            let _ = (left_span(node), right_span(node), full_roots(node).count());
        }

        #[test]
        fn a_node_lies_between_its_children(node in 0u64..1 << 53) {
            prop_assert_eq!(sibling(sibling(node)), node);
            prop_assert_eq!(parent(sibling(node)), parent(node));
            prop_assert_eq!(node_at(depth(node), offset(node)), node);
            let (low, high) = children(parent(node)).unwrap();
            prop_assert!(low == node || high == node);
            prop_assert_eq!(left_span(low), left_span(parent(node)));
            prop_assert_eq!(right_span(high), right_span(parent(node)));
        }

        #[test]
        fn roots_cover_each_block_once(blocks in 0u64..1 << 40) {
            let mut next = 0;
            for root in full_roots(blocks) {
                prop_assert_eq!(left_span(root), next);
                next = right_span(root) + 2;
            }
            prop_assert_eq!(next, 2 * blocks);
        }
    }

    #[test]
    fn the_largest_numbers_do_not_panic() {
        for node in [u64::MAX, u64::MAX - 1, i64::MAX as u64, 1 << 63, (1 << 63) - 1] {
            let _ = (sibling(node), parent(node), children(node), left_span(node), right_span(node), offset(node));
            assert!(full_roots(node).count() <= 64);
        }
    }
}

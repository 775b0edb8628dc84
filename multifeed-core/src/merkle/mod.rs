//! The tree over a feed's blocks: positions in it, hashes of it, proofs and digests from it.

mod hasher;
pub mod index;
mod node;
mod proof;

pub(crate) use node::{LeafHasher, leaf_hashes, parent_of};
pub use node::{leaf_hash, parent, root_hash, signable};
pub use proof::{Proof, digest, length, proof, verified_by};

/// Which nodes of a tree are held. Positions are flat-tree indexes.
pub trait HeldNodes {
    /// Whether this node is held.
    fn holds(&self, node: u64) -> bool;

    /// The 64 nodes from `64 * number` on, the first in the most significant bit.
    fn word(&self, number: u64) -> u64 {
        (0..64).filter(|at| self.holds(number.wrapping_mul(64) | at)).fold(0, |word, at| word | 1 << (63 - at))
    }
}

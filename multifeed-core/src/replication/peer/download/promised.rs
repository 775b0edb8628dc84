//! Nodes that answers under way bring, so that no other one brings them again.
//!
//! Neighbours have most of their proofs in common. A remote that answers in the order in which it was asked can be told, with a request, that
//! what was asked for before is held: it will be when the answer comes. Each node then comes once, however much is under way.
//!
//! When an answer fails to come, none of this holds any more for what was asked for after it, and only nodes that are held are claimed anew. An answer that
//! does not verify for that reason is nobody's fault, and its block is asked for [once more](Download::asks_again).

use std::time::Duration;

use multifeed_proto::Request;

use super::Download;
use crate::bitfield::Bitfield;
use crate::feed::Feed;
use crate::merkle::{self, HeldNodes, index as flat};
use crate::sets::sparse_bits::SparseBits;

/// The nodes that answers under way bring, of the leaves and above.
#[derive(Debug, Default)]
pub(super) struct Promised {
    nodes: SparseBits,
}

/// What a block is asked for with, once what came did not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// What is held by now.
    WithHeld,
    /// Nothing that is held.
    InFull,
}

/// The nodes that are held, or come before the answer.
struct Expected<'a> {
    held: &'a Bitfield,
    promised: &'a SparseBits,
}

impl HeldNodes for Expected<'_> {
    fn holds(&self, node: u64) -> bool {
        self.held.node(node) || self.promised.get(node)
    }

    fn word(&self, number: u64) -> u64 {
        self.held.word_of_nodes(number) | self.promised.word(number)
    }
}

impl Promised {
    /// The digest of what is held when a block comes that is asked for now; notes what its answer brings.
    fn digest(&mut self, feed: &Feed, index: u64) -> u64 {
        let leaf = 2 * index;
        let expected = Expected { held: feed.bitfield(), promised: &self.nodes };
        let digest = merkle::digest(&expected, leaf);
        if digest & 1 == 0 {
            // It goes up to a signature: nobody knows how far.
            return digest;
        }
        let mut node = leaf;
        while !(Expected { held: feed.bitfield(), promised: &self.nodes }).holds(node) {
            self.nodes.insert(node);
            self.nodes.insert(flat::sibling(node));
            node = flat::parent(node);
        }
        digest
    }

    /// The answer with this block came: what it brought is held, or does not come.
    pub(super) fn came(&mut self, index: u64) {
        let mut node = 2 * index;
        while !self.nodes.is_empty() && self.nodes.remove(node) {
            self.nodes.remove(flat::sibling(node));
            node = flat::parent(node);
        }
    }

    /// Something does not come that was asked for.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
    }
}

impl Download {
    /// What a request for a block says of the nodes that are held.
    pub(super) fn digest(&mut self, feed: &Feed, index: u64) -> u64 {
        if self.in_order { self.promised.digest(feed, index) } else { feed.digest(index) }
    }

    /// A block came whose proof does not fit what is held, or does not show where it begins. Returns the request to make once more: with what is held by now, if
    /// the first one may have counted on answers that did not come, and then with a whole proof.
    pub(in crate::replication::peer) fn asks_again(
        &mut self,
        feed: &Feed,
        index: u64,
        now: Duration,
    ) -> Option<Request> {
        let held = feed.digest(index);
        let (again, nodes) = match self.again_asked.remove(&index) {
            _ if held == 0 => return None,
            None if self.in_order => (Again::WithHeld, held),
            None | Some(Again::WithHeld) => (Again::InFull, 0),
            Some(Again::InFull) => return None,
        };
        self.promised.clear();
        self.again_asked.insert(index, again);
        self.in_flight.push_back(index);
        self.progress_at = now;
        Some(Request { index, bytes: 0, hash: false, nodes })
    }
}

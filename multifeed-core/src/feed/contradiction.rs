//! A proof that contradicts what is held: what is known of it while it is looked into.

use multifeed_proto::Node;

/// A proof has a node that is not the one that is held, and it is not known yet what that makes of it: that hangs on whether the writer signed the
/// one that is held. [`Feed::resolve`](super::Feed::resolve) looks for the signature, in steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    pub(super) node: u64,
    pub(super) claim: Claim,
    pub(super) search: Option<Search>,
}

/// What a proof says that has another node than the one held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is signed.
    Signed(Other),
    /// It leads up to a node that is held. Below it that is of another history, which was taken in when nothing showed it, or damaged. The message
    /// is true in any case.
    Within,
    /// It is the proof of this block, and has the node with another size.
    Size(u64),
}

/// A length that is signed: in blocks, its root hash, and the signature.
pub(super) type Other = (u64, [u8; 32], [u8; 64]);

/// How far a signature over a node was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Search {
    /// The node, no root of the feed's length.
    pub(super) top: Node,
    /// No shorter length has one that is valid.
    pub(super) from: u64,
}

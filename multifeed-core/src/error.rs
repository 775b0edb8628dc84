//! What can go wrong with a feed and its storage, and whose fault it is.

mod store;
mod words;

pub(crate) use store::is_unreadable;
pub use store::{CorestoreError, StoreError};
pub(crate) use words::{core, home};

use std::fmt;

use multifeed_proto::FeedKey;
use thiserror::Error;

use crate::feed::Contradiction;

/// Blocks could not be appended. The feed is as it was before.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The feed's secret key is not here.
    #[error("feed {key} cannot be appended to: its secret key is not here")]
    ReadOnly {
        /// The feed.
        key: FeedKey,
    },
    /// A block could not be served: its message, with the largest proof, could pass what JS peers accept.
    #[error("block {position} of the batch has {size} bytes, more than the {max} that peers accept")]
    BlockTooLarge {
        /// Its place in the batch, from 0.
        position: usize,
        /// Its size in bytes.
        size: usize,
        /// The largest size, [`MAX_BLOCK_BYTES`](crate::limits::MAX_BLOCK_BYTES).
        max: usize,
    },
    /// The feed would pass [`MAX_FEED_BLOCKS`](crate::limits::MAX_FEED_BLOCKS) or
    /// [`MAX_FEED_BYTES`](crate::limits::MAX_FEED_BYTES).
    #[error("the feed would be too long: {blocks} blocks, {bytes} bytes")]
    FeedTooLong {
        /// Blocks that it would have.
        blocks: u64,
        /// Bytes that it would have.
        bytes: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AppendError {
    /// Returns a name for the kind of failure, in the style of the JS error codes.
    pub fn code(&self) -> &'static str {
        match self {
            AppendError::ReadOnly { .. } => "ERR_READ_ONLY",
            AppendError::BlockTooLarge { .. } => "ERR_BLOCK_TOO_LARGE",
            AppendError::FeedTooLong { .. } => "ERR_FEED_TOO_LONG",
            AppendError::Store(error) => error.code(),
        }
    }
}

/// A Data message did not prove what it claims. Nothing of it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The block or a node of the proof does not lead to what is known of the feed.
    #[error("block {index} does not match: node {node} has another hash than the one held")]
    Mismatch {
        /// The block.
        index: u64,
        /// The tree node (a flat-tree index) at which it showed.
        node: u64,
    },
    /// The proof ends in roots, and one of them is neither in it nor held.
    #[error("the proof of block {index} lacks root {node}")]
    MissingRoot {
        /// The block.
        index: u64,
        /// The root (a flat-tree index).
        node: u64,
    },
    /// The proof ends in roots, and there is no signature.
    #[error("the proof of block {index} lacks the signature of length {length}")]
    MissingSignature {
        /// The block.
        index: u64,
        /// The length that the roots span, in blocks.
        length: u64,
    },
    /// The signature is not that of the roots.
    #[error("the signature of length {length}, in the proof of block {index}, is not valid")]
    BadSignature {
        /// The block.
        index: u64,
        /// The length that the roots span, in blocks.
        length: u64,
    },
    /// An index, a size or the number of nodes is past what a feed can have, or a hash-only answer has no hash.
    #[error("the proof of block {index} is not one: {why}")]
    Malformed {
        /// The block.
        index: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The writer signed two histories. Not the peer's fault: the proof is valid, and contradicts what is held.
    #[error("the writer signed another history of {} blocks than the one held", .0.length)]
    Conflict(Box<Conflict>),
}

/// A valid signature over roots that contradict nodes which are held: evidence that one writer signed two histories.
///
/// `Debug` prints the first eight hex digits of hashes and signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The length that the other history's roots span, in blocks.
    pub length: u64,
    /// The other history's root hash.
    pub root_hash: [u8; 32],
    /// The writer's signature of it.
    pub signature: [u8; 64],
    /// The first tree node found to differ (a flat-tree index).
    pub node: u64,
    /// The length held here, in blocks.
    pub held_length: u64,
    /// The root hash of the length held here.
    pub held_root_hash: [u8; 32],
    /// The signature of the length held here, if it was found.
    pub held_signature: Option<[u8; 64]>,
}

impl fmt::Debug for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { length, root_hash, signature, node, held_length, held_root_hash, held_signature } = self;
        f.debug_struct("Conflict")
            .field("length", length)
            .field("root_hash", &Short(root_hash))
            .field("signature", &Short(signature))
            .field("node", node)
            .field("held_length", held_length)
            .field("held_root_hash", &Short(held_root_hash))
            .field("held_signature", &held_signature.as_ref().map(|signature| Short(signature)))
            .finish()
    }
}

/// The first bytes of a hash or a signature, as keys print them.
struct Short<'a>(&'a [u8]);

impl fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(4) {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…")
    }
}

/// A Data message could not be stored.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum PutError {
    /// It does not prove what it claims: the peer's fault, or ([`ProofError::Conflict`]) the writer's.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The writer signed a greater length than is taken. Nobody's fault: the proof is valid.
    #[error("the writer signed {length} blocks, more than the {limit} that are taken")]
    TooLong {
        /// The length that is signed, in blocks.
        length: u64,
        /// The bound, in blocks.
        limit: u64,
    },
    /// The writer signed more bytes than are taken, or the block lies past them. Nobody's fault: the proof is valid.
    #[error("the writer signed {bytes} bytes, more than the {limit} that are taken")]
    TooManyBytes {
        /// The bytes up to the feed's signed end, or up to the block's.
        bytes: u64,
        /// The bound, in bytes.
        limit: u64,
    },
    /// It has another node than the one held, and whose fault that is, is not known yet: [`Feed::resolve`](crate::feed::Feed::resolve) looks
    /// for it.
    #[error("a node of the proof is not the one held, and it is not known yet which of them is wrong")]
    Contradiction(Box<Contradiction>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PutError {
    /// Returns a name for the kind of failure, in the style of the JS error codes.
    pub fn code(&self) -> &'static str {
        match self {
            PutError::Proof(ProofError::Conflict(_)) => "ERR_CONFLICT",
            PutError::Proof(_) | PutError::Contradiction(_) => "ERR_PROOF",
            PutError::TooLong { .. } | PutError::TooManyBytes { .. } => "ERR_LIMIT",
            PutError::Store(error) => error.code(),
        }
    }
}

//! The part of taking in a block that needs no feed: hashing it, on any thread.

use multifeed_proto::Data;

use crate::merkle::leaf_hash;

/// A Data message with the leaf hash of its block.
#[derive(Debug, Clone)]
pub struct PreparedData {
    pub(crate) data: Data,
    pub(crate) leaf: Option<[u8; 32]>,
}

impl PreparedData {
    /// Returns the block that it is about.
    pub fn index(&self) -> u64 {
        self.data.index
    }

    /// Returns the message itself.
    pub fn data(&self) -> &Data {
        &self.data
    }
}

/// Hashes the block of a Data message. This is most of the work of taking it in, and is safe on any thread.
pub fn prepare(data: Data) -> PreparedData {
    let leaf = data.value.as_ref().map(|value| leaf_hash(value));
    PreparedData { data, leaf }
}

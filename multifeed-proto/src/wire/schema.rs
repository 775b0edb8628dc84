//! The protobuf schema of the messages, as npm's simple-hypercore-protocol has it (`schema.proto`). Fields that the schema
//! requires are optional here, so that a missing one can be told from a zero.

use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

/// In the Noise handshake.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NoisePayload {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(crate) nonce: Option<Vec<u8>>,
}

/// Type 0.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Open {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(crate) discovery_key: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) capability: Option<Vec<u8>>,
}

/// Type 1.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Options {
    #[prost(string, repeated, tag = "1")]
    pub(crate) extensions: Vec<String>,
    #[prost(bool, optional, tag = "2")]
    pub(crate) ack: Option<bool>,
}

/// Type 2.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Status {
    #[prost(bool, optional, tag = "1")]
    pub(crate) uploading: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    pub(crate) downloading: Option<bool>,
}

/// Type 3.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Have {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) start: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) length: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub(crate) bitfield: Option<Bytes>,
    #[prost(bool, optional, tag = "4")]
    pub(crate) ack: Option<bool>,
}

/// Types 4, 5 and 6: Unhave, Want, Unwant.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Range {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) start: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) length: Option<u64>,
}

/// Type 8, and type 7 in tests: Request has `nodes` on top.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Cancel {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) index: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) bytes: Option<u64>,
    #[prost(bool, optional, tag = "3")]
    pub(crate) hash: Option<bool>,
    #[prost(uint64, optional, tag = "4")]
    pub(crate) nodes: Option<u64>,
}

/// Type 10.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Close {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(crate) discovery_key: Option<Vec<u8>>,
}

/// Type 9. The session's own codec in [`message`](super::message) reads and writes it without copies; this one checks that in tests.
#[cfg(test)]
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Data {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) index: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(crate) value: Option<Bytes>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) nodes: Vec<Node>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(crate) signature: Option<Vec<u8>>,
}

/// In Data.
#[cfg(test)]
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Node {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) index: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) hash: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) size: Option<u64>,
}

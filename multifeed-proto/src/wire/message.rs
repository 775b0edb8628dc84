//! The messages of a feed's channel, as they are written and read. Byte layouts are those of JS's encoder.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{MessageError, SessionError};
use crate::key::write_short;
use crate::limits::Limits;
use crate::wire::{schema, varint};

/// The largest number in a message: JS peers hold them as doubles.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;

pub mod kind;

/// A message on a feed's channel. Opening and closing are the session's own business.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// The sender's extensions and wishes.
    Options(Options),
    /// What the sender still does. Both sides start as if each had said true, true.
    Status {
        /// Whether it answers requests.
        uploading: bool,
        /// Whether it still wants blocks.
        downloading: bool,
    },
    /// Blocks that the sender has.
    Have(Have),
    /// Blocks that the sender does not have (any more).
    Unhave {
        /// First block.
        start: u64,
        /// Number of blocks.
        length: u64,
    },
    /// The sender wants to hear which of these blocks we have.
    Want {
        /// First block.
        start: u64,
        /// Number of blocks, 0 for all.
        length: u64,
    },
    /// The sender does not want to hear of these blocks any more.
    Unwant {
        /// First block.
        start: u64,
        /// Number of blocks, 0 for all.
        length: u64,
    },
    /// The sender asks for a block.
    Request(Request),
    /// The sender does not need this block any more.
    Cancel {
        /// The block.
        index: u64,
        /// As in the request.
        bytes: u64,
        /// As in the request.
        hash: bool,
    },
    /// A block with its proof.
    Data(Data),
    /// A message of a feed's extension.
    Extension {
        /// The name's index in the sender's sorted list.
        id: u64,
        /// The message.
        body: Bytes,
    },
}

/// A channel's options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Extension names, sorted by UTF-16 code unit.
    pub extensions: Vec<String>,
    /// Whether the sender wants each block that it sends to be acknowledged.
    pub ack: bool,
}

/// Blocks that the sender has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    /// First block.
    pub start: u64,
    /// Number of blocks; 1 if the message has none.
    pub length: u64,
    /// Which of them, as bitfield-rle; all if there is none.
    pub bitfield: Option<Bytes>,
    /// Whether this acknowledges a block that was sent.
    pub ack: bool,
}

/// A request for a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Request {
    /// The block.
    pub index: u64,
    /// If above 0: the block at this byte offset is asked for instead.
    pub bytes: u64,
    /// Whether only the hash and proof are wanted.
    pub hash: bool,
    /// The digest of the proof nodes that the asker has.
    pub nodes: u64,
}

/// A block, or its hash alone, with what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The block.
    pub index: u64,
    /// Its bytes; an empty block is `Some` of no bytes.
    pub value: Option<Bytes>,
    /// Proof nodes that the asker lacked.
    pub nodes: Vec<Node>,
    /// The ed25519 signature of the roots that the proof ends in.
    pub signature: Option<[u8; 64]>,
}

/// A node of a feed's hash tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its flat-tree index.
    pub index: u64,
    /// Its BLAKE2b-256 hash.
    pub hash: [u8; 32],
    /// Bytes of all blocks under it.
    pub size: u64,
}

impl fmt::Debug for Node {
    /// Prints the first four bytes of the hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node {{ index: {}, hash: ", self.index)?;
        write_short(&self.hash, f)?;
        write!(f, ", size: {} }}", self.size)
    }
}

impl Message {
    /// Returns the message's type.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Options(_) => kind::OPTIONS,
            Self::Status { .. } => kind::STATUS,
            Self::Have(_) => kind::HAVE,
            Self::Unhave { .. } => kind::UNHAVE,
            Self::Want { .. } => kind::WANT,
            Self::Unwant { .. } => kind::UNWANT,
            Self::Request(_) => kind::REQUEST,
            Self::Cancel { .. } => kind::CANCEL,
            Self::Data(_) => kind::DATA,
            Self::Extension { .. } => kind::EXTENSION,
        }
    }

    /// Returns how many bytes of body [`encode`](Self::encode) writes.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Have(have) => have.encoded_len(),
            Self::Request(request) => request.encoded_len(),
            Self::Data(data) => data.encoded_len(),
            Self::Extension { id, body } => varint::len(*id) + body.len(),
            Self::Status { .. } => 4,
            Self::Unhave { start, length } | Self::Want { start, length } | Self::Unwant { start, length } => {
                2 + varint::len(*start) + varint::len(*length)
            }
            Self::Cancel { index, bytes, .. } => 4 + varint::len(*index) + varint::len(*bytes),
            Self::Options(options) => {
                let names: usize = options.extensions.iter().map(|name| field_len(name.len())).sum();
                names + 2
            }
        }
    }

    /// Writes the body.
    pub fn encode(&self, buf: &mut BytesMut) {
        match self {
            Self::Have(have) => have.encode(buf),
            Self::Request(request) => request.encode(buf),
            Self::Data(data) => data.encode(buf),
            Self::Extension { id, body } => {
                varint::encode(*id, buf);
                buf.put_slice(body);
            }
            Self::Options(Options { extensions, ack }) => {
                put(&schema::Options { extensions: extensions.clone(), ack: Some(*ack) }, buf);
            }
            Self::Status { uploading, downloading } => {
                put(&schema::Status { uploading: Some(*uploading), downloading: Some(*downloading) }, buf);
            }
            Self::Unhave { start, length } | Self::Want { start, length } | Self::Unwant { start, length } => {
                put(&schema::Range { start: Some(*start), length: Some(*length) }, buf);
            }
            Self::Cancel { index, bytes, hash } => {
                let cancel =
                    schema::Cancel { index: Some(*index), bytes: Some(*bytes), hash: Some(*hash), nodes: None };
                put(&cancel, buf);
            }
        }
    }

    /// Reads the body of a message of this type. `None` for a type that is not a message of a feed's channel.
    pub fn decode(kind: u8, body: Bytes, limits: &Limits) -> Result<Option<Self>, SessionError> {
        Ok(Some(match kind {
            kind::OPTIONS => Self::Options(Options::decode(&body, limits)?),
            kind::STATUS => {
                let status: schema::Status = parse("Status", &body)?;
                Self::Status {
                    uploading: status.uploading.unwrap_or(false),
                    downloading: status.downloading.unwrap_or(false),
                }
            }
            kind::HAVE => Self::Have(Have::decode(&body)?),
            kind::UNHAVE => {
                let (start, length) = range("Unhave", &body, 1)?;
                Self::Unhave { start, length }
            }
            kind::WANT => {
                let (start, length) = range("Want", &body, 0)?;
                Self::Want { start, length }
            }
            kind::UNWANT => {
                let (start, length) = range("Unwant", &body, 0)?;
                Self::Unwant { start, length }
            }
            kind::REQUEST => Self::Request(Request::decode(&body)?),
            kind::CANCEL => {
                let Request { index, bytes, hash, .. } = Request::decode_as("Cancel", &body)?;
                Self::Cancel { index, bytes, hash }
            }
            kind::DATA => Self::Data(Data::decode(&body, limits)?),
            kind::EXTENSION => {
                let (id, body) = extension(body)?;
                Self::Extension { id, body }
            }
            _ => return Ok(None),
        }))
    }
}

impl Options {
    pub(crate) fn decode(body: &Bytes, limits: &Limits) -> Result<Self, SessionError> {
        if body.len() > limits.options_bytes {
            return Err(SessionError::limit("options_bytes", limits.options_bytes));
        }
        // Counted before they are made: an empty name takes two bytes here and 24 there.
        let mut names = 0;
        let mut fields = Fields::new("Options", body);
        while let Some((tag, _)) = fields.next()? {
            names += usize::from(tag == 1);
        }
        if names > limits.extensions {
            return Err(SessionError::limit("extensions", limits.extensions));
        }
        let options: schema::Options = parse("Options", body)?;
        Ok(Self { extensions: options.extensions, ack: options.ack.unwrap_or(false) })
    }
}

impl Have {
    fn encoded_len(&self) -> usize {
        1 + varint::len(self.start)
            + if self.plain() { 0 } else { 1 + varint::len(self.length) }
            + self.bitfield.as_ref().map_or(0, |bitfield| field_len(bitfield.len()))
            + if self.ack { 2 } else { 0 }
    }

    fn encode(&self, buf: &mut BytesMut) {
        buf.put_u8(0x08);
        varint::encode(self.start, buf);
        if !self.plain() {
            buf.put_u8(0x10);
            varint::encode(self.length, buf);
        }
        if let Some(bitfield) = &self.bitfield {
            put_bytes(0x1a, bitfield, buf);
        }
        if self.ack {
            buf.put_slice(&[0x20, 1]);
        }
    }

    /// A single block, which JS announces without a length.
    fn plain(&self) -> bool {
        self.length == 1 && self.bitfield.is_none() && !self.ack
    }

    fn decode(body: &Bytes) -> Result<Self, MessageError> {
        const NAME: &str = "Have";
        let (mut start, mut have) = (None, Self { start: 0, length: 1, bitfield: None, ack: false });
        let mut fields = Fields::new(NAME, body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => start = Some(value.number(NAME)?),
                2 => have.length = value.number(NAME)?,
                3 => have.bitfield = Some(value.bytes(NAME)?),
                4 => have.ack = value.bool(NAME)?,
                _ => {}
            }
        }
        have.start = start.ok_or(MessageError::Missing(NAME, "start"))?;
        Ok(have)
    }
}

impl Request {
    fn encoded_len(&self) -> usize {
        5 + varint::len(self.index) + varint::len(self.bytes) + varint::len(self.nodes)
    }

    fn encode(&self, buf: &mut BytesMut) {
        buf.put_u8(0x08);
        varint::encode(self.index, buf);
        buf.put_u8(0x10);
        varint::encode(self.bytes, buf);
        buf.put_slice(&[0x18, u8::from(self.hash), 0x20]);
        varint::encode(self.nodes, buf);
    }

    fn decode(body: &Bytes) -> Result<Self, MessageError> {
        Self::decode_as("Request", body)
    }

    fn decode_as(name: &'static str, body: &Bytes) -> Result<Self, MessageError> {
        let (mut index, mut request) = (None, Self::default());
        let mut fields = Fields::new(name, body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => index = Some(value.number(name)?),
                2 => request.bytes = value.number(name)?,
                3 => request.hash = value.bool(name)?,
                4 => request.nodes = value.number(name)?,
                _ => {}
            }
        }
        request.index = index.ok_or(MessageError::Missing(name, "index"))?;
        Ok(request)
    }
}

impl Data {
    fn encoded_len(&self) -> usize {
        1 + varint::len(self.index)
            + self.value.as_ref().map_or(0, |value| field_len(value.len()))
            + self.nodes.iter().map(|node| field_len(node.encoded_len())).sum::<usize>()
            + self.signature.map_or(0, |signature| field_len(signature.len()))
    }

    fn encode(&self, buf: &mut BytesMut) {
        buf.put_u8(0x08);
        varint::encode(self.index, buf);
        if let Some(value) = &self.value {
            put_bytes(0x12, value, buf);
        }
        for node in &self.nodes {
            node.encode(buf);
        }
        if let Some(signature) = &self.signature {
            put_bytes(0x22, signature, buf);
        }
    }

    fn decode(body: &Bytes, limits: &Limits) -> Result<Self, SessionError> {
        const NAME: &str = "Data";
        let (mut index, mut data) = (None, Self { index: 0, value: None, nodes: Vec::new(), signature: None });
        let mut fields = Fields::new(NAME, body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => index = Some(value.number(NAME)?),
                2 => data.value = Some(value.bytes(NAME)?),
                3 if data.nodes.len() >= limits.proof_nodes => {
                    return Err(SessionError::limit("proof_nodes", limits.proof_nodes));
                }
                3 => {
                    if data.nodes.is_empty() {
                        // Room for all of them at once: there can be no more than this many.
                        data.nodes.reserve_exact((1 + fields.left() / Node::LEAST).min(limits.proof_nodes));
                    }
                    data.nodes.push(Node::decode(value.fields(NAME, Node::NAME)?)?);
                }
                4 => data.signature = Some(value.array(NAME, "signature")?),
                _ => {}
            }
        }
        data.index = index.ok_or(MessageError::Missing(NAME, "index"))?;
        Ok(data)
    }
}

impl Node {
    const NAME: &str = "Node";

    /// Bytes that one takes in a Data message at the least.
    const LEAST: usize = 40;

    /// Bytes that one takes there at the most: a length that has one byte, two numbers, a hash, and four tags and lengths.
    const MOST: usize = 2 + 2 * (1 + varint::PROTOBUF_MAX) + 2 + 32;

    fn encoded_len(&self) -> usize {
        2 + varint::len(self.index) + field_len(self.hash.len()) + varint::len(self.size)
    }

    /// Writes it as a field of a Data message, in one piece: there are many.
    fn encode(&self, buf: &mut BytesMut) {
        let mut bytes = [0; Self::MOST];
        bytes[2] = 0x08;
        let at = varint::encode_at(self.index, &mut bytes, 3);
        bytes[at..at + 2].copy_from_slice(&[0x12, 32]);
        bytes[at + 2..at + 34].copy_from_slice(&self.hash);
        bytes[at + 34] = 0x18;
        let len = varint::encode_at(self.size, &mut bytes, at + 35);
        bytes[..2].copy_from_slice(&[0x1a, (len - 2) as u8]);
        buf.put_slice(&bytes[..len]);
    }

    /// Reads a node whose fields are all there, once and in order, as encoders write them.
    fn decode_plain(bytes: &[u8]) -> Option<Self> {
        let (index, len) = varint::decode(bytes.strip_prefix(&[0x08])?, varint::PROTOBUF_MAX).ok()??;
        let (hash, rest) = bytes.get(1 + len..)?.strip_prefix(&[0x12, 32])?.split_first_chunk()?;
        let rest = rest.strip_prefix(&[0x18])?;
        let (size, len) = varint::decode(rest, varint::PROTOBUF_MAX).ok()??;
        (len == rest.len() && index.max(size) <= MAX_NUMBER).then_some(Self { index, hash: *hash, size })
    }

    fn decode(mut fields: Fields<'_>) -> Result<Self, MessageError> {
        const NAME: &str = Node::NAME;
        if let Some(node) = fields.rest().and_then(Self::decode_plain) {
            return Ok(node);
        }
        let (mut index, mut hash, mut size) = (None, None, None);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => index = Some(value.number(NAME)?),
                2 => hash = Some(value.array(NAME, "hash")?),
                3 => size = Some(value.number(NAME)?),
                _ => {}
            }
        }
        Ok(Self {
            index: index.ok_or(MessageError::Missing(NAME, "index"))?,
            hash: hash.ok_or(MessageError::Missing(NAME, "hash"))?,
            size: size.ok_or(MessageError::Missing(NAME, "size"))?,
        })
    }
}

/// Splits an Extension's body into its id and its message.
pub(crate) fn extension(mut body: Bytes) -> Result<(u64, Bytes), MessageError> {
    match varint::decode(&body, varint::FRAME_MAX) {
        Ok(Some((id, len))) => Ok((id, body.split_off(len))),
        _ => Err(MessageError::Protobuf("Extension")),
    }
}

/// Reads a rarely sent message through its prost struct, but no more leniently than JS: no groups.
pub(crate) fn parse<M: prost::Message + Default>(name: &'static str, body: &Bytes) -> Result<M, MessageError> {
    let mut fields = Fields::new(name, body);
    while fields.next()?.is_some() {}
    M::decode(body.clone()).map_err(|_| MessageError::Protobuf(name))
}

/// Writes a rarely sent message through its prost struct.
pub(crate) fn put(message: &impl prost::Message, buf: &mut BytesMut) {
    // A BytesMut grows, so it cannot be too small.
    let _ = message.encode(buf);
}

/// A field of exactly `N` bytes.
pub(crate) fn array<const N: usize>(
    name: &'static str,
    field: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], MessageError> {
    bytes.try_into().map_err(|_| MessageError::Size(name, field, bytes.len()))
}

/// A required field is missing.
pub(crate) fn missing(name: &'static str, field: &'static str) -> MessageError {
    MessageError::Missing(name, field)
}

fn range(name: &'static str, body: &Bytes, default: u64) -> Result<(u64, u64), MessageError> {
    let range: schema::Range = parse(name, body)?;
    let start = range.start.ok_or(MessageError::Missing(name, "start"))?;
    let length = range.length.unwrap_or(default);
    if start.max(length) > MAX_NUMBER { Err(MessageError::Number(name)) } else { Ok((start, length)) }
}

/// Bytes of a length-delimited field with a tag of one byte.
fn field_len(len: usize) -> usize {
    1 + varint::len(len as u64) + len
}

fn put_bytes(tag: u8, bytes: &[u8], buf: &mut BytesMut) {
    buf.put_u8(tag);
    varint::encode(bytes.len() as u64, buf);
    buf.put_slice(bytes);
}

/// Walks over a protobuf's fields without copying.
struct Fields<'a> {
    name: &'static str,
    body: &'a Bytes,
    at: usize,
    end: usize,
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a Bytes, usize, usize),
    Fixed,
}

impl<'a> Fields<'a> {
    fn new(name: &'static str, body: &'a Bytes) -> Self {
        Self { name, body, at: 0, end: body.len() }
    }

    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, MessageError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let prefix = self.varint()?;
        let tag = prefix >> 3;
        if tag == 0 || prefix > u64::from(u32::MAX) {
            return Err(self.bad());
        }
        let field = match prefix & 7 {
            0 => Field::Number(self.varint()?),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| self.bad())?;
                let start = self.at;
                self.skip(len)?;
                Field::Bytes(self.body, start, self.at)
            }
            1 => {
                self.skip(8)?;
                Field::Fixed
            }
            5 => {
                self.skip(4)?;
                Field::Fixed
            }
            // Groups are as unknown to JS as the rest.
            _ => return Err(self.bad()),
        };
        Ok(Some((tag, field)))
    }

    /// What was not read yet.
    fn rest(&self) -> Option<&'a [u8]> {
        self.body.get(self.at..self.end)
    }

    /// Bytes that were not read yet.
    fn left(&self) -> usize {
        self.end - self.at
    }

    fn varint(&mut self) -> Result<u64, MessageError> {
        match varint::decode(self.rest().unwrap_or_default(), varint::PROTOBUF_MAX) {
            Ok(Some((value, len))) => {
                self.at += len;
                Ok(value)
            }
            _ => Err(self.bad()),
        }
    }

    fn skip(&mut self, len: usize) -> Result<(), MessageError> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.end).ok_or(self.bad())?;
        self.at = end;
        Ok(())
    }

    fn bad(&self) -> MessageError {
        MessageError::Protobuf(self.name)
    }
}

impl<'a> Field<'a> {
    /// The fields of a message inside the message.
    fn fields(&self, outer: &'static str, name: &'static str) -> Result<Fields<'a>, MessageError> {
        match *self {
            Self::Bytes(body, at, end) => Ok(Fields { name, body, at, end }),
            _ => Err(MessageError::Protobuf(outer)),
        }
    }

    fn number(&self, name: &'static str) -> Result<u64, MessageError> {
        match *self {
            Self::Number(value) if value <= MAX_NUMBER => Ok(value),
            Self::Number(_) => Err(MessageError::Number(name)),
            _ => Err(MessageError::Protobuf(name)),
        }
    }

    fn bool(&self, name: &'static str) -> Result<bool, MessageError> {
        match *self {
            Self::Number(value) => Ok(value != 0),
            _ => Err(MessageError::Protobuf(name)),
        }
    }

    fn bytes(&self, name: &'static str) -> Result<Bytes, MessageError> {
        match *self {
            Self::Bytes(body, start, end) => Ok(body.slice(start..end)),
            _ => Err(MessageError::Protobuf(name)),
        }
    }

    fn array<const N: usize>(&self, name: &'static str, field: &'static str) -> Result<[u8; N], MessageError> {
        match *self {
            Self::Bytes(body, start, end) => array(name, field, body.get(start..end).unwrap_or_default()),
            _ => Err(MessageError::Protobuf(name)),
        }
    }
}

#[cfg(test)]
mod tests;

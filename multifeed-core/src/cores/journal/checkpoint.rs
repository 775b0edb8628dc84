//! What the journal says of one feed, and of a removal.

use multifeed_proto::FeedKey;

use crate::bitfield::Marks;
use crate::storage::Slot;

/// The longest name of a writer that is noted, in bytes. JS writes names of any length.
const MAX_NAME: usize = 1024;

/// What was known of a feed at some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// What stands for its key.
    pub(crate) key: [u8; 8],
    /// Its length in blocks.
    pub(crate) length: u64,
    /// The start of its root hash.
    pub(crate) root: [u8; 8],
    /// Whether all of it was fsynced; else it was written when the store was closed.
    pub(crate) synced: bool,
    /// Whether a feed that is written here had been found to be longer than what was held of it, and is still to be fetched.
    pub(crate) writer_behind: bool,
    /// What was verified then.
    pub(crate) seal: Option<VerifiedSignature>,
    /// What the storage said of the feed's files when the store was closed, [`Storage::stamp`](crate::Storage::stamp): as long as it says the same,
    /// all that the checkpoint says is so.
    pub(crate) stamp: Option<Stamp>,
    /// Of a remote feed, the pages of its bitfield that have anything. Journals of earlier builds, which have no stamp, leave the index out.
    pub(crate) pages: Marks,
    /// Which writer it is, of a feed that is written here. Journals of earlier builds do not tell.
    pub(crate) writer: Option<Box<Writer>>,
}

/// What tells that a feed's files are those that were closed, and what would have to be looked for in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// What the storage said of them.
    pub(crate) files: [u8; 8],
    /// The roots of a feed that is so long that they lie far apart, as `tree` has them; else nothing.
    pub(crate) roots: Box<[u8]>,
}

/// Who a writer is, to report if the folder is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) key: FeedKey,
    /// The name; `None` if that is the folder's number, or is too long to be noted.
    pub(crate) name: Option<String>,
}

/// What was verified of a feed, to be known again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct VerifiedSignature {
    /// A checksum of the signature of its length.
    pub(crate) signature: [u8; 8],
    /// Of a feed that is written here, a checksum of its secret key, which tells less of that than the public key; or [`ELSEWHERE`](Self::ELSEWHERE).
    pub(crate) secret: [u8; 8],
}

impl VerifiedSignature {
    /// Stands for the secret key of a writer that a signer of the application's signs for.
    pub(crate) const ELSEWHERE: [u8; 8] = *b"a signer";

    /// Whether this is the signature that was verified.
    pub(crate) fn is_over(&self, signature: &[u8; 64]) -> bool {
        self.signature == Self::checksum(signature)
    }

    /// The checksum of a signature or a secret key: eight bytes of BLAKE2b.
    pub(crate) fn checksum(bytes: &[u8; 64]) -> [u8; 8] {
        start(blake2b_simd::Params::new().hash_length(8).personal(b"multifeed seal").hash(bytes).as_bytes())
    }
}

/// A feed that is being taken out of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removal {
    /// Its folder.
    pub(crate) slot: Slot,
    pub(super) key: [u8; 8],
    /// The folder that will have its number, and what stands for the key in it.
    pub(super) last: Option<(Slot, [u8; 8])>,
}

impl Checkpoint {
    pub(crate) fn is_of(&self, key: &FeedKey) -> bool {
        name(key) == self.key
    }

    /// Whether it says the same of a feed, whatever files that is in.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        let Self { key, length, root, synced, writer_behind, seal, stamp: _, pages, writer } = self;
        (key, length, root, synced, writer_behind)
            == (&other.key, &other.length, &other.root, &other.synced, &other.writer_behind)
            && (seal, pages, writer) == (&other.seal, &other.pages, &other.writer)
    }

    pub(crate) fn new(key: &FeedKey, length: u64, root_hash: &[u8; 32]) -> Self {
        Self { key: name(key), length, root: start(root_hash), ..Self::default() }
    }

    /// Whether the feed was written here when its newest signature was verified.
    pub(crate) fn is_of_a_writer(&self) -> bool {
        self.writer.is_some() || self.seal.is_some_and(|seal| seal.secret != [0; 8])
    }

    /// Which writer it is, and what stands for its secret key.
    pub(crate) fn as_unread_writer(&self) -> Option<Box<(Writer, [u8; 8])>> {
        let secret = self.seal.map_or([0; 8], |seal| seal.secret);
        self.writer.as_ref().map(|writer| Box::new(((**writer).clone(), secret)))
    }

    /// Whether a signer of the application's signs for it.
    pub(crate) fn is_signed_elsewhere(&self) -> bool {
        self.seal.is_some_and(|seal| seal.secret == VerifiedSignature::ELSEWHERE)
    }

    pub(crate) fn has_root(&self, root_hash: &[u8; 32]) -> bool {
        self.root == start(root_hash)
    }
}

impl Writer {
    /// The key, then the name's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.key.as_bytes().to_vec();
        bytes.extend_from_slice(
            self.name.as_deref().filter(|name| name.len() <= MAX_NAME).unwrap_or_default().as_bytes(),
        );
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (key, name) = bytes.split_first_chunk()?;
        let name = String::from_utf8(name.to_vec()).ok().filter(|name| !name.is_empty());
        Some(Self { key: FeedKey::new(*key), name })
    }
}

impl Removal {
    /// Of the feed in a folder; `last` is the last folder of the store, if it is another one.
    pub(crate) fn new(slot: Slot, key: &FeedKey, last: Option<(Slot, FeedKey)>) -> Self {
        let last = last.map(|(slot, key)| (slot, name(&key)));
        Self { slot, key: name(key), last }
    }

    /// As it is, with another folder to take the number.
    pub(crate) fn with_last(self, last: Option<(Slot, FeedKey)>) -> Self {
        Self { last: last.map(|(slot, key)| (slot, name(&key))), ..self }
    }

    /// Whether this is the key of the feed that has to go.
    pub(crate) fn is_of(&self, key: &FeedKey) -> bool {
        name(key) == self.key
    }

    /// Returns the folder that will take the number, if this is the key in it.
    pub(crate) fn last_with(&self, key: &FeedKey) -> Option<Slot> {
        self.last.filter(|(_, last)| *last == name(key)).map(|(slot, _)| slot)
    }
}

/// What stands for a key: eight bytes of BLAKE2b over all of it, so that one in which a bit flipped is another one.
pub(crate) fn name(key: &FeedKey) -> [u8; 8] {
    start(blake2b_simd::Params::new().hash_length(8).personal(b"multifeed key").hash(key.as_bytes()).as_bytes())
}

pub(super) fn start(bytes: &[u8]) -> [u8; 8] {
    bytes.first_chunk().copied().unwrap_or_default()
}

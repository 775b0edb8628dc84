//! A feed: blocks that one writer appends, each provable to lie under the writer's signature.

mod append;
mod cache;
mod checked;
mod clear;
mod cleared;
mod conflict;
mod join;
mod key_files;
mod known;
pub(crate) mod local_name;
mod oversized;
mod put;
mod read;
mod recovery;
#[cfg(test)]
mod rot;
mod served;
mod staging;
mod unchanged;
mod verify;

use std::cell::OnceCell;

use ed25519_dalek::VerifyingKey;
use multifeed_proto::{DiscoveryKey, FeedKey, Node};

use crate::bitfield::{Bitfield, DEFAULT_PAGE_BYTES};
use crate::cores::journal::{Checkpoint, Journal, VerifiedSignature, Writer};
use crate::error::StoreError;
use crate::feed::local_name::is_key_name;
use crate::keys::key_pair::KeyPair;
use crate::keys::signatures;
use crate::limits::{Limits, MAX_FEED_BLOCKS};
use crate::merkle;
use crate::storage::{FileId, FileKind, RepairedInMemory, Slot, Storage};
use cache::{NodeCache, Window};
use cleared::Cleared;
use staging::Staged;

pub use clear::Audit;
pub(crate) use join::Relation;
pub(crate) use put::Compared;
pub use put::Put;
pub use read::{Answer, Located, Place, SignatureSearch};
use recovery::Refused;
pub use recovery::report::Recovered;
pub use verify::{Finding, Problem, VerifyCursor, VerifyStep};

/// Bytes in front of `tree`, `signatures` and `bitfield`.
const HEADER: usize = 32;
/// Bytes of a node in `tree`: its hash and its size.
const NODE: usize = 40;
/// Bytes of a signature.
const SIGNATURE: usize = 64;
/// Signatures that are read at once in search of one.
const SIGNATURES_AT_ONCE: u64 = 1024;
/// Blocks that a page of the bitfield is about, in JS and here.
const BLOCKS_OF_A_PAGE: u64 = 8192;

/// A feed whose files are in a [`Storage`], which is passed to every call that needs it.
///
/// One owner, no locks: what it holds in memory is the bitfield, the roots of its length, what [`put`](Self::put) staged and
/// [`flush`](Self::flush) has not written yet, and caches that [`trim`](Self::trim) drops.
#[derive(Debug)]
pub struct Feed {
    slot: Slot,
    key: FeedKey,
    key_pair: Option<Box<KeyPair>>,
    local_name: Option<String>,
    /// `None` inside where the key is no point on the curve: no signature is then valid.
    verifying: OnceCell<Option<Box<VerifyingKey>>>,
    /// The roots of the length, from left to right; the length and the byte length follow from them.
    roots: Vec<Node>,
    length: u64,
    byte_length: u64,
    bitfield: Bitfield,
    /// A length, and the checksum of a signature that was held against the key over it.
    verified: Option<(u64, [u8; 8])>,
    /// The root hash and the checksum of a signature over it that was checked when it was last sent.
    served_signature: Option<([u8; 32], [u8; 8])>,
    staged: Staged,
    nodes: NodeCache,
    window: Window,
    /// Where the block after the one last read begins, and after the one last put.
    read_cursor: Cursor,
    put_cursor: Cursor,
    recovered: Option<Box<Recovered>>,
    /// It is written here, and was found to be longer than what was held of it.
    writer_behind: bool,
    /// Of one that is written here, the blocks that were cleared, if there are any.
    cleared: Option<Box<Cleared>>,
    /// What the journal knew, if less was here when it was opened.
    known_before: Option<Box<Checkpoint>>,
    /// More of it may have been signed than is here, and no journal tells.
    refused: Option<Box<Refused>>,
    /// Nothing of it was written since.
    untouched: bool,
    /// Of a feed that was fetched, less is here than the journal knows, or its signature is lost.
    incomplete: bool,
    /// That was another history than the one that is here.
    forked: bool,
    /// How far a signature was looked for over a node that contradicts another one.
    searched: Option<Box<conflict::Search>>,
    /// An append failed, and may have left its signature past the length.
    append_failed: bool,
    /// While it is opened, how many bytes of zeros may be read still.
    zeros_left: u64,
    /// How much of it remotes may see, where that is not all.
    served: Option<u64>,
    /// Whether `key` is known to be on the disk.
    key_synced: bool,
    /// Whether its files were, when it was opened, as the journal had them.
    unchanged: bool,
    /// Which writer the journal says it is, if the secret key is there and the disk does not give it.
    unread_writer: Option<Box<Writer>>,
}

/// What opening the feeds of a store shares.
#[derive(Debug)]
pub(crate) struct Opening {
    /// How many bytes of zeros may still be read in search of what is behind them: see [`Limits::opening_zeros`].
    pub(crate) zeros: u64,
    /// What of the files of the feed that was opened last could not be read, or was wrong, beside its blocks.
    pub(crate) unread: Vec<StoreError>,
    /// It had a name that is another writer's now, and is named by its key.
    pub(crate) renamed: bool,
}

impl Opening {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { zeros: limits.opening_zeros, unread: Vec::new(), renamed: false }
    }
}

/// The place of a block in `data`.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    block: u64,
    offset: u64,
}

impl Feed {
    /// Makes a feed in an empty folder, with JS's very bytes: writable with a key pair, else a copy of a remote one. JS names it by the name, where
    /// one is given, else by the folder's number.
    ///
    /// The `key` file is written last: a folder without one, and without a secret key, is no feed.
    ///
    /// # Errors
    /// [`StoreError::Occupied`] where the folder holds a feed, or blocks of one that lost its key;
    /// [`StoreError::KeyMismatch`] where the key pair is another's; else what the storage says.
    pub fn create<S: Storage + ?Sized>(
        storage: &mut S,
        slot: Slot,
        key: FeedKey,
        key_pair: Option<&KeyPair>,
        name: Option<&str>,
    ) -> Result<Feed, StoreError> {
        if key_pair.is_some_and(|pair| pair.public_key() != key) {
            return Err(StoreError::KeyMismatch { key });
        }
        Files { storage, slot }.make(&key, key_pair, name)?;
        Ok(Self::new(slot, key, key_pair.cloned(), name.map(str::to_owned), Bitfield::new()))
    }

    /// A feed of which nothing is held, and that has no folder: what is put into it stays staged until it has
    /// [settled](Self::settle) in one.
    pub(crate) fn offered(key: FeedKey) -> Feed {
        Self::new(Slot::NOWHERE, key, None, None, Bitfield::new())
    }

    /// Whether it has a folder.
    pub(crate) fn is_settled(&self) -> bool {
        self.slot != Slot::NOWHERE
    }

    /// Makes the folder of a feed that has none, as [`create`](Self::create) does; what is staged can then be written.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub(crate) fn settle<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        slot: Slot,
        name: Option<&str>,
    ) -> Result<(), StoreError> {
        Files { storage, slot }.make(&self.key, None, name)?;
        self.slot = slot;
        self.local_name = name.map(str::to_owned);
        // What was read was read of no files.
        self.trim();
        Ok(())
    }

    /// What stands for a feed that is in no folder any more: it holds nothing, and cannot be appended to.
    pub(crate) fn gone(key: FeedKey, name: String) -> Feed {
        Self::new(Slot::NOWHERE, key, None, Some(name), Bitfield::new())
    }

    /// Its folder has another number now.
    pub(crate) fn move_to(&mut self, slot: Slot) {
        self.slot = slot;
    }

    /// It has another name now.
    pub(crate) fn set_local_name(&mut self, name: String) {
        self.local_name = Some(name);
    }

    /// Whether a folder is what a creation left that was cut short, so that another feed can be created there.
    ///
    /// # Errors
    /// What the storage says.
    pub fn is_vacant<S: Storage + ?Sized>(storage: &mut S, slot: Slot) -> Result<bool, StoreError> {
        Ok(Files { storage, slot }.leftovers()?.is_some())
    }

    /// Whether a folder without a key holds what a feed that was new may have left in it, or nothing of a feed's: what of `tree`, `signatures`
    /// and `bitfield` is there begins as such files do, or with the zeros of a write that a crash lost. `data` alone tells nothing, and may be
    /// anybody's. A crash leaves that of a feed only with [`Durability::None`](crate::Durability::None): else `key` is synced before it.
    pub(crate) fn is_remnant<S: Storage + ?Sized>(storage: &mut S, slot: Slot) -> Result<bool, StoreError> {
        Files { storage, slot }.is_remnant()
    }

    /// The name of the writer in a folder, whether it can be opened or not.
    ///
    /// # Errors
    /// What the storage says.
    pub fn name_in<S: Storage + ?Sized>(storage: &mut S, slot: Slot) -> Result<Option<String>, StoreError> {
        Files { storage, slot }.read_text(FileKind::LocalName)
    }

    /// Opens the feed in a folder, and sets right what a crash left behind; [`recovered`](Self::recovered) then tells what.
    ///
    /// This is cheap. Checked are: the keys; that `tree` reaches as far as the bitfield says; the newest signature
    /// against its roots; the last held block against its leaf, and 13 levels of that leaf's path upward. [`verify`](Self::verify_step)
    /// checks everything. A feed loses the marks of blocks that are not there, and keeps its length, as long as that is signed and its roots are
    /// there or can be made again. A writable feed takes up blocks that were signed and written but not yet marked; where its newest signature is
    /// gone and every block is there, it is signed again. If its length is not proven the folder is damaged: a shorter feed would sign a second
    /// history. A remote feed then returns to a length that is.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the keys or headers are not what they must be, with the folder untouched;
    /// [`StoreError::Locked`] where a JS hypercore has it; else what the storage says.
    pub fn open<S: Storage + ?Sized>(storage: &mut S, slot: Slot) -> Result<Feed, StoreError> {
        let mut opening = Opening::new(&Limits::default());
        let feed = Self::open_known(storage, slot, &Journal::default(), &mut opening)?;
        let refusal = feed.refusal().cloned();
        opening.unread.pop().or(refusal).map_or(Ok(feed), Err)
    }

    /// As [`open`](Self::open), with what a journal knows of the feed: where the store was not closed, all that it does not know is
    /// checked, and a writable feed goes back to the newest length that is signed and whole, but not below the one that it knows.
    ///
    /// A `secret_key` that the disk does not give, or that is not the one of `key`, makes the feed read-only, if there is nothing to repair: a repair of
    /// a feed that is not written here could cut what its writer signed. A `localname` that the disk does not give, or that is not what the journal
    /// knows, is taken from the journal. A part of `bitfield` that the disk does not give marks nothing. All of it is added to `opening`.
    pub(crate) fn open_known<S: Storage + ?Sized>(
        storage: &mut S,
        slot: Slot,
        journal: &Journal,
        opening: &mut Opening,
    ) -> Result<Feed, StoreError> {
        match (Files { storage, slot }).key_pair(journal, opening) {
            Ok(pair) => Self::open_as(storage, slot, pair, journal, opening),
            Err(unread)
                if unread.is_of_a_writer()
                    && (unread.is_of_the_disk() || matches!(unread, StoreError::Damaged { .. })) =>
            {
                let mut untouched = RepairedInMemory::new(storage);
                let told = opening.unread.len();
                // A feed without a block shows nobody whether `key` is the one that rotted.
                let may_be = |feed: &Feed| !feed.is_empty() || journal.mark(slot, &feed.key).is_some();
                match Self::open_as(&mut untouched, slot, None, journal, opening) {
                    Ok(mut feed)
                        if !untouched.is_repaired()
                            && feed.older_copy().is_none()
                            && (unread.is_of_the_disk() || may_be(&feed)) =>
                    {
                        let known = journal.mark(slot, &feed.key).and_then(|mark| mark.writer.clone());
                        feed.unread_writer = known;
                        opening.unread.push(unread);
                        Ok(feed)
                    }
                    _ => {
                        opening.unread.truncate(told);
                        Err(unread)
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    fn open_as<S: Storage + ?Sized>(
        storage: &mut S,
        slot: Slot,
        key_pair: Option<KeyPair>,
        journal: &Journal,
        opening: &mut Opening,
    ) -> Result<Feed, StoreError> {
        let mut files = Files { storage, slot };
        let key = match &key_pair {
            Some(pair) => pair.public_key(),
            None => files.readers_key(journal, opening)?,
        };
        let mark = match key_pair {
            Some(_) => journal.mark_of_writer(slot, &key),
            None => journal.mark(slot, &key),
        };
        let local_name = match files.read_text(FileKind::LocalName) {
            Err(unread) if unread.is_of_the_disk() => {
                opening.unread.push(unread);
                mark.and_then(|mark| mark.writer.as_ref()?.name.clone())
            }
            name => {
                let name = name?;
                let known = mark.and_then(|mark| mark.writer.as_ref()?.name.clone());
                // It was being named by its key, if it is: nothing rots to that.
                let is_right =
                    |known: &String| name.as_ref().is_some_and(|name| name == known || is_key_name(name, &key));
                match known.filter(|known| key_pair.is_some() && !is_right(known)) {
                    Some(known) => {
                        opening.renamed = is_key_name(&known, &key);
                        opening.unread.extend(files.write_name_again(name.as_deref(), &known, &key));
                        Some(known)
                    }
                    None => name,
                }
            }
        };
        // A remote feed's folder can hold the name of a writer that stood there before; JS would believe it.
        let local_name = local_name.filter(|name| key_pair.is_some() || is_key_name(name, &key));
        if let Some(mark) = mark.filter(|_| key_pair.is_none() && !journal.is_unclean())
            && let Some(feed) = Self::open_unchanged(storage, slot, key, &local_name, mark)?
        {
            return Ok(feed);
        }
        let (bitfield, missing) = Files { storage, slot }.load_bitfield(opening)?;
        let mut feed = Self::new(slot, key, key_pair, local_name, bitfield);
        if let Some(other) = journal.mark_of_another(slot, &key) {
            feed.check_key(storage, other)?;
        }
        feed.zeros_left = opening.zeros;
        let recovered = feed.recover(storage, mark, journal.is_unclean(), &mut opening.unread);
        opening.zeros = std::mem::replace(&mut feed.zeros_left, u64::MAX);
        recovered?;
        feed.writer_behind |= feed.writable() && mark.is_some_and(|mark| mark.writer_behind);
        // One that may have been longer takes nothing before a remote shows that it was.
        feed.writer_behind = feed.is_writer_behind() && feed.refused.is_none();
        for (kind, header) in missing.into_iter().filter(|_| feed.refused.is_none()) {
            Files { storage, slot }.write(kind, 0, &header)?;
        }
        feed.trim();
        Ok(feed)
    }

    fn new(
        slot: Slot,
        key: FeedKey,
        key_pair: Option<KeyPair>,
        local_name: Option<String>,
        bitfield: Bitfield,
    ) -> Feed {
        Feed {
            slot,
            key,
            key_pair: key_pair.map(Box::new),
            local_name,
            verifying: OnceCell::new(),
            roots: Vec::new(),
            length: 0,
            byte_length: 0,
            bitfield,
            verified: None,
            served_signature: None,
            staged: Staged::default(),
            nodes: NodeCache::default(),
            window: Window::default(),
            read_cursor: Cursor::default(),
            put_cursor: Cursor::default(),
            recovered: None,
            writer_behind: false,
            cleared: None,
            known_before: None,
            refused: None,
            untouched: false,
            incomplete: false,
            forked: false,
            searched: None,
            append_failed: false,
            zeros_left: u64::MAX,
            served: None,
            key_synced: false,
            unchanged: false,
            unread_writer: None,
        }
    }

    /// The public key.
    pub fn key(&self) -> FeedKey {
        self.key
    }

    /// The discovery key, which names the feed's channel on the wire.
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.key.discovery_key()
    }

    /// The folder.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Whether the secret key is here.
    pub fn writable(&self) -> bool {
        self.key_pair.is_some()
    }

    /// Whether a feed that is written here was found to be longer than what was held of it, as an old copy is, and not all of it is here yet.
    pub(crate) fn is_writer_behind(&self) -> bool {
        self.writer_behind && self.downloaded() < self.length
    }

    /// Whether the signature of its length is lost, of a feed that the journal proves.
    pub(crate) fn lacks_signature(&self) -> bool {
        let is_verified = self.verified.is_some_and(|(length, _)| length == self.length);
        self.length > 0 && !self.writable() && !is_verified && !self.is_static()
    }

    /// Whether what opening it found missing is all there now; that is said once.
    pub(crate) fn was_mended(&mut self) -> bool {
        let is_mended = self.incomplete && self.newer_mark().is_none() && !self.lacks_signature();
        self.incomplete &= !is_mended;
        is_mended
    }

    /// The key pair, where the feed is writable.
    pub fn key_pair(&self) -> Option<&KeyPair> {
        self.key_pair.as_deref()
    }

    /// The writer's local name; a remote feed has none, unless it had to be named by its key.
    pub fn local_name(&self) -> Option<&str> {
        self.local_name.as_deref()
    }

    /// The length in blocks, as far as a signature is known.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The length in bytes.
    pub fn byte_len(&self) -> u64 {
        self.byte_length
    }

    /// Whether a block is held.
    pub fn has(&self, index: u64) -> bool {
        self.bitfield.get(index)
    }

    /// How many blocks are held.
    pub fn downloaded(&self) -> u64 {
        self.bitfield.count()
    }

    /// Which blocks are held.
    pub fn bitfield(&self) -> &Bitfield {
        &self.bitfield
    }

    /// What [`open`](Self::open) had to set right; `None` after a clean one.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.recovered.as_deref()
    }

    /// What a request for this block tells about the nodes that are held: the `nodes` of a Request.
    pub fn digest(&self, index: u64) -> u64 {
        index.checked_mul(2).map_or(0, |node| merkle::digest(&self.bitfield, node))
    }

    /// Drops all caches, and memory that is kept for what may come. Nothing is lost but time.
    pub fn trim(&mut self) {
        self.nodes = NodeCache::default();
        self.window = Window::default();
        self.verifying = OnceCell::new();
        if let Some(pair) = &mut self.key_pair {
            pair.rest();
        }
        self.roots.shrink_to_fit();
        self.bitfield.shrink();
    }

    /// Whether this is the writer's signature of a tree: over root hash and length, or, as older feeds have it, over the
    /// root hash alone.
    fn signature_is_valid(&self, root_hash: &[u8; 32], blocks: u64, signature: &[u8; SIGNATURE]) -> bool {
        let key = self.verifying.get_or_init(|| VerifyingKey::from_bytes(self.key.as_bytes()).ok().map(Box::new));
        let Some(key) = key else { return false };
        signatures::is_valid(key, &merkle::signable(root_hash, blocks), signature)
            || signatures::is_valid(key, root_hash, signature)
    }

    /// Notes the signature of a length, which was held against the key.
    fn verified(&mut self, length: u64, signature: &[u8; SIGNATURE]) {
        self.verified = Some((length, VerifiedSignature::checksum(signature)));
    }

    /// A node that is held: staged, or read from `tree`.
    fn node<S: Storage + ?Sized>(&mut self, storage: &mut S, index: u64) -> Result<Node, StoreError> {
        if let Some(node) = self.find_node(storage, index)? {
            return Ok(node);
        }
        self.regain_node(storage, index)?.ok_or_else(|| {
            StoreError::damaged(self.slot, FileKind::Tree, format!("node {index} is marked as held, and is not there"))
        })
    }

    /// A node, where there is one: zeros are none.
    fn find_node<S: Storage + ?Sized>(&mut self, storage: &mut S, index: u64) -> Result<Option<Node>, StoreError> {
        if let Some(node) = self.staged.node(index) {
            return Ok(Some(node));
        }
        self.nodes.get(storage, self.slot, index)
    }

    /// The signature of a length, where there is one: zeros are none.
    fn signature<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        blocks: u64,
    ) -> Result<Option<[u8; SIGNATURE]>, StoreError> {
        let Some(position) = blocks.checked_sub(1).filter(|position| *position < MAX_FEED_BLOCKS) else {
            return Ok(None);
        };
        if let Some(signature) = self.staged.signature(position) {
            return Ok(Some(signature));
        }
        let mut signature = [0; SIGNATURE];
        let mut files = Files { storage, slot: self.slot };
        let count = files.read(FileKind::Signatures, signature_offset(position), &mut signature)?;
        Ok((count == SIGNATURE && signature != [0; SIGNATURE]).then_some(signature))
    }

    /// The first position from this one on, and before `end`, where a signature may be: whole stretches where none was written are passed over.
    fn next_signature_place<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        from: u64,
        end: u64,
    ) -> Result<Option<u64>, StoreError> {
        if from >= end {
            return Ok(None);
        }
        let written = self.next_entry(storage, FileKind::Signatures, SIGNATURE, from)?;
        let staged = self.staged.next_signature(from);
        Ok(written.into_iter().chain(staged).min().filter(|position| *position < end))
    }
}

fn node_offset(index: u64) -> u64 {
    HEADER as u64 + index * NODE as u64
}

fn signature_offset(position: u64) -> u64 {
    HEADER as u64 + position * SIGNATURE as u64
}

/// The headers that JS writes: `05 02 57`, type, version 0, entry size as u16 BE, and the algorithm's name with its length.
fn headers(page_bytes: usize) -> [(FileKind, [u8; HEADER]); 3] {
    let header = |kind: u8, size: usize, name: &[u8]| {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&[5, 2, 0x57, kind]);
        header[5..7].copy_from_slice(&(size as u16).to_be_bytes());
        header[7] = name.len() as u8;
        header[8..8 + name.len()].copy_from_slice(name);
        header
    };
    [
        (FileKind::Bitfield, header(0, page_bytes, b"")),
        (FileKind::Signatures, header(1, SIGNATURE, b"Ed25519")),
        (FileKind::Tree, header(2, NODE, b"BLAKE2b")),
    ]
}

/// The files of one feed, with typed errors.
struct Files<'a, S: ?Sized> {
    storage: &'a mut S,
    slot: Slot,
}

impl<S: Storage + ?Sized> Files<'_, S> {
    fn id(&self, kind: FileKind) -> FileId {
        FileId::new(self.slot, kind)
    }

    /// Makes a feed in an empty folder; its key comes last.
    fn make(&mut self, key: &FeedKey, key_pair: Option<&KeyPair>, name: Option<&str>) -> Result<(), StoreError> {
        let slot = self.slot;
        match self.leftovers()? {
            None => return Err(StoreError::Occupied { slot }),
            Some(false) => {}
            Some(true) => self.storage.remove(slot).map_err(|error| StoreError::from_slot(slot, "clear", error))?,
        }

        if let Some(name) = name {
            self.replace(FileKind::LocalName, name.as_bytes())?;
        }
        if let Some(pair) = key_pair {
            self.replace(FileKind::SecretKey, &*pair.secret_key())?;
        }
        for (kind, header) in headers(DEFAULT_PAGE_BYTES) {
            self.write(kind, 0, &header)?;
        }
        // A lost copy is fetched again; a lost writer is not, and it is worth the wait for the disk.
        match key_pair {
            Some(_) => self.replace(FileKind::Key, key.as_bytes()),
            None => self.write(FileKind::Key, 0, key.as_bytes()),
        }
    }

    fn len(&mut self, kind: FileKind) -> Result<Option<u64>, StoreError> {
        if self.slot == Slot::NOWHERE {
            return Ok(None);
        }
        let id = self.id(kind);
        self.storage.len(id).map_err(|error| StoreError::from_file(id, "look at", error))
    }

    fn read(&mut self, kind: FileKind, offset: u64, buf: &mut [u8]) -> Result<usize, StoreError> {
        if self.slot == Slot::NOWHERE {
            return Ok(0);
        }
        let id = self.id(kind);
        self.storage.read_at(id, offset, buf).map_err(|error| StoreError::from_file(id, "read", error))
    }

    /// The first offset from this one on that may hold anything but zeros.
    fn next_data(&mut self, kind: FileKind, offset: u64) -> Result<Option<u64>, StoreError> {
        if self.slot == Slot::NOWHERE {
            return Ok(None);
        }
        let id = self.id(kind);
        self.storage.next_data(id, offset).map_err(|error| StoreError::from_file(id, "read", error))
    }

    /// How many bytes from this offset on, up to `end`, are a hole of the file.
    fn hole_at(&mut self, kind: FileKind, offset: u64, end: u64) -> Result<u64, StoreError> {
        let data = self.next_data(kind, offset)?.unwrap_or(u64::MAX);
        Ok(data.min(end).saturating_sub(offset))
    }

    fn write(&mut self, kind: FileKind, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        let id = self.id(kind);
        self.storage.write_at(id, offset, data).map_err(|error| StoreError::from_file(id, "write", error))
    }

    fn truncate(&mut self, kind: FileKind, len: u64) -> Result<(), StoreError> {
        let id = self.id(kind);
        self.storage.truncate(id, len).map_err(|error| StoreError::from_file(id, "cut", error))
    }

    fn punch(&mut self, kind: FileKind, range: core::ops::Range<u64>) -> Result<(), StoreError> {
        let id = self.id(kind);
        self.storage.punch(id, range).map_err(|error| StoreError::from_file(id, "make a hole in", error))
    }

    fn sync(&mut self, kind: FileKind) -> Result<(), StoreError> {
        let id = self.id(kind);
        self.storage.sync(id).map_err(|error| StoreError::from_file(id, "sync", error))
    }

    fn replace(&mut self, kind: FileKind, data: &[u8]) -> Result<(), StoreError> {
        let id = self.id(kind);
        self.storage.replace(id, data).map_err(|error| StoreError::from_file(id, "write", error))
    }

    /// A file of exactly so many bytes, or `None` where it is absent.
    fn read_exactly<const N: usize>(&mut self, kind: FileKind) -> Result<Option<[u8; N]>, StoreError> {
        let Some(len) = self.len(kind)? else { return Ok(None) };
        let mut bytes = [0; N];
        if len != N as u64 || self.read(kind, 0, &mut bytes)? != N {
            let why = format!("it has {len} bytes where {N} belong");
            return Err(StoreError::damaged(self.slot, kind, why));
        }
        Ok(Some(bytes))
    }

    /// What a creation that was cut short left in the folder: whether anything, or `None` where it is more than that.
    fn leftovers(&mut self) -> Result<Option<bool>, StoreError> {
        let mut any = false;
        for kind in FileKind::ALL {
            let len = self.len(kind)?;
            any |= len.is_some();
            let harmless = match kind {
                FileKind::Key | FileKind::Data => 0,
                FileKind::Tree | FileKind::Signatures | FileKind::Bitfield => HEADER as u64,
                // Whole, as it is always written, it is a writer's, which `open` knows without `key`.
                FileKind::SecretKey => 0,
                FileKind::LocalName
                | FileKind::Journal
                | FileKind::Conflicts
                | FileKind::Banned
                | FileKind::Removed => u64::MAX,
            };
            if len.is_some_and(|len| len > harmless) {
                return Ok(None);
            }
        }
        Ok(Some(any))
    }

    /// Whether what is there may be of a feed: each file that begins with a header has it, and a secret key is one, of the key that is there.
    fn is_remnant(&mut self) -> Result<bool, StoreError> {
        let key = match self.len(FileKind::Key)? {
            Some(32) => self.read_exactly::<32>(FileKind::Key)?,
            _ => None,
        };
        match self.len(FileKind::SecretKey)?.unwrap_or(0) {
            0 => {}
            64 => {
                let secret = self.read_exactly::<64>(FileKind::SecretKey)?.map(zeroize::Zeroizing::new);
                if let (Some(key), Some(secret)) = (key, secret)
                    && secret[32..] != key
                {
                    return Ok(false);
                }
            }
            _ => return Ok(false),
        }
        let mut any = false;
        for (kind, ours) in headers(DEFAULT_PAGE_BYTES) {
            let mut theirs = [0; HEADER];
            let count = self.read(kind, 0, &mut theirs)?;
            any |= self.len(kind)?.is_some();
            // A bitfield's pages may have another size than ours.
            let same =
                |(at, (theirs, ours)): (usize, (&u8, &u8))| theirs == ours || *theirs == 0 || matches!(at, 5 | 6);
            if !theirs[..count].iter().zip(&ours).enumerate().all(same) {
                return Ok(false);
            }
        }
        // Beside its key nothing else has to be there: a removal that was cut short took it.
        Ok(any || key.is_some() || self.len(FileKind::Data)?.unwrap_or(0) == 0)
    }

    /// A short file as text up to its first NUL, with what is no UTF-8 replaced; `None` where it is absent or empty. A name has no NUL: a torn
    /// file, and a hole, do.
    fn read_text(&mut self, kind: FileKind) -> Result<Option<String>, StoreError> {
        let mut bytes = vec![0; 4096];
        let count = self.read(kind, 0, &mut bytes)?;
        bytes.truncate(count);
        let count = bytes.iter().position(|byte| *byte == 0).unwrap_or(count);
        bytes.truncate(count);
        Ok((count > 0).then(|| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The bitfield, and the headers that are to be written because their files have none. Pages that the disk does not give mark nothing: what is
    /// there is marked again, as where they are lost. The error is added to `opening`.
    #[allow(clippy::type_complexity)]
    fn load_bitfield(
        &mut self,
        opening: &mut Opening,
    ) -> Result<(Bitfield, Vec<(FileKind, [u8; HEADER])>), StoreError> {
        let mut page_bytes = DEFAULT_PAGE_BYTES;
        let mut missing = Vec::new();
        for (kind, ours) in headers(DEFAULT_PAGE_BYTES) {
            let mut theirs = [0; HEADER];
            let count = match self.read(kind, 0, &mut theirs) {
                Err(unread) if unread.is_unreadable() => {
                    opening.unread.push(unread);
                    continue;
                }
                count => count?,
            };
            // Not there, or torn: then zeros stand where it ends.
            let end = theirs[..count].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if theirs != ours && ours.starts_with(&theirs[..end]) {
                missing.push((kind, ours));
                continue;
            }
            if theirs[..4] != ours[..4] {
                return Err(StoreError::damaged(self.slot, kind, "its header is not that of such a file"));
            }
            let size = usize::from(u16::from_be_bytes([theirs[5], theirs[6]]));
            let fits = match kind {
                FileKind::Bitfield => Bitfield::is_page_size(size),
                _ => theirs[5..7] == ours[5..7],
            };
            if !fits {
                return Err(StoreError::damaged(self.slot, kind, format!("its entries cannot have {size} bytes")));
            }
            if kind == FileKind::Bitfield {
                page_bytes = size;
            }
        }

        let stored = self.len(FileKind::Bitfield)?.unwrap_or(0).saturating_sub(HEADER as u64);
        let size = page_bytes as u64;
        let pages = stored.div_ceil(size);
        if pages > MAX_FEED_BLOCKS / BLOCKS_OF_A_PAGE {
            let why = "it tells of more blocks than a feed can have";
            return Err(StoreError::damaged(self.slot, FileKind::Bitfield, why));
        }
        let mut bitfield = Bitfield::load(page_bytes, pages);
        // Pages that nothing was written to are passed over: a feed that is long by claim alone has a file of half a gigabyte.
        let (mut at_once, mut after_hole) = (1, false);
        let mut buffer = Vec::new();
        let mut next = 0;
        while next < pages {
            let first = match next {
                0 => 0,
                _ => match self.next_data(FileKind::Bitfield, HEADER as u64 + next * size)? {
                    Some(data) => (data.saturating_sub(HEADER as u64) / size).max(next),
                    None => break,
                },
            };
            // After a hole as much as two blocks of the disk mostly touch, and then more and more.
            at_once = match (first == next, after_hole) {
                (false, _) => 3,
                (true, true) => 1,
                (true, false) => (at_once * 2).min(16),
            };
            after_hole = first != next;
            let count = pages.saturating_sub(first).min(at_once);
            buffer.resize(usize::try_from(count * size).unwrap_or(0), 0);
            let offset = |page: u64| HEADER as u64 + page * size;
            next = first + count;
            match self.read(FileKind::Bitfield, offset(first), &mut buffer) {
                // Each of them by itself.
                Err(unread) if unread.is_unreadable() => {
                    opening.unread.push(unread);
                    for number in first..next {
                        let page = &mut buffer[..page_bytes];
                        match self.read(FileKind::Bitfield, offset(number), page) {
                            Err(unread) if unread.is_unreadable() => {}
                            read => bitfield.load_page(number, &page[..read?]),
                        }
                    }
                }
                read => {
                    for (number, page) in (first..).zip(buffer[..read?].chunks(page_bytes)) {
                        bitfield.load_page(number, page);
                    }
                }
            }
        }
        Ok((bitfield, missing))
    }
}

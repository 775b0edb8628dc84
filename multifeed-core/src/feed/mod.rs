//! A feed: blocks that one writer appends, each provable to lie under the writer's signature.

mod append;
mod cache;
mod checked;
mod clear;
mod cleared;
mod conflict;
mod contradiction;
mod covered;
mod files;
mod join;
mod key_files;
mod known;
mod large;
pub(crate) mod local_name;
mod oversized;
mod put;
mod read;
mod rebuild;
mod recovery;
mod repair;
mod repaired;
#[cfg(test)]
mod rot;
mod served;
mod staging;
mod unchanged;
mod verify;

use std::cell::OnceCell;

use cache::{NodeCache, Window};
use cleared::Cleared;
use ed25519_dalek::VerifyingKey;
use files::{Files, SIGNATURE, signature_offset};
use large::Large;
use multifeed_proto::{DiscoveryKey, FeedKey, Node};
use recovery::Refused;
use staging::Staged;

use crate::bitfield::Bitfield;
use crate::cores::journal::{Checkpoint, Journal, VerifiedSignature, Writer};
use crate::error::StoreError;
use crate::feed::local_name::is_key_name;
use crate::keys::key_pair::KeyPair;
use crate::keys::signatures;
use crate::keys::signer::{Signers, WriterKey};
use crate::limits::{Limits, MAX_FEED_BLOCKS};
use crate::merkle;
use crate::storage::{FileKind, RepairedInMemory, Slot, Storage};

pub use clear::Audit;
pub use contradiction::Contradiction;
pub(crate) use join::Relation;
pub(crate) use put::Compared;
pub use put::Put;
pub use read::{Answer, Located, Place, SignatureSearch};
pub use recovery::report::Recovered;
pub use repair::RepairCursor;
pub use repaired::Repair;
pub use verify::{Finding, Problem, VerifyCursor, VerifyStep};

/// A feed whose files are in a [`Storage`], which is passed to every call that needs it.
///
/// One owner, no locks: what it holds in memory is the bitfield, the roots of its length, what [`put`](Self::put) staged and
/// [`flush`](Self::flush) has not written yet, and caches that [`trim`](Self::trim) drops.
#[derive(Debug)]
pub struct Feed {
    slot: Slot,
    key: FeedKey,
    /// What signs for it, if it is written here.
    writer_key: Option<Box<WriterKey>>,
    local_name: Option<String>,
    /// `None` inside if the key is no point on the curve: no signature is then valid.
    verifying: OnceCell<Option<Box<VerifyingKey>>>,
    /// The roots of the length, from left to right; the length and the byte length follow from them.
    roots: Vec<Node>,
    length: u64,
    byte_length: u64,
    bitfield: Bitfield,
    /// A length, and the checksum of a signature that was held against the key over it.
    verified: Option<(u64, [u8; 8])>,
    /// The signature that was checked last.
    checked_signature: Option<Box<CheckedSignature>>,
    staged: Staged,
    nodes: NodeCache,
    window: Window,
    large: Large,
    /// The places of the block after the one last read, and after the one last put.
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
    /// A root of a shorter length that was found to be signed, and where what is below it begins in `data`.
    signed_root: Option<Box<(Node, u64)>>,
    /// Where the last search for a signature ended, over a node that contradicts another one.
    searched: Option<Box<contradiction::Search>>,
    /// An append failed, and may have left its signature past the length.
    append_failed: bool,
    /// While it is opened, how many bytes of zeros may be read still.
    zeros_left: u64,
    /// How much of it remotes may see, if that is not all.
    served: Option<u64>,
    /// Whether `key` is known to be on the disk.
    key_synced: bool,
    /// Whether its files were, when it was opened, as the journal had them.
    unchanged: bool,
    /// Which writer the journal says it is, and the checksum of its secret key, if that is there and the disk does not give it, or its signer was not
    /// given.
    unread_writer: Option<Box<(Writer, [u8; 8])>>,
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
    /// Who signs for feeds that have no secret key.
    pub(crate) signers: Signers,
}

impl Opening {
    pub(crate) fn new(limits: &Limits, signers: &Signers) -> Self {
        Self { zeros: limits.opening_zeros, unread: Vec::new(), renamed: false, signers: signers.clone() }
    }
}

/// The place of a block in `data`.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    block: u64,
    offset: u64,
}

/// A signature that was held against the key.
#[derive(Debug)]
enum CheckedSignature {
    /// The one that `verified` tells of.
    Newest([u8; SIGNATURE]),
    /// One of a shorter length: the root hash, and its checksum. It is read again.
    Older([u8; 32], [u8; 8]),
}

impl Feed {
    /// Makes a feed in an empty folder, with JS's very bytes: writable with a key pair, else a copy of a remote one. JS names it by the name, where
    /// one is given, else by the folder's number.
    ///
    /// The `key` file is written last: a folder without one, and without a secret key, is no feed.
    ///
    /// # Errors
    /// [`StoreError::Occupied`] if the folder holds a feed, or blocks of one that lost its key;
    /// [`StoreError::KeyMismatch`] if the key pair is another's; else the storage's error.
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
        Self::create_as(storage, slot, key, key_pair.cloned().map(WriterKey::Here), name)
    }

    /// As [`create`](Self::create), of a writer that may have its secret key elsewhere.
    pub(crate) fn create_as<S: Storage + ?Sized>(
        storage: &mut S,
        slot: Slot,
        key: FeedKey,
        writer_key: Option<WriterKey>,
        name: Option<&str>,
    ) -> Result<Feed, StoreError> {
        Files { storage, slot }.make(&key, writer_key.as_ref(), name)?;
        Ok(Self::new(slot, key, writer_key, name.map(str::to_owned), Bitfield::new()))
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

    /// Returns whether a folder is what a creation left that was cut short, so that another feed can be created there.
    ///
    /// # Errors
    /// The storage's error.
    pub fn is_vacant<S: Storage + ?Sized>(storage: &mut S, slot: Slot) -> Result<bool, StoreError> {
        Ok(Files { storage, slot }.leftovers()?.is_some())
    }

    /// Whether a folder without a key holds what a feed that was new may have left in it, or nothing of a feed's. What of `tree`, `signatures`
    /// and `bitfield` is there begins as such files do, or with the zeros of a write that a crash lost. `data` alone tells nothing, and may be
    /// anybody's. A crash leaves that of a feed only with [`Durability::None`](crate::Durability::None): else `key` is fsynced before it.
    pub(crate) fn is_remnant<S: Storage + ?Sized>(storage: &mut S, slot: Slot) -> Result<bool, StoreError> {
        Files { storage, slot }.is_remnant()
    }

    /// Returns the name of the writer in a folder, whether it can be opened or not.
    ///
    /// # Errors
    /// The storage's error.
    pub fn name_in<S: Storage + ?Sized>(storage: &mut S, slot: Slot) -> Result<Option<String>, StoreError> {
        Files { storage, slot }.read_text(FileKind::LocalName)
    }

    /// Opens the feed in a folder, and sets right what a crash left behind; [`recovered`](Self::recovered) then tells what.
    ///
    /// This is cheap. It checks
    /// - the keys;
    /// - that `tree` reaches as far as the bitfield says;
    /// - the newest signature against its roots;
    /// - the last held block against its leaf, and 13 levels of that leaf's path upward.
    ///
    /// [`verify`](Self::verify_step) checks everything. A feed loses the marks of blocks that are not there. It keeps its length, as long as that is
    /// signed and its roots are there or can be made again. A writable feed takes up blocks that were signed and written but not yet marked. If its
    /// newest signature is gone and every block is there, it is signed again. If its length is not proven the folder is damaged: a shorter feed would
    /// sign a second history. A remote feed then returns to a length that is.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the keys or headers are not what they must be, with the folder untouched;
    /// [`StoreError::Locked`] if a JS hypercore has it; else the storage's error.
    pub fn open<S: Storage + ?Sized>(storage: &mut S, slot: Slot) -> Result<Feed, StoreError> {
        let mut opening = Opening::new(&Limits::default(), &Signers::default());
        let feed = Self::open_known(storage, slot, &Journal::default(), &mut opening)?;
        let refusal = feed.refusal().cloned();
        opening.unread.pop().or(refusal).map_or(Ok(feed), Err)
    }

    /// As [`open`](Self::open), with what a journal knows of the feed. If the store was not closed, all that it does not know is checked.
    /// A writable feed then goes back to the newest length that is signed and whole, but not below the one that the journal knows.
    ///
    /// A `secret_key` that the disk does not give, or that is not the one of `key`, makes the feed read-only, if there is nothing to repair. A repair
    /// of a feed that is not written here could cut what its writer signed. A `localname` that the disk does not give, or that is not what the
    /// journal knows, is taken from the journal. A part of `bitfield` that the disk does not give marks nothing. All of it is added to `opening`.
    pub(crate) fn open_known<S: Storage + ?Sized>(
        storage: &mut S,
        slot: Slot,
        journal: &Journal,
        opening: &mut Opening,
    ) -> Result<Feed, StoreError> {
        match (Files { storage, slot }).writer_key(journal, opening) {
            Ok(writer_key) => Self::open_as(storage, slot, writer_key, journal, opening),
            Err(unread)
                if unread.is_of_a_writer()
                    && (unread.is_of_the_disk()
                        || matches!(unread, StoreError::Damaged { .. } | StoreError::NoSigner { .. })) =>
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
                        feed.unread_writer = journal.mark(slot, &feed.key).and_then(Checkpoint::as_unread_writer);
                        if unread.is_of_the_disk() && feed.local_name.is_none() {
                            // There is a secret key: the name is its writer's.
                            feed.local_name = Self::name_in(&mut untouched, slot).unwrap_or_default();
                        }
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
        writer_key: Option<WriterKey>,
        journal: &Journal,
        opening: &mut Opening,
    ) -> Result<Feed, StoreError> {
        let mut files = Files { storage, slot };
        let key = match &writer_key {
            Some(writer_key) => writer_key.public_key(),
            None => files.readers_key(journal, opening)?,
        };
        let mark = match writer_key {
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
                match known.filter(|known| writer_key.is_some() && !is_right(known)) {
                    Some(known) => {
                        opening.renamed = is_key_name(&known, &key);
                        opening.unread.extend(files.write_name_again(name.as_deref(), &known, &key));
                        Some(known)
                    }
                    None => name,
                }
            }
        };
        // A remote feed's folder can hold the name of a writer that stood there before; JS would believe it. A writer's feed keeps the name that the
        // journal knows, also without its secret key: else the name would stand for nothing, or for another feed.
        let lost = mark.filter(|_| writer_key.is_none()).and_then(|mark| mark.writer.as_ref()?.name.clone());
        let local_name = lost.or(local_name.filter(|name| writer_key.is_some() || is_key_name(name, &key)));
        if let Some(mark) = mark.filter(|_| writer_key.is_none() && !journal.is_unclean())
            && let Some(feed) = Self::open_unchanged(storage, slot, key, &local_name, mark)?
        {
            return Ok(feed);
        }
        let (bitfield, missing) = Files { storage, slot }.load_bitfield(opening)?;
        let mut feed = Self::new(slot, key, writer_key, local_name, bitfield);
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
        writer_key: Option<WriterKey>,
        local_name: Option<String>,
        bitfield: Bitfield,
    ) -> Feed {
        Feed {
            slot,
            key,
            writer_key: writer_key.map(Box::new),
            local_name,
            verifying: OnceCell::new(),
            roots: Vec::new(),
            length: 0,
            byte_length: 0,
            bitfield,
            verified: None,
            checked_signature: None,
            staged: Staged::default(),
            nodes: NodeCache::default(),
            window: Window::default(),
            large: Large::default(),
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
            signed_root: None,
            searched: None,
            append_failed: false,
            zeros_left: u64::MAX,
            served: None,
            key_synced: false,
            unchanged: false,
            unread_writer: None,
        }
    }

    /// Returns the public key.
    pub fn key(&self) -> FeedKey {
        self.key
    }

    /// Returns the discovery key, which names the feed's channel on the wire.
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.key.discovery_key()
    }

    /// Returns the folder.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Returns whether it is written here: its secret key is here, or a signer was given.
    pub fn writable(&self) -> bool {
        self.writer_key.is_some()
    }

    /// Whether a feed that is written here was found to be longer than what was held of it, as an old copy is, and not all of it is here yet.
    pub(crate) fn is_writer_behind(&self) -> bool {
        self.writer_behind && self.downloaded() < self.length
    }

    /// Blocks turned out to be corrupt, and are not held any more. A writer's too are fetched again, unlike those that were cleared.
    pub(crate) fn lost(&mut self, blocks: &[std::ops::Range<u64>]) {
        self.writer_behind |= self.writable() && !blocks.is_empty();
    }

    /// Whether the signature of its length is lost, of a feed that the journal proves.
    pub(crate) fn lacks_signature(&self) -> bool {
        let is_verified = self.verified.is_some_and(|(length, _)| length == self.length);
        self.length > 0 && !self.writable() && !is_verified && !self.is_static()
    }

    /// Whether the journal knows it as a writer, and what signs for it was not given, or cannot be read.
    pub(crate) fn is_unread_writer(&self) -> bool {
        self.unread_writer.is_some()
    }

    /// Whether what opening it found missing is all there now; that is said once.
    pub(crate) fn was_mended(&mut self) -> bool {
        let is_mended = self.incomplete && self.newer_mark().is_none() && !self.lacks_signature();
        self.incomplete &= !is_mended;
        is_mended
    }

    /// Returns the key pair, if the feed is writable, and no signer signs for it.
    pub fn key_pair(&self) -> Option<&KeyPair> {
        self.writer_key.as_ref()?.key_pair()
    }

    /// Returns the writer's local name; a remote feed has none, unless it had to be named by its key.
    pub fn local_name(&self) -> Option<&str> {
        self.local_name.as_deref()
    }

    /// Returns the length in blocks, as far as a signature is known.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Returns whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the length in bytes.
    pub fn byte_len(&self) -> u64 {
        self.byte_length
    }

    /// Returns whether a block is held.
    pub fn has(&self, index: u64) -> bool {
        self.bitfield.get(index)
    }

    /// Returns how many blocks are held.
    pub fn downloaded(&self) -> u64 {
        self.bitfield.count()
    }

    /// Returns which blocks are held.
    pub fn bitfield(&self) -> &Bitfield {
        &self.bitfield
    }

    /// Returns what [`open`](Self::open) had to set right; `None` after a clean one.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.recovered.as_deref()
    }

    /// Returns what a request for this block tells about the nodes that are held: the `nodes` of a Request.
    pub fn digest(&self, index: u64) -> u64 {
        index.checked_mul(2).map_or(0, |node| merkle::digest(&self.bitfield, node))
    }

    /// Drops all caches, and memory that is kept for what may come. Nothing is lost but time.
    pub fn trim(&mut self) {
        self.nodes = NodeCache::default();
        self.window = Window::default();
        self.large = Large::default();
        self.verifying = OnceCell::new();
        self.checked_signature = None;
        if let Some(writer_key) = &mut self.writer_key {
            writer_key.rest();
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
        self.checked_signature = Some(Box::new(CheckedSignature::Newest(*signature)));
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

    /// As [`node`](Self::node), of one that is marked. What stands in the place of another is nothing.
    fn held_node<S: Storage + ?Sized>(&mut self, storage: &mut S, index: u64) -> Result<Node, StoreError> {
        if self.bitfield.node(index) { self.node(storage, index) } else { Err(self.not_held(index)) }
    }

    #[cold]
    fn not_held(&self, index: u64) -> StoreError {
        StoreError::damaged(self.slot, FileKind::Tree, format!("node {index} is not held, and blocks beside it are"))
    }

    /// Reads a node, if there is one: zeros are none.
    fn find_node<S: Storage + ?Sized>(&mut self, storage: &mut S, index: u64) -> Result<Option<Node>, StoreError> {
        if let Some(node) = self.staged.node(index) {
            return Ok(Some(node));
        }
        self.nodes.get(storage, self.slot, index)
    }

    /// Reads the signature of a length, if there is one: zeros are none.
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

    /// Finds the first position from this one on, and before `end`, that may hold a signature. It passes over whole stretches that were never
    /// written.
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

//! The set of feeds: stored together, found by key or name, and replicated with any number of remotes.

mod conflicts;
mod disk;
mod durability;
mod extensions;
pub(crate) mod feed_events;
mod lru;
mod members;
mod opening;
mod outbox;
mod reads;
mod room;
mod sessions;
mod steps;
mod uncommitted;
mod unwritten;
mod waits;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use multifeed_proto::FeedKey;

use self::durability::SyncFailure;
use self::extensions::Extensions;
pub use self::extensions::{ExtensionError, FeedMessage};
use self::lru::InUse;
use self::members::Members;
pub use self::members::rearranged::Rearranged;
use self::outbox::Outbox;
use self::sessions::progress::Traffic;
use self::sessions::ready::Sessions;
use self::steps::Steps;
use self::uncommitted::Uncommitted;
use self::waits::Waits;
use crate::cores::Cores;
use crate::cores::durability::Durability;
use crate::error::{AppendError, Conflict, StoreError};
use crate::feed::local_name::is_object_property;
use crate::feed::{Feed, Recovered, VerifyCursor, VerifyStep};
use crate::ids::{FeedId, SessionId, SetId, StoreNumber};
use crate::keys::key_pair::KeyPair;
use crate::keys::signer::{Signer, Signers, WriterKey};
use crate::limits::Limits;
use crate::log::log;
use crate::multifeed::feed_events::FeedNews;
use crate::replication::policy::Policy;
use crate::replication::wants::Wants;
use crate::sets::sparse_bits::SparseBits;
use crate::stats::Moved;
use crate::storage::{Slot, Storage, Unsupported};

/// How a multifeed is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What remotes may make it hold.
    pub limits: Limits,
    /// Whether sessions fetch only those blocks that the application asks for, unless they say otherwise.
    pub sparse: bool,
    /// What a power cut may take. By default what JS may lose.
    pub durability: Durability,
    /// What sessions tell and take, if they have no policy of their own. By default everything, as in JS.
    pub policy: Option<Arc<dyn Policy>>,
    /// Who signs for feeds of this store whose secret keys the application keeps. A folder that has a `secret_key` is signed by that.
    pub signers: Signers,
}

/// What a feed is and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedInfo {
    /// Its place among the feeds.
    pub id: FeedId,
    /// Its key.
    pub key: FeedKey,
    /// The writer's name, or the number of its folder for a feed that came from a remote (its key, if that number is a writer's name).
    pub name: String,
    /// Its length in blocks, holes included.
    pub len: u64,
    /// Its length in bytes, holes included.
    pub byte_len: u64,
    /// Blocks held.
    pub downloaded: u64,
    /// Whether its secret key is here.
    pub writable: bool,
    /// Whether it was written here, or has a writer's name, and its secret key is missing or cannot be read. It may come back.
    pub lost_key: bool,
}

/// Something happened to the feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MultifeedEvent {
    /// A feed was created, by [`Multifeed::writer`] or [`Multifeed::add`], or because a remote brought it (JS's `feed`).
    Feed {
        /// The feed.
        id: FeedId,
        /// Its key.
        key: FeedKey,
        /// Its name in this store.
        name: String,
    },
    /// A feed is in a set: by [`Multifeed::include`], or because a session of the set brought it. Nothing is reported of a multifeed of a corestore whose
    /// list is lost: it has the feed only as long as it is open.
    Included {
        /// The set.
        set: SetId,
        /// The feed.
        id: FeedId,
    },
    /// A feed has more blocks than before: appended, or received and written.
    Blocks {
        /// The feed.
        id: FeedId,
    },
    /// A feed was taken out of the store, by [`Multifeed::remove`] or [`Multifeed::remove_writer`].
    Removed {
        /// What stood for the feed.
        id: FeedId,
        /// Its key.
        key: FeedKey,
        /// The name that it had.
        name: String,
    },
    /// A feed's folder took the number of one that was removed. If the feed has no name of a writer's, that number is its name now.
    /// Or it had the name of a writer, and has another one now.
    Moved {
        /// The feed.
        id: FeedId,
        /// Its name now.
        name: String,
    },
    /// Opening a feed had to set something right: what was found, and what was done. See [`Multifeed::recovered`].
    Recovered(Recovered),
    /// The feed's writer signed two histories, and a remote holds the other one: the same key on two devices, or a restored copy of one.
    /// What is held here stays. Once for each other history; the evidence is kept beside the feeds (`multifeed.conflicts`).
    Conflict {
        /// The feed.
        id: FeedId,
        /// Its key.
        key: FeedKey,
        /// Both signed roots.
        conflict: Box<Conflict>,
    },
    /// A remote proved that a feed that is written here is longer than what is held of it. So this store is an old copy, or the key is on
    /// another device too. Its length is known from now on, so that what is appended next does not make a second history; the blocks between
    /// are fetched like those of other feeds.
    WriterBehind {
        /// The feed.
        id: FeedId,
        /// Its key.
        key: FeedKey,
        /// The length that was held to be all of it, in blocks.
        held: u64,
        /// The length that was proven, in blocks.
        len: u64,
    },
}

/// Many feeds, stored together and synced with remotes.
///
/// It has one owner, and does nothing by itself: it reads no clock, opens no socket and starts no thread. A driver turns this wheel:
///
/// 1. **Events in.** [`connect`](Self::connect) adds a session; then [`handle`](Self::handle) takes each event of its stream. After a batch,
///    and after appends, [`commit`](Self::commit) writes what came and announces it.
/// 2. **Commands out.** [`poll_ready`](Self::poll_ready) names the next session that has something, and
///    [`poll_command`](Self::poll_command) returns its commands, within what [`grant`](Self::grant) allowed. A block that is larger than what is
///    left waits: [`room_needed`](Self::room_needed) returns its bytes, and [`give_room`](Self::give_room) lets it go.
/// 3. **Reports out.** Each has a queue of its own, to be taken until it is empty: the table below.
/// 4. **Time.** [`handle_timeout`](Self::handle_timeout) is due at [`poll_timeout`](Self::poll_timeout), on the clock of the `now` that calls are
///    given. It gives up remotes that are late, fsyncs what is due, looks whether a full disk has room, and goes on with what was too much for one
///    call. Ask again after each batch of calls.
/// 5. **The end.** [`finish`](Self::finish) ends a session cleanly; [`disconnect`](Self::disconnect) forgets it, after its last event.
///    [`close`](Self::close) writes and fsyncs what is left.
///
/// | queue | what it returns | what is not taken |
/// |---|---|---|
/// | [`poll_event`](Self::poll_event) | what happened to the store: feeds, blocks, conflicts | waits |
/// | [`poll_peer_event`](Self::poll_peer_event) | what happened on one session; [`poll_ready`](Self::poll_ready) names that session | waits |
/// | [`poll_want`](Self::poll_want) | how each [`want`](Self::want) ended, once | waits; [`Limits::wants`](crate::Limits::wants) bounds the wants |
/// | [`poll_feed_event`](Self::poll_feed_event) | what happened to a feed that is [watched](Self::watch) | the oldest goes, past [`Limits::feed_events`](crate::Limits::feed_events) |
/// | [`poll_extension`](Self::poll_extension) | messages of registered extensions | new ones are lost, past [`Limits::extension_messages`](crate::Limits::extension_messages) |
///
/// Any order of calls is safe. Queues change in any call that takes `&mut self`, so look at them after each batch.
#[derive(Debug)]
pub struct Multifeed<S> {
    /// Which store the ids are of.
    number: StoreNumber,
    limits: Limits,
    cores: Cores<S>,
    members: Members,
    #[expect(
        clippy::vec_box,
        reason = "ten thousand of them are not to be moved, and kept twice meanwhile, for one more"
    )]
    feeds: Vec<Box<FeedSlot>>,
    in_use: InUse,
    uncommitted: Uncommitted,
    sessions: Sessions,
    steps: Steps,
    extensions: Extensions,
    /// What moved, in all and lately.
    traffic: Traffic,
    waits: Waits,
    outbox: Outbox,
    /// When overdue answers are looked for next.
    next_check: Option<Duration>,
    /// The newest time that any call gave.
    now: Duration,
}

/// A feed, and what its sessions share.
#[derive(Debug)]
struct FeedSlot {
    feed: Feed,
    /// It was taken out of the store: `feed` is an empty one that stands for it.
    removed: bool,
    /// Blocks that some remote was asked for.
    reserved: SparseBits,
    /// Those of them that two were asked for.
    doubled: BTreeSet<u64>,
    /// How many bytes all blocks were that two were asked for.
    doubled_bytes: u64,
    /// How many sessions have something of it to bring.
    fetching: u32,
    /// New blocks that were not announced yet, and the session that brought them.
    unannounced: Vec<(Range<u64>, Option<SessionId>)>,
    /// If it could not be written as the disk is full: how many of those were returned to the remotes that sent them. Nobody waits for them.
    unwritten: Option<u64>,
    dirty: bool,
    /// Whether blocks were reported to the application that it did not take note of yet.
    reported: bool,
    /// Sessions that have this feed's channel open.
    subscribers: Vec<SessionId>,
    /// There may be sessions whose channel of it is closed, and that count what is new of it.
    is_outgrown: bool,
    /// What the application waits for.
    wants: Wants,
    /// What happened, if somebody watches.
    news: Option<Box<FeedNews>>,
    /// It stands among those with news.
    has_events: bool,
    /// It stands among those in use.
    in_use: bool,
    /// What the application said of fetching and serving this feed, on all sessions.
    download: Option<bool>,
    upload: Option<bool>,
    /// How long it was in blocks, and whether each was held, at the last event.
    reported_len: u64,
    synced: bool,
    /// What moved of it since the store was opened.
    moved: Moved,
    /// Why it could not be fsynced.
    sync_failure: Option<Box<SyncFailure>>,
    /// It is one of ours, and longer than what is held of it, and that is not known on the disk yet.
    writer_behind: bool,
}

impl FeedSlot {
    fn new(feed: Feed) -> Self {
        let reported_len = feed.len();
        let synced = feed.downloaded() == reported_len;
        Self {
            feed,
            removed: false,
            reserved: SparseBits::default(),
            doubled: BTreeSet::new(),
            fetching: 0,
            doubled_bytes: 0,
            unannounced: Vec::new(),
            unwritten: None,
            dirty: false,
            reported: false,
            subscribers: Vec::new(),
            is_outgrown: false,
            wants: Wants::default(),
            news: None,
            has_events: false,
            in_use: false,
            download: None,
            upload: None,
            reported_len,
            synced,
            moved: Moved::default(),
            sync_failure: None,
            writer_behind: false,
        }
    }
}

impl<S: Storage> Multifeed<S> {
    /// Returns the feed of a local writer: found by name, or created with the key pair that `key_pair` gives.
    ///
    /// Without a name a new feed is made each time. Its name is its folder's number as in JS, or its key if that number is a writer's name.
    /// A remote's feed that is named by a number, which is the name that is asked for, is named by its key from then on.
    /// So no two feeds have one name: JS would return it for the writer.
    ///
    /// # Errors
    ///
    /// Fails if
    /// - the name is empty or too long, or [a property of JavaScript's objects](is_object_property);
    /// - the folder of that writer is [missing](StoreError::MissingWriter) or could not be opened;
    /// - the name is that of a feed which is not written here and cannot give way;
    /// - the key pair is of a [banned](Self::ban) feed;
    /// - writing fails.
    pub fn writer(&mut self, name: Option<&str>, key_pair: impl FnOnce() -> KeyPair) -> Result<FeedId, StoreError> {
        if let Some(id) = self.named_writer(name)? {
            return Ok(id);
        }
        self.new_writer(name, WriterKey::Here(key_pair()))
    }

    /// Returns the feed that a signer of the application's signs for: found by name or by the signer's key, or created. No secret key is in its folder.
    /// When the store is opened again the signer has to be among [`Options::signers`], or the feed is only read.
    ///
    /// # Errors
    ///
    /// As [`writer`](Self::writer), and
    /// - [`StoreError::KeyMismatch`] if the feed of that name has another key;
    /// - [`StoreError::KeyInUse`] if the feed of that key has another name, or came from a remote;
    /// - [`StoreError::NoSigner`] if the store was opened without the signer of a feed that it has.
    pub fn writer_with_signer(
        &mut self,
        name: Option<&str>,
        signer: impl Signer + 'static,
    ) -> Result<FeedId, StoreError> {
        let key = signer.public_key();
        if let Some(id) = self.named_writer(name)? {
            let found = self.slot(id).feed.key();
            return if found == key { Ok(id) } else { Err(StoreError::KeyMismatch { key: found }) };
        }
        if let Some(id) = self.members.catalog.find(&key).filter(|_| name.is_none()) {
            let feed = &self.slot(id).feed;
            if feed.writable() {
                return Ok(id);
            }
            if feed.is_unread_writer() {
                return Err(StoreError::NoSigner { slot: feed.slot(), key });
            }
        }
        self.cores.signers.add(signer);
        let writer_key = self.cores.signers.find(&key).ok_or(StoreError::KeyMismatch { key })?;
        self.new_writer(name, writer_key)
    }

    /// The writer of a name, if there is one.
    fn named_writer(&mut self, name: Option<&str>) -> Result<Option<FeedId>, StoreError> {
        let Some(name) = name else { return Ok(None) };
        if name.is_empty() || name.len() > self.limits.name_bytes {
            return Err(StoreError::BadName { size: name.len(), max: self.limits.name_bytes });
        }
        if let Some(id) = self.members.catalog.named(name) {
            let feed = &self.slot(id).feed;
            // Of a writer without its secret key: why that is so.
            let lost = self.members.catalog.lost_writer(name).cloned();
            let why = || lost.unwrap_or(StoreError::NameTaken { name: name.to_owned(), slot: feed.slot() });
            return if feed.writable() { Ok(Some(id)) } else { Err(why()) };
        }
        if self.members.catalog.lost_writer(name).is_some() {
            self.take_back_named(name);
            if let Some(id) = self.members.catalog.named(name) {
                return Ok(Some(id));
            }
        }
        if let Some(why) = self.members.catalog.lost_writer(name) {
            return Err(why.clone());
        }
        if is_object_property(name) {
            return Err(StoreError::ReservedName { name: name.to_owned() });
        }
        Ok(None)
    }

    /// Makes a writer, whose name nobody has.
    fn new_writer(&mut self, name: Option<&str>, writer_key: WriterKey) -> Result<FeedId, StoreError> {
        let key = writer_key.public_key();
        if let Some(id) = self.members.catalog.find(&key) {
            let feed = &self.slot(id).feed;
            return Err(StoreError::KeyInUse {
                slot: feed.slot(),
                key,
                name: feed_name(feed),
                written: feed.writable(),
            });
        }
        if let Some(name) = name.filter(|name| self.members.catalog.is_released(name)) {
            self.rename_missing(name)?;
        }
        self.create(key, Some(writer_key), None, name)
    }

    /// Returns the feed of a key: found, or given its folder now, before anything of it came. Without this a feed of somebody else's is here
    /// once its first block came from a session, or its length if the session is sparse.
    ///
    /// # Errors
    ///
    /// If the store has as many feeds as it may, or writing fails.
    pub fn add(&mut self, key: FeedKey) -> Result<FeedId, StoreError> {
        self.open_core(&key)?.map_or_else(|| self.create(key, None, None, None), Ok)
    }

    /// Returns the storage, to be looked at.
    pub fn storage(&self) -> &S {
        &self.cores.storage
    }

    /// Returns the feeds, in the order of their folders.
    pub fn feeds(&self) -> impl Iterator<Item = FeedId> + use<S> {
        self.members.catalog.feeds().collect::<Vec<_>>().into_iter()
    }

    /// Returns what a feed is and holds.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownFeed`] if the id is of another store.
    pub fn info(&self, id: FeedId) -> Result<FeedInfo, StoreError> {
        let entry = self.entry(id).ok_or(StoreError::UnknownFeed)?;
        Ok(self.info_of(id, &entry.feed))
    }

    fn info_of(&self, id: FeedId, feed: &Feed) -> FeedInfo {
        FeedInfo {
            id,
            key: feed.key(),
            name: feed_name(feed),
            len: feed.len(),
            byte_len: feed.byte_len(),
            downloaded: feed.downloaded(),
            writable: feed.writable(),
            lost_key: self.cores.report.lost_key(feed),
        }
    }

    /// Returns the folder of a feed, which changes if a [removal](Self::remove) closes a gap.
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info).
    pub fn slot_of(&self, id: FeedId) -> Result<Slot, StoreError> {
        Ok(self.entry(id).ok_or(StoreError::UnknownFeed)?.feed.slot())
    }

    /// Returns the feed of a key.
    pub fn find(&self, key: &FeedKey) -> Option<FeedId> {
        self.members.catalog.find(key)
    }

    /// Returns the feed of a name: a local writer's, or else the number of a remote feed's folder.
    pub fn find_name(&self, name: &str) -> Option<FeedId> {
        let numbered = || self.members.catalog.at(members::names::numbered(name)?);
        self.members.catalog.named(name).or_else(|| numbered().filter(|id| self.slot(*id).feed.local_name().is_none()))
    }

    /// Returns why the writer of a name cannot be used, if this store knows that there is one: its folder is [missing](StoreError::MissingWriter), or
    /// could not be opened, or its secret key cannot be read. Such a name stands for no other feed.
    pub fn lost_writer(&self, name: &str) -> Option<&StoreError> {
        self.members.catalog.lost.get(name)
    }

    /// Returns the writers that cannot be used, as [`lost_writer`](Self::lost_writer) does, by name.
    pub fn lost_writers(&self) -> impl Iterator<Item = (&str, &StoreError)> {
        self.members.catalog.lost.iter().map(|(name, why)| (&**name, why))
    }

    /// Returns why secret keys may not be read, as those of another user's store, of feeds that are open all the same: they are read, checked and
    /// served as ever, and only cannot be written. Each is among the [`problems`](Self::problems), too.
    pub fn sealed_keys(&self) -> impl Iterator<Item = &StoreError> {
        self.cores.report.problems.iter().filter(|problem| {
            let feed = problem.slot().and_then(|slot| self.members.catalog.at(slot)).map(|id| &self.slot(id).feed);
            problem.is_of_sealed_key() && feed.is_some_and(|feed| !feed.writable())
        })
    }

    /// Appends blocks as one batch under one signature, and returns their indexes. Sessions hear of them at the next
    /// [`commit`](Self::commit).
    ///
    /// # Errors
    ///
    /// As [`Feed::append`]; the feed is then as it was before.
    pub fn append(&mut self, id: FeedId, blocks: &[Bytes]) -> Result<Range<u64>, AppendError> {
        self.live(id)?;
        if let Some(error) = self.lasting_failure(id) {
            return Err(error.into());
        }
        if let Some(older) = self.slot(id).feed.older_copy() {
            return Err(older.into());
        }
        self.sync_before_appending(id)?;
        self.begin_use(id);
        let slot = &mut self.feeds[id.0 as usize];
        let range = slot.feed.append(&mut self.cores.storage, blocks)?;
        if !range.is_empty() {
            log!(DEBUG, "feed", "appended", key = ?slot.feed.key(), from = ?range.start, to = ?range.end);
            slot.unannounced.push((range.clone(), None));
            self.mark_dirty(id);
            self.gained(id, range.clone(), None);
        }
        Ok(range)
    }

    /// Returns a block's bytes, or `None` if it is not held. They are checked against the block's hash.
    ///
    /// # Errors
    ///
    /// If reading fails, or the block is damaged.
    pub fn get(&mut self, id: FeedId, index: u64) -> Result<Option<Bytes>, StoreError> {
        self.live(id)?;
        self.begin_use(id);
        self.feeds[id.0 as usize].feed.get_verified(&mut self.cores.storage, index)
    }

    /// Returns whether a block is held.
    pub fn has(&self, id: FeedId, index: u64) -> bool {
        self.entry(id).is_some_and(|entry| entry.feed.has(index))
    }

    /// Checks a slice of a feed again: about `max_bytes` of its blocks, its nodes and its signatures, from `cursor` on.
    ///
    /// # Errors
    ///
    /// If reading fails. What does not verify is a finding of the step, not an error.
    pub fn verify_step(
        &mut self,
        id: FeedId,
        cursor: &mut VerifyCursor,
        max_bytes: usize,
    ) -> Result<VerifyStep, StoreError> {
        self.live(id)?;
        self.begin_use(id);
        let mut step = self.feeds[id.0 as usize].feed.verify_step(&mut self.cores.storage, cursor, max_bytes)?;
        if !self.cores.storage.is_numbered() {
            step.findings.iter_mut().for_each(|finding| finding.slot = Slot::NOWHERE);
        }
        Ok(step)
    }

    /// Returns what happened to the feeds since the last call.
    pub fn poll_event(&mut self) -> Option<MultifeedEvent> {
        let event = self.outbox.pop();
        if let Some(MultifeedEvent::Blocks { id }) = &event {
            self.feeds[id.0 as usize].reported = false;
        }
        event
    }

    /// Writes what is staged, fsyncs what [`Durability`] promises, and gives the storage back to its owner's locks.
    ///
    /// # Errors
    ///
    /// If writing or closing fails; blocks that were staged and not written will be fetched again.
    pub fn close(self) -> Result<(), StoreError> {
        self.close_and_tell().0
    }

    /// As [`close`](Self::close), and what the disk [turned out not to support](Self::unsupported) by the end of it.
    pub fn close_and_tell(mut self) -> (Result<(), StoreError>, Unsupported) {
        let listed = self.write_lists();
        let result = listed.and(self.close_feeds());
        let closed = self.cores.storage.close().map_err(|error| StoreError::from_store("close", error));
        (result.and(closed), self.cores.storage.unsupported())
    }

    /// What an id of the application's stands for.
    fn entry(&self, id: FeedId) -> Option<&FeedSlot> {
        self.feeds.get(id.0 as usize).filter(|_| id.1 == self.number).map(|entry| &**entry)
    }

    /// Fails if an id is of another store.
    fn check_id(&self, id: FeedId) -> Result<(), StoreError> {
        self.entry(id).map(|_| ()).ok_or(StoreError::UnknownFeed)
    }

    fn slot(&self, id: FeedId) -> &FeedSlot {
        &self.feeds[id.0 as usize]
    }

    fn insert(&mut self, feed: Feed) -> FeedId {
        self.push_slot(Box::new(FeedSlot::new(feed)))
    }

    fn push_slot(&mut self, slot: Box<FeedSlot>) -> FeedId {
        self.feeds.push(slot);
        FeedId(self.feeds.len() as u32 - 1, self.number)
    }

    /// A feed can be found by its key, name and folder.
    fn index(&mut self, id: FeedId) {
        let feed = &self.feeds[id.0 as usize].feed;
        self.members.catalog.insert(id, feed.key(), feed.slot(), feed.local_name());
        if feed.writable() {
            self.members.catalog.own(id);
        }
    }

    fn mark_dirty(&mut self, id: FeedId) {
        if !std::mem::replace(&mut self.feeds[id.0 as usize].dirty, true) {
            self.uncommitted.add(id);
        }
    }
}

pub(crate) fn feed_name(feed: &Feed) -> String {
    feed.local_name().map_or_else(|| feed.slot().to_string(), str::to_owned)
}

//! A feed, as the application sees it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use multifeed_core::{VerifyCursor, VerifyStep};
use multifeed_proto::{DiscoveryKey, FeedKey};

use crate::error::Error;
use crate::shared::feed_table::FeedState;
use crate::store::calls::Guard;
use crate::store::calls::call::Call;
use crate::store::calls::waiting::Wait;

/// One feed of a multifeed: an append-only log of blocks, that only the holder of its secret key extends. Clones are the
/// same feed.
///
/// Numbers are as of the last thing that the store did; what was awaited (an append, say) is always in them.
#[derive(Clone)]
pub struct Feed {
    pub(crate) state: Arc<FeedState>,
    pub(crate) guard: Arc<Guard>,
}

/// A check of a feed, under way: see [`Feed::verify`].
#[derive(Debug)]
pub struct Verification {
    feed: Feed,
    cursor: Option<VerifyCursor>,
}

impl Feed {
    pub(crate) fn new(state: Arc<FeedState>, guard: Arc<Guard>) -> Self {
        Self { state, guard }
    }

    /// Returns the feed's public key. Anyone who knows it can read the feed.
    pub fn key(&self) -> FeedKey {
        self.state.key
    }

    /// Returns what stands for the key in a place that must not give it away.
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.state.discovery_key
    }

    /// Returns the writer's name. A remote's feed is named by the number of its folder, which the [removal](Self::remove) of another feed can
    /// change, or by its key, if that number is a writer's name. A plain core of a corestore is named by what it was asked for, if that is text,
    /// or its key. [`MultifeedEvent::Renamed`](crate::MultifeedEvent::Renamed) reports a new one.
    pub fn name(&self) -> String {
        self.state.name()
    }

    /// Returns the length in blocks, as the newest known signature has it, whether or not all of them are held.
    pub fn len(&self) -> u64 {
        self.state.len()
    }

    /// Returns whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes of all blocks of the length.
    pub fn byte_len(&self) -> u64 {
        self.state.byte_len()
    }

    /// Returns how many of the blocks are held.
    pub fn downloaded(&self) -> u64 {
        self.state.downloaded()
    }

    /// Returns whether we have its secret key.
    pub fn writable(&self) -> bool {
        self.state.writable
    }

    /// Returns whether it was written here, or has a writer's name, and its secret key is missing or cannot be read.
    /// [`remove`](Self::remove) leaves it alone, as the key may come back.
    pub fn lost_key(&self) -> bool {
        self.state.lost_key
    }

    /// Returns whether a block is held.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn has(&self, index: u64) -> Result<bool, Error> {
        self.guard.ask(|answer| Call::Has { feed: self.state.id, index, answer }).await
    }

    /// Appends one block, and returns its index. A block may be empty.
    ///
    /// # Errors
    /// [`Error::Append`] if the feed is not ours to write, the block is too large to be served, or the store failed: the
    /// feed is then as it was.
    pub async fn append(&self, block: impl AsRef<[u8]>) -> Result<u64, Error> {
        let blocks = vec![Bytes::copy_from_slice(block.as_ref())];
        Ok(self.append_bytes(blocks).await?.start)
    }

    /// Appends blocks as one batch, with one signature, and returns their indexes.
    ///
    /// # Errors
    /// As [`append`](Self::append); of a batch all blocks are appended, or none.
    pub async fn append_batch(&self, blocks: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<Range<u64>, Error> {
        let blocks = blocks.into_iter().map(|block| Bytes::copy_from_slice(block.as_ref())).collect();
        self.append_bytes(blocks).await
    }

    /// Appends blocks that need no copy, as [`append_batch`](Self::append_batch).
    ///
    /// # Errors
    /// As [`append_batch`](Self::append_batch).
    pub async fn append_bytes(&self, blocks: Vec<Bytes>) -> Result<Range<u64>, Error> {
        self.guard.ask(|answer| Call::Append { feed: self.state.id, blocks, answer }).await?
    }

    /// Writes all of this feed that was appended and received before this call, and syncs it to the disk, as
    /// [`Multifeed::sync_to_disk`](crate::Multifeed::sync_to_disk) does of all feeds. If the disk is full, what was appended may be safe, though what came of
    /// other feeds cannot be written.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub async fn sync_to_disk(&self) -> Result<(), Error> {
        let feed = self.state.id;
        Ok(self.guard.ask(|answer| Call::SyncFeedToDisk { feed, answer }).await??)
    }

    /// Returns a block's bytes; `None` if it is not held. [`fetch`](Self::fetch) waits for it.
    ///
    /// # Errors
    /// [`Error::Read`] if the store fails, with the block's index.
    pub async fn get(&self, index: u64) -> Result<Option<Bytes>, Error> {
        self.guard.ask(|answer| Call::Get { feed: self.state.id, index, answer }).await?
    }

    /// Returns the newest block's bytes, of the length that is known. If it is not held, as in a sparse session, those sessions that are there are asked for it, as
    /// JS does. `None` if the feed is empty, or none of them has the block.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn head(&self) -> Result<Option<Bytes>, Error> {
        let Some(index) = self.len().checked_sub(1) else { return Ok(None) };
        if let Some(block) = self.get(index).await? {
            return Ok(Some(block));
        }
        match self.fetch_with(index, Wait::if_available()).await {
            Ok(block) => Ok(Some(block)),
            Err(Error::Unavailable | Error::Cleared { .. } | Error::Cancelled) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a remote's feed out of the store: its folder is gone when this returns, also after a power cut (hypercore's `destroyStorage`).
    /// Sessions close its channel and go on, and every call on the feed ends with [`StoreError::Removed`](multifeed_core::StoreError::Removed).
    ///
    /// A remote that has the feed brings it again: [`ban`](crate::Multifeed::ban) it before to prevent that. The last folder takes
    /// the number of the one that is gone, as JS knows no gaps. The feed in that folder is named by the new number, if its name is a number.
    ///
    /// # Errors
    /// [`Error::Store`]: [`OwnWriter`](multifeed_core::StoreError::OwnWriter) if the feed is written here,
    /// [`Removed`](multifeed_core::StoreError::Removed) if it was removed before, or what the disk says. The feed may be gone then all the
    /// same: the next feed that is made or removed, or the next opening of the store, does the rest first. [`Error::Closed`].
    pub async fn remove(&self) -> Result<(), Error> {
        let (feed, writer) = (self.state.id, false);
        self.guard.ask(|answer| Call::Remove { feed, writer, answer }).await?
    }

    /// Removes a feed that is written here, as [`remove`](Self::remove) does another. Its secret key is destroyed. The feed is banned first, so that
    /// nobody goes on with a copy of the key from a shorter length and signs a second history.
    ///
    /// # Errors
    /// As [`remove`](Self::remove), and [`TooManyBanned`](multifeed_core::StoreError::TooManyBanned).
    pub async fn remove_writer(&self) -> Result<(), Error> {
        let (feed, writer) = (self.state.id, true);
        self.guard.ask(|answer| Call::Remove { feed, writer, answer }).await?
    }

    /// Checks every block, tree node and signature of the feed again, in steps, between which the store does its other work:
    /// `while let Some(step) = verification.next().await? { … }`.
    pub fn verify(&self) -> Verification {
        Verification { feed: self.clone(), cursor: Some(VerifyCursor::default()) }
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

impl PartialEq for Feed {
    /// The same feed of the same multifeed.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

impl Eq for Feed {}

impl Hash for Feed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.state).hash(state);
    }
}

impl Verification {
    /// Checks some more, and returns what this step found; `None` when everything was checked.
    ///
    /// # Errors
    /// [`Error::Store`] if reading fails. What does not verify is a finding of the step, not an error.
    pub async fn next(&mut self) -> Result<Option<VerifyStep>, Error> {
        let Some(cursor) = self.cursor.take() else {
            return Ok(None);
        };
        let feed = self.feed.state.id;
        let (cursor, step) = self.feed.guard.ask(|answer| Call::Verify { feed, cursor, answer }).await??;
        self.cursor = (!step.done).then_some(cursor);
        Ok(Some(step))
    }
}

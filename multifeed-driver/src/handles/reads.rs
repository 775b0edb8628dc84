//! What an application fetches, gives up and watches of a feed.

use std::future::Future;
use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use multifeed_core::{Audit, KeyPair, Place, Repair, RepairCursor, SignatureSearch, Want};
use multifeed_proto::Node;

use crate::error::Error;
use crate::handles::feed::Feed;
use crate::handles::watch::FeedEvents;
use crate::shared::feed_events::FeedQueue;
use crate::store::calls::call::{Call, FeedPeer, ReadCall};
use crate::store::calls::waiting::{Wait, Waiting};

/// Blocks to download: one (`7`), a range (`3..9`, `5..`, `..`), or any (`vec![1, 5, 9]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(Want);

/// A download under way, and a future of its end: all blocks are held. Dropping it cancels it; blocks that came stay.
#[derive(Debug)]
#[must_use = "dropping a Download cancels it"]
pub struct Download(Waiting<()>);

impl Feed {
    /// Returns a block's bytes. If it is not held, asks every session that has it, also later ones, and waits.
    /// Dropping the future ends the waiting.
    ///
    /// # Errors
    /// As [`fetch_with`](Self::fetch_with).
    pub async fn fetch(&self, index: u64) -> Result<Bytes, Error> {
        self.fetch_with(index, Wait::default()).await
    }

    /// Waits as [`fetch`](Self::fetch) does, and not for ever.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Unavailable`] and [`Error::Cancelled`] end the waiting; [`Error::Cleared`] if the feed is
    /// ours and the block is gone; [`Error::Want`] if no feed has such a block; [`Error::Read`] if the store fails.
    pub async fn fetch_with(&self, index: u64, wait: Wait) -> Result<Bytes, Error> {
        let blocks = self.fetch_some(index, index.saturating_add(1), wait).await?;
        blocks.into_iter().next().ok_or(Error::NotHeld { feed: self.key(), index })
    }

    /// Returns the blocks of a range, all of them waited for (hypercore's `getBatch`).
    ///
    /// # Errors
    /// As [`fetch_with`](Self::fetch_with); the timeout is for all of them.
    pub async fn fetch_range(&self, range: Range<u64>, wait: Wait) -> Result<Vec<Bytes>, Error> {
        let end = Want::Range { start: range.start, end: Some(range.end) };
        let all = self.guard.ask_waiting(|ticket, answer| {
            Call::Read(ReadCall::Download { feed: self.state.id, want: end, wait, ticket, answer })
        });
        all.await?;
        let mut blocks = Vec::new();
        let mut index = range.start;
        while index < range.end {
            let some = self.read_some(index, range.end).await?;
            index += some.len() as u64;
            blocks.extend(some);
        }
        Ok(blocks)
    }

    pub(crate) async fn fetch_some(&self, index: u64, until: u64, wait: Wait) -> Result<Vec<Bytes>, Error> {
        let feed = self.state.id;
        let call = |ticket, answer| Call::Read(ReadCall::Fetch { feed, index, until, wait, ticket, answer });
        self.guard.ask_waiting(call).await
    }

    pub(crate) async fn read_some(&self, index: u64, until: u64) -> Result<Vec<Bytes>, Error> {
        let feed = self.state.id;
        self.guard.ask(|answer| Call::Read(ReadCall::Held { feed, index, until, answer })).await?
    }

    /// Downloads blocks: in a sparse session those are what is fetched at all, in others what is fetched first; in ascending
    /// order. It begins at once. A range without an end goes on with what is new.
    ///
    /// # Errors
    /// [`Error::Want`], [`Error::Closed`].
    pub async fn download(&self, blocks: impl Into<Selection>) -> Result<Download, Error> {
        let (feed, want, wait) = (self.state.id, blocks.into().0, Wait::default());
        let call = |ticket, answer| Call::Read(ReadCall::Download { feed, want, wait, ticket, answer });
        Ok(Download(self.guard.begin(call).await?))
    }

    /// Ends the waiting for single blocks of a range, and the downloads that lie within it, with [`Error::Cancelled`].
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn cancel(&self, blocks: impl RangeBounds<u64>) -> Result<(), Error> {
        let (feed, range) = (self.state.id, range_of(&blocks));
        self.guard.ask(|answer| Call::Read(ReadCall::Cancel { feed, range, answer })).await?
    }

    /// Waits until the feed is longer than it is now, and returns its length. In a sparse session peers are asked for their
    /// length; no block is fetched.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Unavailable`], [`Error::Closed`].
    pub async fn update(&self, wait: Wait) -> Result<u64, Error> {
        self.wait_for_len(None, wait).await
    }

    /// Waits as [`update`](Self::update) does, until the feed has at least so many blocks.
    ///
    /// # Errors
    /// As [`update`](Self::update); [`Error::Want`] if no feed is so long.
    pub async fn update_to(&self, len: u64, wait: Wait) -> Result<u64, Error> {
        self.wait_for_len(Some(len), wait).await
    }

    async fn wait_for_len(&self, len: Option<u64>, wait: Wait) -> Result<u64, Error> {
        let feed = self.state.id;
        let call = |ticket, answer| Call::Read(ReadCall::Update { feed, len, wait, ticket, answer });
        self.guard.ask_waiting(call).await
    }

    /// Returns the place of a byte, if what is held gives it. The feed's very end is the block after the last.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub async fn seek(&self, offset: u64) -> Result<Option<Place>, Error> {
        let feed = self.state.id;
        self.guard.ask(|answer| Call::Read(ReadCall::Locate { feed, offset, answer })).await?
    }

    /// Returns the place of a byte. If what is held does not give it, asks peers, and waits.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Unavailable`], [`Error::Closed`].
    pub async fn seek_with(&self, offset: u64, wait: Wait) -> Result<Place, Error> {
        let feed = self.state.id;
        let call = |ticket, answer| Call::Read(ReadCall::Seek { feed, offset, wait, ticket, answer });
        self.guard.ask_waiting(call).await
    }

    /// Returns how many blocks of a range are held.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn downloaded_in(&self, blocks: impl RangeBounds<u64>) -> Result<u64, Error> {
        let (feed, range) = (self.state.id, range_of(&blocks));
        self.guard.ask(|answer| Call::Read(ReadCall::CountHeld { feed, range, answer })).await
    }

    /// Returns whether all blocks of a range are held.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn has_all(&self, blocks: Range<u64>) -> Result<bool, Error> {
        let wanted = blocks.end.saturating_sub(blocks.start);
        Ok(self.downloaded_in(blocks).await? == wanted)
    }

    /// Gives up blocks: they are no longer held, peers hear of that, and they can be fetched again. Returns how many were held.
    ///
    /// Their bytes go back to the disk if nothing that is held follows them, or if the disk can make holes in files. Linux and Android can, on
    /// most file systems. Else they stay in the file, unread. A session that is not sparse fetches the blocks again.
    ///
    /// # Errors
    /// [`Error::Store`] if writing fails.
    pub async fn clear(&self, blocks: impl RangeBounds<u64>) -> Result<u64, Error> {
        let (feed, range) = (self.state.id, range_of(&blocks));
        self.guard.ask(|answer| Call::Read(ReadCall::Clear { feed, range, answer })).await?
    }

    /// Checks every held block against its hash, and gives up those that are not what they must be, so that they can be fetched
    /// again. [`verify`](Self::verify) looks at more, and changes nothing.
    ///
    /// # Errors
    /// [`Error::Store`] if reading or writing fails.
    pub async fn audit(&self) -> Result<Audit, Error> {
        let feed = self.state.id;
        let mut report = Audit::default();
        let mut from = Some(0);
        while let Some(next) = from {
            let step = self.guard.ask(|answer| Call::Read(ReadCall::Audit { feed, from: next, answer })).await??;
            report.valid += step.valid;
            report.invalid += step.invalid;
            report.leaves_made += step.leaves_made;
            for dropped in step.dropped {
                match report.dropped.last_mut() {
                    Some(last) if last.end == dropped.start => last.end = dropped.end,
                    _ => report.dropped.push(dropped),
                }
            }
            from = step.next;
        }
        Ok(report)
    }

    /// Repairs what is corrupt on the disk. Nodes of the tree and signatures that the rest proves are made again. Blocks and nodes that are not what
    /// they must be are given up, so that a session fetches them; of a writer's feed too. [`verify`](Self::verify) then finds only what a session
    /// has to fetch.
    ///
    /// # Errors
    /// [`Error::Store`] if reading or writing fails, or if less of a writer's feed can be proven than may have been signed.
    pub async fn repair(&self) -> Result<Repair, Error> {
        let feed = self.state.id;
        let (mut report, mut cursor) = (Repair::default(), RepairCursor::default());
        while !report.done {
            let (step, next) = self.guard.ask(|answer| Call::Read(ReadCall::Repair { feed, cursor, answer })).await??;
            report.add(step);
            cursor = next;
        }
        Ok(report)
    }

    /// Returns the sessions that have this feed, and how it stands on each.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn peers(&self) -> Result<Vec<FeedPeer>, Error> {
        let feed = self.state.id;
        self.guard.ask(|answer| Call::Read(ReadCall::Peers { feed, answer })).await
    }

    /// Returns the greatest length that a peer has announced.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn remote_len(&self) -> Result<u64, Error> {
        Ok(self.peers().await?.iter().map(|peer| peer.info.remote_len).max().unwrap_or(0))
    }

    /// Returns the roots of the tree of this many blocks, from left to right; `None` if the feed is shorter, or one is not held.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub async fn root_hashes(&self, blocks: u64) -> Result<Option<Vec<Node>>, Error> {
        let feed = self.state.id;
        self.guard.ask(|answer| Call::Read(ReadCall::Roots { feed, blocks, answer })).await?
    }

    /// Returns the first signature of the writer's that covers a block, with the length in blocks that it signs.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub async fn signature(&self, block: u64) -> Result<Option<(u64, [u8; 64])>, Error> {
        let (feed, mut from) = (self.state.id, block);
        loop {
            match self.guard.ask(|answer| Call::Read(ReadCall::Signature { feed, from, answer })).await?? {
                SignatureSearch::Found(length, signature) => return Ok(Some((length, signature))),
                SignatureSearch::Absent => return Ok(None),
                SignatureSearch::From(next) => from = next,
            }
        }
    }

    /// Returns whether this is the writer's signature of a length in blocks; `None` if that cannot be known, because roots of that length
    /// are not held.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub async fn verify_signature(&self, blocks: u64, signature: &[u8; 64]) -> Result<Option<bool>, Error> {
        let (feed, signature) = (self.state.id, Box::new(*signature));
        self.guard.ask(|answer| Call::Read(ReadCall::VerifySignature { feed, blocks, signature, answer })).await?
    }

    /// Begins or ends to fetch this feed's blocks, on every session, whatever its options say.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn set_downloading(&self, download: bool) -> Result<(), Error> {
        let (feed, download) = (self.state.id, Some(download));
        self.guard.ask(|answer| Call::Read(ReadCall::Transfer { feed, download, upload: None, answer })).await?
    }

    /// Begins or ends to serve this feed's blocks, on every session, whatever its options say.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn set_uploading(&self, upload: bool) -> Result<(), Error> {
        let (feed, upload) = (self.state.id, Some(upload));
        self.guard.ask(|answer| Call::Read(ReadCall::Transfer { feed, download: None, upload, answer })).await?
    }

    /// Returns the key pair of a feed that is ours, to keep elsewhere. Anyone who has it can write the feed; two that do so apart sign two
    /// histories, and peers refuse both.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn key_pair(&self) -> Result<Option<KeyPair>, Error> {
        let feed = self.state.id;
        let pair = self.guard.ask(|answer| Call::Read(ReadCall::KeyPair { feed, answer })).await?;
        Ok(pair.map(|pair| *pair))
    }

    /// Subscribes to what happens to this feed from now on.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn events(&self) -> Result<FeedEvents, Error> {
        let feed = self.state.id;
        let queue = Arc::new(FeedQueue::new(self.guard.0.store.options.multifeed.limits.feed_events));
        let weak = Arc::downgrade(&queue);
        self.guard.ask(|answer| Call::Read(ReadCall::Watch { feed, queue: weak, answer })).await??;
        Ok(FeedEvents::new(queue, self.guard.clone()))
    }
}

impl Download {
    /// Lets the download go on by itself.
    pub fn detach(self) {
        self.0.detach();
    }
}

impl Future for Download {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl From<u64> for Selection {
    fn from(block: u64) -> Self {
        Self(Want::Blocks(vec![block]))
    }
}

impl From<Vec<u64>> for Selection {
    fn from(blocks: Vec<u64>) -> Self {
        Self(Want::Blocks(blocks))
    }
}

impl From<Range<u64>> for Selection {
    fn from(range: Range<u64>) -> Self {
        Self(Want::Range { start: range.start, end: Some(range.end) })
    }
}

impl From<RangeInclusive<u64>> for Selection {
    fn from(range: RangeInclusive<u64>) -> Self {
        Self(Want::Range { start: *range.start(), end: Some(range.end().saturating_add(1)) })
    }
}

impl From<RangeTo<u64>> for Selection {
    fn from(range: RangeTo<u64>) -> Self {
        Self(Want::Range { start: 0, end: Some(range.end) })
    }
}

impl From<RangeFrom<u64>> for Selection {
    fn from(range: RangeFrom<u64>) -> Self {
        Self(Want::Range { start: range.start, end: None })
    }
}

impl From<RangeFull> for Selection {
    fn from(_: RangeFull) -> Self {
        Self(Want::Range { start: 0, end: None })
    }
}

pub(crate) fn range_of(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

//! What happens in a session, on its way to the application.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use multifeed_core::{Conflict, SyncError, SyncState, SyncTotals};
use multifeed_proto::{FeedKey, HandshakeHash, PeerKey, RemoteHandshake, SessionError};

use crate::waking::Waking;

/// A session's number, unique in its multifeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncId(pub(crate) u64);

impl std::fmt::Display for SyncId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What happens in a session.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SyncEvent {
    /// The Noise handshake is done.
    Connected {
        /// The remote's static key. Anyone can have made one up: compare it if identity matters.
        remote_public_key: PeerKey,
        /// Equal on both sides of this stream and nowhere else (for channel binding).
        handshake_hash: HandshakeHash,
    },
    /// The remote has proven that it knows the root key, or another key of ours on the stream. [`Ready`](Self::Ready) follows if its version of
    /// multifeed is compatible.
    Proven,
    /// The remote knows the root key, and its version of multifeed is compatible.
    Ready(RemoteHandshake),
    /// The remote sent the list of those feeds that it will replicate, of the ones we requested (JS's `remote-feeds`). It may be empty.
    RemoteFeeds {
        /// The feeds.
        keys: Vec<FeedKey>,
    },
    /// This session brought a new feed: its first block, or in a sparse session its length. A feed that is only offered is not part of the
    /// multifeed yet.
    Feed {
        /// Its key.
        key: FeedKey,
        /// Its name in this multifeed.
        name: String,
    },
    /// The remote offered more feeds than it may, and these were not requested. Until the event is taken, further ones are added to its count.
    OffersRefused {
        /// How many.
        feeds: u64,
        /// [`Limits::feeds_offered`](multifeed_core::Limits::feeds_offered).
        limit: usize,
    },
    /// The remote reached one of its [`PeerLimits`](crate::PeerLimits): nothing more that counts towards it is fetched from this remote, and the
    /// session goes on. Once for each limit.
    LimitReached(SessionError),
    /// The store's disk is full, or has less free space than it must keep: nothing new is fetched in any session, and everything else goes on. Once,
    /// until [`SpaceFreed`](Self::SpaceFreed).
    DiskFull {
        /// What is full, and what to do.
        reason: String,
    },
    /// There is space again. A live session fetches what is missing. Any other session ends with the disk's error, and the next one fetches what
    /// it left out.
    SpaceFreed,
    /// The remote requested a block that is too large for any message. It was not sent.
    TooLarge {
        /// The feed.
        key: FeedKey,
        /// The block's index.
        index: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// Sending a block takes 10 s or longer at the present rate of the stream, and the remote is not one of ours: a JS peer ends its stream if an
    /// answer takes longer than 20 s. Reported before the block is sent, or a few seconds after sending began if the rate was not known, as for a
    /// session's first block. Once for each feed of a session.
    SlowBlock {
        /// The feed.
        key: FeedKey,
        /// The block's index.
        index: u64,
        /// Its size in bytes.
        size: u64,
        /// The measured rate, in bytes a second.
        per_second: u64,
    },
    /// The feed's files are damaged, or the disk does not read or write them, which showed when the remote asked for something of it, or brought
    /// something. Its channel closes, and the session goes on. Or the feed cannot be taken, as the list of feeds of its multifeed is lost
    /// (`ERR_LIST_LOST`).
    Damaged {
        /// The feed.
        key: FeedKey,
        /// The block that the remote requested; `None` if more than one block is affected. Other blocks of the feed are still served.
        block: Option<u64>,
        /// What is wrong with which file.
        reason: String,
        /// A name for the kind of failure, as [`StoreError::code`](crate::StoreError::code) gives it.
        code: &'static str,
        /// Whether [`Feed::repair`](crate::Feed::repair) helps: it makes what is wrong again, or gives it up so that it can come again.
        repairable: bool,
    },
    /// A feed's writer signed two histories, and the remote holds the other one. Nothing more of the feed is fetched, and the session goes on.
    Conflict {
        /// The feed.
        key: FeedKey,
        /// Both signed roots.
        conflict: Box<Conflict>,
    },
    /// The remote proved that a feed of ours is longer than it is here. This store is an old copy, or the feed's key is on another device too. The
    /// missing blocks are fetched if the session is not sparse, and appends continue after them.
    WriterBehind {
        /// The feed.
        key: FeedKey,
        /// The length that it had here, in blocks.
        held: u64,
        /// The length that was proven, in blocks.
        len: u64,
    },
    /// The session's progress, after blocks were sent, or received and written: the feeds' handles show them by then. Once
    /// [`Replication::state`](crate::Replication::state) or [`Replication::in_sync`](crate::Replication::in_sync) was called, also after any other change of it.
    /// Only the newest one is kept until it is taken.
    Progress(SyncState),
}

/// What a session moved.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Totals {
    /// Feeds and blocks.
    pub moved: SyncTotals,
    /// Bytes and messages on the stream in both directions until this session's end, including those of other sessions on it.
    pub stream: multifeed_proto::Totals,
}

/// Lists of the remote's feeds that wait untaken; further ones are merged into the newest.
const REMOTE_FEEDS_WAITING: usize = 64;

/// The events that wait for the application. Bounded: a feed comes once in a session, only the newest progress is
/// kept, and lists of remote feeds are merged when many wait.
#[derive(Debug, Default)]
pub(crate) struct SyncQueue(Waking<Queue>);

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<SyncEvent>,
    progress: Option<SyncState>,
    connected: bool,
    /// It waits for [`SyncEvent::Connected`], which takes the way by the store.
    proven: bool,
    remote_feeds: usize,
    end: Option<Result<Totals, SyncError>>,
    over: bool,
}

impl SyncQueue {
    pub(crate) fn push(&self, event: SyncEvent) {
        self.0.change_if(|queue| {
            let is_open = !queue.over;
            if is_open {
                queue.push(event);
            }
            ((), is_open)
        });
    }

    /// The session is over. Only the first end counts.
    pub(crate) fn end(&self, end: Result<Totals, SyncError>) {
        self.0.change(|queue| {
            if !queue.over {
                queue.over = true;
                queue.end = Some(end);
            }
        });
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.with(|queue| queue.over)
    }

    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<SyncEvent>> {
        self.0.poll(cx, |queue| queue.pop().map(Some).or(queue.over.then_some(None)))
    }

    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Poll<Result<Totals, SyncError>> {
        self.0.poll(cx, |queue| queue.end.take())
    }
}

impl Queue {
    fn push(&mut self, event: SyncEvent) {
        match event {
            SyncEvent::Progress(progress) => self.progress = Some(progress),
            SyncEvent::RemoteFeeds { keys } if self.remote_feeds >= REMOTE_FEEDS_WAITING => {
                let newest = self.events.iter_mut().rev().find_map(|event| match event {
                    SyncEvent::RemoteFeeds { keys } => Some(keys),
                    _ => None,
                });
                if let Some(newest) = newest {
                    newest.extend(keys);
                    newest.sort_unstable();
                    newest.dedup();
                }
            }
            SyncEvent::OffersRefused { feeds: more, limit } => {
                let waiting = self.events.iter_mut().find_map(|event| match event {
                    SyncEvent::OffersRefused { feeds, .. } => Some(feeds),
                    _ => None,
                });
                match waiting {
                    Some(feeds) => *feeds += more,
                    None => self.events.push_back(SyncEvent::OffersRefused { feeds: more, limit }),
                }
            }
            SyncEvent::Proven if !self.connected => self.proven = true,
            event @ SyncEvent::Connected { .. } => {
                self.connected = true;
                self.events.push_back(event);
                if std::mem::take(&mut self.proven) {
                    self.events.push_back(SyncEvent::Proven);
                }
            }
            event => {
                self.remote_feeds += usize::from(matches!(event, SyncEvent::RemoteFeeds { .. }));
                self.events.push_back(event);
            }
        }
    }

    fn pop(&mut self) -> Option<SyncEvent> {
        if let Some(event) = self.events.pop_front() {
            self.remote_feeds -= usize::from(matches!(event, SyncEvent::RemoteFeeds { .. }));
            return Some(event);
        }
        self.progress.take().map(SyncEvent::Progress)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn state(feeds: u16) -> SyncState {
        let mut state = SyncState::default();
        state.feeds = feeds.into();
        state
    }

    #[test]
    fn a_remote_is_connected_before_it_has_proven_anything() {
        let queue = SyncQueue::default();
        let cx = Context::from_waker(Waker::noop());
        queue.push(SyncEvent::Proven);
        assert!(queue.poll_next(&cx).is_pending());
        let connected = SyncEvent::Connected {
            remote_public_key: PeerKey::new([1; 32]),
            handshake_hash: HandshakeHash::new([2; 64]),
        };
        queue.push(connected.clone());
        assert_eq!(queue.poll_next(&cx), Poll::Ready(Some(connected)));
        assert_eq!(queue.poll_next(&cx), Poll::Ready(Some(SyncEvent::Proven)));
        assert!(queue.poll_next(&cx).is_pending());
    }

    #[test]
    fn what_waits_is_bounded() {
        let queue = SyncQueue::default();
        for number in 0..1000u16 {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&number.to_be_bytes());
            queue.push(SyncEvent::RemoteFeeds { keys: vec![FeedKey::new(key), FeedKey::new([9; 32])] });
            queue.push(SyncEvent::Progress(state(number)));
            queue.push(SyncEvent::OffersRefused { feeds: 3, limit: 5 });
        }
        queue.end(Ok(Totals::default()));
        queue.end(Err(SyncError::Session(multifeed_proto::SessionError::Local("later".into()))));
        queue.push(SyncEvent::RemoteFeeds { keys: Vec::new() });

        let cx = Context::from_waker(Waker::noop());
        let mut events = Vec::new();
        while let Poll::Ready(Some(event)) = queue.poll_next(&cx) {
            events.push(event);
        }
        assert_eq!(events.len(), REMOTE_FEEDS_WAITING + 2);
        assert_eq!(events.pop(), Some(SyncEvent::Progress(state(999))));
        assert!(events.contains(&SyncEvent::OffersRefused { feeds: 3000, limit: 5 }));
        let keys: usize = events
            .iter()
            .map(|event| match event {
                SyncEvent::RemoteFeeds { keys } => keys.iter().filter(|key| **key != FeedKey::new([9; 32])).count(),
                _ => 0,
            })
            .sum();
        assert_eq!(keys, 1000, "merging loses no feed");
        assert!(matches!(queue.poll_end(&cx), Poll::Ready(Ok(_))), "the first end counts");
    }
}

//! What an application asks of a session, and what the session reports to it.

use std::sync::Arc;
use std::time::Duration;

use multifeed_proto::{Config, FeedKey, HandshakeHash, Json, PeerKey, RemoteHandshake, SessionError};

use crate::error::{Conflict, StoreError};
use crate::ids::SetId;
use crate::replication::missing_ranges::FeedHoles;
use crate::replication::policy::Policy;
use crate::replication::reconcile::EXTENSION;
use crate::stats::SyncState;

/// How long a session that is not live may exchange nothing but keep-alives, if [`Config::stall_timeout`] does not say. It is far
/// longer than a remote whose disk is slow needs for an answer.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(600);

/// How to replicate over one session.
#[derive(Debug, Clone, Default)]
pub struct Replicate {
    /// Whether the session goes on after both sides have everything, and exchanges new blocks until either side ends it. By default it ends when there is
    /// nothing left to exchange. If only one side is live, it ends as if neither were.
    ///
    /// A session that is not live and has a stream of its own fails with [`SessionError::Stalled`] if nothing but keep-alives is exchanged for
    /// [`Config::stall_timeout`], by default [`STALL_TIMEOUT`]: it would wait for ever for what got lost. A live one has no such limit.
    pub live: bool,
    /// Whether to fetch blocks. By default, those of every feed except our own, as hypercore does.
    pub download: Option<bool>,
    /// Whether to serve blocks. By default yes.
    pub upload: Option<bool>,
    /// Whether to fetch only the blocks that the application asks for. By default as the store's [`Options::sparse`](crate::Options::sparse) says. Unless
    /// live, such a session ends when it has the blocks that were asked for.
    pub sparse: Option<bool>,
    /// Whether to find out first which feeds differ, and to exchange only those, if the remote does so too (see [`reconcile`](crate::reconcile)). By default
    /// yes, unless nothing is served. JS peers do not notice.
    pub reconcile: Option<bool>,
    /// What this session offers and accepts, instead of the store's [`Options::policy`](crate::Options::policy).
    pub policy: Option<Arc<dyn Policy>>,
    /// Data for the remote's application, sent in the multifeed handshake (JS's `userData`).
    pub user_data: Option<Json>,
    /// The feeds that are offered; feeds that the remote brings are added to them. By default every feed of the store.
    pub set: SetId,
    /// A name for the remote, such as its address. All sessions with the same name share [`PeerLimits`](crate::PeerLimits), as long as the store is open. By
    /// default each session has limits of its own.
    pub source: Option<String>,
}

impl Replicate {
    /// Returns options for a session that goes on until one side ends it.
    pub fn live() -> Self {
        Self { live: true, ..Self::default() }
    }

    /// Serves nothing: blocks are only fetched. The other options stay.
    pub fn download_only(self) -> Self {
        Self { upload: Some(false), ..self }
    }

    /// Fetches nothing: blocks are only served. The other options stay.
    pub fn upload_only(self) -> Self {
        Self { download: Some(false), ..self }
    }

    /// Sets this policy in place of the store's. The other options stay.
    pub fn with_policy(self, policy: impl Policy + 'static) -> Self {
        Self { policy: Some(Arc::new(policy)), ..self }
    }

    /// Sets whether to fetch only the blocks that the application asks for, whatever the store's options say. The other options stay.
    pub fn with_sparse(self, sparse: bool) -> Self {
        Self { sparse: Some(sparse), ..self }
    }

    /// Sets the data for the remote's application in the multifeed handshake (JS's `userData`). The other options stay.
    pub fn with_user_data(self, user_data: Json) -> Self {
        Self { user_data: Some(user_data), ..self }
    }

    /// Sets in a session's configuration what to say of it from the start, and how long it may stand still.
    pub fn configure(&self, config: &mut Config) {
        // What the remote opens while it waits here for its turn is opened next.
        config.discover = true;
        config.stall_timeout = if self.live { None } else { config.stall_timeout.or(Some(STALL_TIMEOUT)) };
        if let Some(root) = &mut config.root {
            (root.live, root.user_data) = (self.live, self.user_data.clone());
            if self.reconciles() {
                config.extensions.push(EXTENSION.into());
                root.extensions.push(EXTENSION.into());
            }
        }
    }

    /// Whether to find out first what differs, if the remote does so too.
    pub(crate) fn reconciles(&self) -> bool {
        self.reconcile.unwrap_or(self.upload != Some(false))
    }
}

/// What happened on one session, in the order in which it happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum PeerEvent {
    /// The Noise handshake is done.
    Connected {
        /// The remote's static key.
        remote_public_key: PeerKey,
        /// Noise's handshake hash, equal on both sides of this stream and nowhere else.
        handshake_hash: HandshakeHash,
    },
    /// The remote knows the root key and speaks our version.
    Ready(RemoteHandshake),
    /// The remote named the feeds that both sides now replicate (JS's `remote-feeds`).
    RemoteFeeds {
        /// The feeds of this turn, sorted.
        keys: Vec<FeedKey>,
    },
    /// The remote offered more feeds than it may: these were not requested.
    OffersRefused {
        /// How many.
        feeds: u64,
        /// [`Limits::feeds_offered`](crate::Limits::feeds_offered).
        limit: usize,
    },
    /// The remote brought as much as it may ([`PeerLimits`](crate::PeerLimits)), and nothing more that this bound is for is fetched from
    /// it: a [`SessionError::Limit`]. Or a feed of its is longer than it may be ([`Limits::feed_blocks`](crate::Limits::feed_blocks)), and its channel
    /// closes: a [`SessionError::FeedTooLong`], or with more bytes ([`Limits::feed_bytes`](crate::Limits::feed_bytes)) a
    /// [`SessionError::FeedTooLarge`]. The session goes on.
    LimitReached(SessionError),
    /// The disk is full, or has less free than it must keep: nothing new is fetched on any session, and the rest goes on. Once, until
    /// [`SpaceFreed`](Self::SpaceFreed).
    DiskFull(StoreError),
    /// There is room again: a live session fetches what is missing. What another one left out comes with the next; it ends with
    /// [`DiskFull`](Self::DiskFull)'s error, unless it only serves.
    SpaceFreed,
    /// A feed of the remote's was new here, and has its place in the store now: its first block came.
    Feed {
        /// The feed's key.
        key: FeedKey,
        /// Its name in this store: its folder's number.
        name: String,
    },
    /// A block that no Data message can carry was asked for, and not sent.
    TooLarge {
        /// The feed.
        key: FeedKey,
        /// The block.
        index: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// A block is about to be sent that takes 10 s or longer at the rate that the stream takes bytes, and the remote is not one of ours. A JS peer
    /// ends its stream if an answer takes longer than 20 s. If the rate is not known yet, as of a session's first block, it is reported a few seconds
    /// after sending began. Once for each feed of a session.
    SlowBlock {
        /// The feed.
        key: FeedKey,
        /// The block.
        index: u64,
        /// Its size in bytes.
        size: u64,
        /// The measured rate, in bytes a second.
        per_second: u64,
    },
    /// The feed's files are damaged or could not be written. This shows when the remote asks for something of it, or brings something. A folder that
    /// could not be opened is reported as the session begins ([`Limits::unopened_reports`](crate::Limits::unopened_reports)). The feed's channel
    /// closes, and the session goes on. If something that the remote brought could not be written, it ends with that error.
    /// [`Multifeed::repair_step`](crate::Multifeed::repair_step) makes it again, or gives it up so that it can come again.
    Damaged {
        /// The feed.
        key: FeedKey,
        /// The block that the remote asked for; `None` if not one block alone is concerned. Other blocks of the feed are still served.
        block: Option<u64>,
        /// What is wrong with which file.
        error: StoreError,
    },
    /// The feed's writer signed two histories, and the remote holds the other one: nothing more is fetched of it, and its channel closes if
    /// it is not written here. The session goes on. Not the remote's fault.
    Conflict {
        /// The feed.
        key: FeedKey,
        /// Both signed roots.
        conflict: Box<Conflict>,
    },
    /// The remote proved that a feed that is written here is longer than what was held of it. So this store is an old copy, or the key is
    /// on another device too. What is missing is fetched, if the session is not sparse.
    WriterBehind {
        /// The feed's key.
        key: FeedKey,
        /// The length that was held to be all of it, in blocks.
        held: u64,
        /// The length that was proven, in blocks.
        len: u64,
    },
    /// How the session stands: after blocks moved, and in an [observed](crate::Multifeed::observe) session after any other change of
    /// it. The newest only.
    Progress(SyncState),
    /// The session is over. Once, and last.
    Closed(Result<SyncTotals, SyncError>),
}

/// What a session moved in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SyncTotals {
    /// Feeds that were replicated, counted once each.
    pub feeds: u64,
    /// Those of them that both sides turned out to hold alike, so that nothing was said of them.
    pub in_step: u64,
    /// Blocks that came and were stored.
    pub blocks_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Blocks that were sent.
    pub blocks_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Blocks that the remote has and that did not come: it left, or was left, before its time.
    pub missing: u64,
    /// Feeds that the remote did not take, or not all of them, though it lacks blocks that are held and served here. It did not request them,
    /// fetches nothing (more) of them, or refused what it was sent. A policy of its application, or a bound of its store, may be why. As far as
    /// it told what it has; of a live session only those of which it fetched nothing in the end. In a session that is not live, also feeds of
    /// which more came here after the remote had taken all that there was, and their channels had closed.
    pub not_taken: u64,
    /// Feeds of which the remote lacks blocks that it never asked for, and was sent all that it asked for, as a JS peer that is sparse. It was left,
    /// as it does not say that it is done. The two are then not in sync. 0 if something else keeps them apart.
    pub unwanted: u64,
    /// Feeds of which the remote has blocks that are not here, in a session that fetches nothing ([`Replicate::download`] is `Some(false)`), as that of
    /// a store that can only be read. Known of a session that is [observed](crate::Multifeed::observe).
    pub unfetched: u64,
    /// Feeds with holes, and which blocks each still lacks that the remote said it does not have; of a sparse session, those that were
    /// asked for.
    pub holes: Vec<FeedHoles>,
}

/// Why a session ended before its time.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The remote, the network, or a limit: what the session says.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The remote left something unanswered for so long that it was given up ([`Limits::request_timeout`](crate::Limits::request_timeout)),
    /// and it is not here. What came is kept, and another session can bring the rest.
    #[error("{}; sync again to get the rest", given_up(*.blocks, *.feeds))]
    GivenUp {
        /// How many blocks did not come; 0 if the remote never said which it has.
        blocks: u64,
        /// Of how many feeds.
        feeds: u64,
    },
    /// Our own storage failed, or was full, so that a session that is not live may have left something out. Blocks that were written
    /// before are kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SyncError {
    /// Returns a stable name for programs, as [`SessionError::code`] and [`StoreError::code`] give it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Session(error) => error.code(),
            Self::GivenUp { .. } => "ERR_GIVEN_UP",
            Self::Store(error) => error.code(),
        }
    }

    /// Returns our value, if two sides' values did not agree.
    pub fn us(&self) -> Option<String> {
        match self {
            Self::Session(error) => error.us(),
            Self::GivenUp { .. } | Self::Store(_) => None,
        }
    }

    /// Returns the remote's value, if two sides' values did not agree and it sent one.
    pub fn them(&self) -> Option<String> {
        match self {
            Self::Session(error) => error.them(),
            Self::GivenUp { .. } | Self::Store(_) => None,
        }
    }
}

fn given_up(blocks: u64, feeds: u64) -> String {
    let feeds = if feeds == 1 { "1 feed".to_owned() } else { format!("{feeds} feeds") };
    match blocks {
        0 => format!("{feeds}: the peer did not answer which blocks it has"),
        1 => format!("{feeds}: the peer did not answer for 1 block"),
        _ => format!("{feeds}: the peer did not answer for {blocks} blocks"),
    }
}

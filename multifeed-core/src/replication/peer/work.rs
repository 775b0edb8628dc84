//! What a feed's channel is lent for a call, and what it gives back.

use std::ops::Range;
use std::time::Duration;

use multifeed_proto::{Message, SessionError};

use crate::error::{Conflict, StoreError};
use crate::feed::{Contradiction, Feed};
use crate::limits::Limits;
use crate::replication::transfer::Share;
use crate::replication::wants::Wants;
use crate::sets::sparse_bits::SparseBits;

/// Why a peer's machine can't go on.
#[derive(Debug)]
pub(crate) enum PeerFault {
    /// The remote broke the rules: its session ends.
    Remote(SessionError),
    /// Our storage failed.
    Store(StoreError),
}

impl PeerFault {
    pub(super) fn message(feed: &Feed, reason: String) -> Self {
        Self::Remote(SessionError::Feed { feed: feed.key(), reason })
    }

    pub(super) fn limit(what: &'static str, limit: usize) -> Self {
        Self::Remote(SessionError::Limit { what, limit: limit as u64 })
    }
}

/// What both sides of a session said about it, as a feed's machine needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerOptions {
    /// Neither side ends when everything is there.
    pub(crate) live: bool,
    /// The remote never says that it is done: it is live, and we are not.
    pub(crate) one_sided: bool,
    /// Whether to fetch blocks; by default unless the feed is writable here, of which then no more is asked than whether the remote holds the
    /// same history.
    pub(crate) download: Option<bool>,
    /// Whether to serve blocks; by default yes.
    pub(crate) upload: Option<bool>,
    /// Only what is asked for is fetched.
    pub(crate) sparse: bool,
    /// What the remote has must be known.
    pub(crate) observed: bool,
    /// The remote is one of ours: it can be shown blocks of another history than its own, and tells of it.
    pub(crate) reconciles: bool,
    /// The remote passes on feeds of others: it may have offered one before it has a block of it.
    pub(crate) relays: bool,
}

impl PeerOptions {
    /// Whether this side would fetch blocks at all: one that does not says so again when it ends.
    pub(super) fn fetches(&self) -> bool {
        self.download.unwrap_or(true)
    }
}

/// The feed that a machine works on: lent for the time of a call.
pub(crate) struct Work<'a, S> {
    pub(crate) feed: &'a mut Feed,
    /// Blocks that some session was asked for.
    pub(crate) reserved: &'a mut SparseBits,
    /// How many sessions have something of the feed to bring.
    pub(crate) fetching: u32,
    /// Whether blocks came that were not announced yet.
    pub(crate) unannounced: bool,
    /// What the application waits for.
    pub(crate) wants: &'a Wants,
    pub(crate) storage: &'a mut S,
    pub(crate) limits: &'a Limits,
    /// What may be asked for now.
    pub(crate) share: Share,
    /// The largest block that may be read to be sent now, in bytes.
    pub(crate) room: u64,
    /// No block may be sent before the remote acknowledges others.
    pub(crate) paced: bool,
    pub(crate) now: Duration,
    /// The leaf hash of the block that came, if it was computed with others'.
    pub(crate) leaf: Option<[u8; 32]>,
    /// The channel stays open if it is through, and whether it was.
    pub(crate) stays: bool,
    pub(crate) stayed: bool,
    /// Blocks that are too large to be sent, each with its size, to report by name.
    pub(crate) too_large: Vec<(u64, u64)>,
    /// What was found damaged when it had to be served, to report by name.
    pub(crate) damaged: Option<(u64, StoreError)>,
}

/// What handling a message did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// The block that was stored, and its size in bytes.
    pub(crate) stored: Option<(u64, u64)>,
    /// A block that came and was held already, and is perhaps not written yet.
    pub(crate) held: Option<u64>,
    /// Nodes or a longer length were proven without a block.
    pub(crate) proven: bool,
    /// Blocks that were asked for here are free to be asked of others.
    pub(crate) released: bool,
    /// If it answered something: since when that had waited.
    pub(crate) answered: Option<Duration>,
    /// The remote told of more blocks than before: one past the highest.
    pub(crate) remote_len: Option<u64>,
    /// The remote has these blocks, of which it was sent some, or took them not.
    pub(crate) arrived: Option<Range<u64>>,
    /// Evidence that the feed's writer signed two histories; nothing of the other one is taken.
    pub(crate) conflict: Option<Box<Conflict>>,
    /// What came has another node than the one held, and what that makes of it is looked for. Nothing more is taken meanwhile.
    pub(crate) contradiction: Option<(Shown, Box<Contradiction>)>,
    /// The writer signed more than a bound: no more of it is taken.
    pub(crate) too_large: Option<TooLarge>,
    /// The remote proved that there is more of a feed that is written here: the length in blocks that was held to be all of it.
    pub(crate) writer_behind: Option<u64>,
}

/// What of the remote's may be of another history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// This block, or its hashes.
    Block(u64),
    /// What it was asked of its history.
    History,
}

/// What a writer signed of a feed, and the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooLarge {
    Blocks(u64, u64),
    Bytes(u64, u64),
}

/// What a machine wants sent.
#[derive(Debug)]
pub(crate) enum Sent {
    /// A message on the feed's channel.
    Message(Message),
    /// The channel's Close: nothing follows it.
    Close,
}

impl Sent {
    /// The block that is sent, and its size in bytes.
    pub(crate) fn block(&self) -> Option<(u64, u64)> {
        match self {
            Self::Message(Message::Data(data)) => Some((data.index, data.value.as_ref()?.len() as u64)),
            _ => None,
        }
    }
}

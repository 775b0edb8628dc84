//! The application's calls, as the store's thread gets them.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use multifeed_core::{
    Audit, CoreList, FeedId, FeedSyncState, KeptConflict, KeyPair, Namespace, PeerInfo, Place, Repair, RepairCursor,
    SignatureSearch, Signer, StoreError, StoreSyncState, SyncState, VerifyCursor, VerifyStep, Want,
};

use multifeed_proto::{FeedKey, Node};

use crate::error::Error;
use crate::oneshot::Answer;
use crate::shared::feed_events::FeedQueue;
use crate::shared::feed_table::FeedState;
use crate::shared::inbox::{FeedMessage, Inbox};
use crate::shared::link::Link;
use crate::shared::session_events::SyncId;
use crate::store::calls::Guard;
use crate::store::calls::waiting::{Ticket, Wait};

/// One call, and where its answer goes.
#[derive(Debug)]
pub(crate) enum Call {
    Writer {
        name: Option<String>,
        writer: NewWriter,
        answer: Answer<Result<Arc<FeedState>, Error>>,
    },
    Add {
        key: FeedKey,
        answer: Answer<Result<Arc<FeedState>, Error>>,
    },
    Append {
        feed: FeedId,
        blocks: Vec<Bytes>,
        answer: Answer<Result<Range<u64>, Error>>,
    },
    Get {
        feed: FeedId,
        index: u64,
        answer: Answer<Result<Option<Bytes>, Error>>,
    },
    Has {
        feed: FeedId,
        index: u64,
        answer: Answer<bool>,
    },
    Verify {
        feed: FeedId,
        cursor: VerifyCursor,
        answer: Answer<Result<(VerifyCursor, VerifyStep), Error>>,
    },
    Read(ReadCall),
    Extension(ExtensionCall),
    State(StateCall),
    /// Takes a feed out of the store, with its secret key if `writer` is set.
    Remove {
        feed: FeedId,
        writer: bool,
        answer: Answer<Result<(), Error>>,
    },
    /// Bans or unbans a feed: whether that changed anything.
    Ban {
        key: FeedKey,
        bans: bool,
        answer: Answer<Result<bool, Error>>,
    },
    Conflicts {
        answer: Answer<Vec<KeptConflict>>,
    },
    ClearConflicts {
        answer: Answer<Result<usize, Error>>,
    },
    /// The policies of the sessions that are there answer otherwise.
    PolicyChanged {
        answer: Answer<()>,
    },
    /// Lets a new writer have the name of a missing one.
    ReleaseName {
        name: String,
        answer: Answer<bool>,
    },
    /// Gives a missing writer up.
    GiveUp {
        key: FeedKey,
        answer: Answer<Result<bool, Error>>,
    },
    /// Makes a corestore's list of the multifeed's feeds anew: how many it has then.
    RebuildList {
        answer: Answer<Result<Option<usize>, Error>>,
    },
    Banned {
        answer: Answer<Vec<FeedKey>>,
    },
    /// Writes and syncs some feeds: where to go on, and the first error.
    SyncToDisk {
        from: Option<FeedId>,
        answer: Answer<(Option<FeedId>, Result<(), StoreError>)>,
    },
    /// Writes and syncs one feed.
    SyncFeedToDisk {
        feed: FeedId,
        answer: Answer<Result<(), StoreError>>,
    },
    /// Closes files that are open and not in use: how many.
    CloseIdleFiles {
        answer: Answer<usize>,
    },
    /// Opens a multifeed of a corestore, or gives the handles of one that is open another.
    OpenMultifeed {
        namespace: Namespace,
        root_key: FeedKey,
        answer: Answer<Result<Arc<Guard>, Error>>,
    },
    /// The handles of the plain cores of a corestore.
    PlainCores {
        answer: Answer<Result<Arc<Guard>, Error>>,
    },
    /// A plain core, opened or made; `None` if it is not there, and is not to be made.
    PlainCore {
        which: WhichCore,
        answer: Answer<Result<Option<Arc<FeedState>>, Error>>,
    },
    ListCores {
        answer: Answer<Result<CoreList, Error>>,
    },
    /// Closes what the caller holds. What comes of it all its handles share.
    Close,
}

/// Which plain core.
#[derive(Debug)]
pub(crate) enum WhichCore {
    Named(Vec<u8>),
    Pair(Box<KeyPair>),
    /// Only if it is there.
    Held(FeedKey),
    Added(FeedKey),
}

/// A call about the application's extensions on a feed's channels.
#[derive(Debug)]
pub(crate) enum ExtensionCall {
    Register {
        feed: FeedId,
        name: Arc<str>,
        answer: Answer<Result<Arc<Inbox<FeedMessage>>, Error>>,
    },
    /// The sessions whose remote speaks it.
    Speakers {
        feed: FeedId,
        name: Arc<str>,
        answer: Answer<Vec<SyncId>>,
    },
    /// Waits until a remote speaks it.
    Ready {
        feed: FeedId,
        name: Arc<str>,
        ticket: Ticket,
        answer: Answer<Result<SyncId, Error>>,
    },
    /// To the peer on one session, or to all: how many of those that it went to speak it.
    Send {
        feed: FeedId,
        to: Option<SyncId>,
        name: Arc<str>,
        body: Bytes,
        answer: Answer<Result<usize, Error>>,
    },
}

/// A call about what is held, fetched, given up or watched of one feed.
#[derive(Debug)]
pub(crate) enum ReadCall {
    /// Blocks from `index` on, as many as are there, `until` and a bound: at least the first, which is waited for.
    Fetch {
        feed: FeedId,
        index: u64,
        until: u64,
        wait: Wait,
        ticket: Ticket,
        answer: Answer<Result<Vec<Bytes>, Error>>,
    },
    /// As `Fetch`, of what is held now.
    Held {
        feed: FeedId,
        index: u64,
        until: u64,
        answer: Answer<Result<Vec<Bytes>, Error>>,
    },
    Download {
        feed: FeedId,
        want: Want,
        wait: Wait,
        ticket: Ticket,
        answer: Answer<Result<(), Error>>,
    },
    Update {
        feed: FeedId,
        len: Option<u64>,
        wait: Wait,
        ticket: Ticket,
        answer: Answer<Result<u64, Error>>,
    },
    Seek {
        feed: FeedId,
        offset: u64,
        wait: Wait,
        ticket: Ticket,
        answer: Answer<Result<Place, Error>>,
    },
    Locate {
        feed: FeedId,
        offset: u64,
        answer: Answer<Result<Option<Place>, Error>>,
    },
    Cancel {
        feed: FeedId,
        range: Range<u64>,
        answer: Answer<Result<(), Error>>,
    },
    Clear {
        feed: FeedId,
        range: Range<u64>,
        answer: Answer<Result<u64, Error>>,
    },
    Repair {
        feed: FeedId,
        cursor: RepairCursor,
        answer: Answer<Result<(Repair, RepairCursor), Error>>,
    },
    Audit {
        feed: FeedId,
        from: u64,
        answer: Answer<Result<Audit, Error>>,
    },
    CountHeld {
        feed: FeedId,
        range: Range<u64>,
        answer: Answer<u64>,
    },
    Peers {
        feed: FeedId,
        answer: Answer<Vec<FeedPeer>>,
    },
    Roots {
        feed: FeedId,
        blocks: u64,
        answer: Answer<Result<Option<Vec<Node>>, Error>>,
    },
    Signature {
        feed: FeedId,
        from: u64,
        answer: Answer<Result<SignatureSearch, Error>>,
    },
    VerifySignature {
        feed: FeedId,
        blocks: u64,
        signature: Box<[u8; 64]>,
        answer: Answer<Result<Option<bool>, Error>>,
    },
    Transfer {
        feed: FeedId,
        download: Option<bool>,
        upload: Option<bool>,
        answer: Answer<Result<(), Error>>,
    },
    KeyPair {
        feed: FeedId,
        answer: Answer<Option<Box<KeyPair>>>,
    },
    Watch {
        feed: FeedId,
        queue: Weak<FeedQueue>,
        answer: Answer<Result<(), Error>>,
    },
}

/// Who signs for a writer, if it has to be made.
pub(crate) enum NewWriter {
    /// A new key pair.
    Random,
    /// This key pair.
    Pair(Box<KeyPair>),
    /// The application.
    Signer(Box<dyn Signer>),
}

impl fmt::Debug for NewWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewWriter")
    }
}

/// A call about how far syncing is.
#[derive(Debug)]
pub(crate) enum StateCall {
    Session {
        link: Arc<Link>,
        answer: Answer<Result<SyncState, Error>>,
    },
    Store {
        answer: Answer<StoreSyncState>,
    },
    Feed {
        feed: FeedId,
        answer: Answer<FeedSyncState>,
    },
    /// Waits until a session is in sync; without one, until all are.
    InSync {
        link: Option<Arc<Link>>,
        ticket: Ticket,
        answer: Answer<Result<(), Error>>,
    },
}

/// A feed on one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedPeer {
    /// The session's number: that of its [`Replication`](crate::Replication).
    pub sync: SyncId,
    /// How the feed stands there.
    pub info: PeerInfo,
}

//! What can go wrong with a multifeed's calls.

use std::io;
use std::sync::Arc;

use multifeed_core::{AppendError, ExtensionError, StoreError, WantError};
use multifeed_proto::FeedKey;

/// Why a call on a multifeed or a feed failed. Errors of a session are [`SyncError`](multifeed_core::SyncError)s.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The multifeed was closed before: by its `close`, or because its thread failed.
    #[error("the multifeed is closed")]
    Closed,
    /// The store failed, or another process has it open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blocks could not be appended; the feed is as it was.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A block could not be read.
    #[error("block {index} of feed {feed} cannot be read: {source}")]
    Read {
        /// The feed.
        feed: FeedKey,
        /// The block's index.
        index: u64,
        /// Why.
        source: StoreError,
    },
    /// What was waited for did not come in time.
    #[error("it did not come in time")]
    TimedOut,
    /// No session that is there can bring what was waited for.
    #[error("no peer has it")]
    Unavailable,
    /// The session was over before it was in sync. [`Replication::finish`](crate::Replication::finish) returns why it ended.
    #[error("the session ended before it was in sync")]
    SessionEnded,
    /// [`Feed::cancel`](crate::Feed::cancel) ended the waiting.
    #[error("it was cancelled")]
    Cancelled,
    /// A block of a feed of ours is not held, and no session fetches that feed: nobody else can have it.
    #[error("block {index} of feed {feed} was cleared here, and no session fetches it")]
    Cleared {
        /// The feed.
        feed: FeedKey,
        /// The block's index.
        index: u64,
    },
    /// A block is not held, and was not to be waited for.
    #[error("block {index} of feed {feed} is not held")]
    NotHeld {
        /// The feed.
        feed: FeedKey,
        /// The block's index.
        index: u64,
    },
    /// No feed can have what was asked for, or too much is waited for.
    #[error(transparent)]
    Want(#[from] WantError),
    /// An extension could not be registered, or a message of it not be sent.
    #[error(transparent)]
    Extension(#[from] ExtensionError),
    /// The operating system gave no randomness for a key.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// The store's thread could not be started.
    #[error("the store's thread cannot be started: {0}")]
    Thread(Arc<io::Error>),
}

impl Error {
    /// Returns a stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Closed => "ERR_CLOSED",
            Self::Store(error) | Self::Read { source: error, .. } => error.code(),
            Self::Append(error) => error.code(),
            Self::TimedOut => "ERR_TIMEOUT",
            Self::Unavailable => "ERR_UNAVAILABLE",
            Self::SessionEnded => "ERR_SESSION_ENDED",
            Self::Cancelled => "ERR_CANCELLED",
            Self::Cleared { .. } => "ERR_CLEARED",
            Self::NotHeld { .. } => "ERR_NOT_HELD",
            Self::Want(error) => error.code(),
            Self::Extension(error) => error.code(),
            Self::Random(_) => "ERR_RANDOM",
            Self::Thread(_) => "ERR_THREAD",
        }
    }
}

/// One failure can be reported to everyone who waits.
const _: fn() = || {
    fn is_cloned<T: Clone + Send + Sync + std::error::Error>() {}
    is_cloned::<Error>();
    is_cloned::<crate::NetworkerError>();
    is_cloned::<multifeed_core::SyncError>();
    is_cloned::<multifeed_core::CorestoreError>();
};

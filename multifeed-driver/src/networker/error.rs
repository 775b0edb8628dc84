//! What can go wrong with a networker's calls.

use multifeed_proto::FeedKey;

use crate::networker::orders::NotTaken;

/// Why a call on a networker failed. What goes wrong with a connection is reported by its events.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkerError {
    /// The networker is closed.
    #[error("the networker is closed")]
    Closed,
    /// A connection is not taken: there are as many as may be, and none of them gives way now.
    #[error("too many connections at once: close some, or try again later")]
    Full,
    /// As many multifeeds are joined as may be.
    #[error("{max} multifeeds are joined, which is the limit: leave one, or raise `roots`")]
    TooManyRoots {
        /// [`NetworkerLimits::roots`](crate::NetworkerLimits::roots).
        max: usize,
    },
    /// A multifeed of this root key is joined.
    #[error("a multifeed of this root key is joined already (discovery key {})", .root.discovery_key())]
    Joined {
        /// The root key.
        root: FeedKey,
    },
    /// As many static keys are banned as may be.
    #[error("{max} peers are banned, which is the limit: unban one, or raise `banned`")]
    TooManyBanned {
        /// [`NetworkerLimits::banned`](crate::NetworkerLimits::banned).
        max: usize,
    },
    /// There are as many dials as may be.
    #[error("there are {max} dials, which is the limit: stop one, or raise `dials`")]
    TooManyDials {
        /// [`NetworkerLimits::dials`](crate::NetworkerLimits::dials).
        max: usize,
    },
    /// The operating system gave no randomness for a key.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

impl NetworkerError {
    /// Returns a stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Closed => "ERR_CLOSED",
            Self::Full => "ERR_FULL",
            Self::TooManyRoots { .. } | Self::TooManyBanned { .. } | Self::TooManyDials { .. } => "ERR_LIMIT",
            Self::Joined { .. } => "ERR_JOINED",
            Self::Random(_) => "ERR_RANDOM",
        }
    }
}

impl From<NotTaken> for NetworkerError {
    fn from(reason: NotTaken) -> Self {
        match reason {
            NotTaken::Closed => Self::Closed,
            NotTaken::Full => Self::Full,
        }
    }
}

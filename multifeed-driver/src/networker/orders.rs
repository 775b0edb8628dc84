//! What a table has the task of a connection do, how far a root key is there, and why either ends.

use multifeed_proto::{DiscoveryKey, FeedKey};

/// Why this side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The remote has our own static key: it is this networker, or a copy of its key.
    OwnKey,
    /// The remote's static key is banned.
    Banned,
    /// The application's hook did not accept the remote's static key.
    NotAccepted,
    /// The dial is for another static key.
    OtherPeer,
    /// There is another connection to the same peer, which stays.
    Merged,
    /// There are [`NetworkerLimits::per_peer`](crate::NetworkerLimits::per_peer) other connections to the same peer.
    TooManyToPeer,
    /// As many connections as may be are there, and this one had proven nothing, or had nothing to do.
    GaveWay,
    /// No root key was shared in [`NetworkerLimits::unshared_time`](crate::NetworkerLimits::unshared_time). If the remote opened another root key, that was
    /// reported before, as [`NetworkerEvent::RootKeyMismatch`](crate::NetworkerEvent::RootKeyMismatch).
    NothingShared,
    /// Every session on it has ended, and none of them was live.
    Done,
    /// The application disconnected it.
    Disconnected,
    /// Its dial was stopped.
    DialStopped,
    /// The networker is closed.
    Closed,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotTaken {
    /// The networker is closed.
    #[error("the networker is closed")]
    Closed,
    /// There are as many connections as may be, and none of them gives way now.
    #[error("too many connections at once: close some, or try again later")]
    Full,
}

/// What the task of a connection is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Open a root key.
    Open(FeedKey),
    /// End the session of a root key.
    Close(FeedKey),
    /// Hear the remote, so that its end is noticed, and say nothing.
    Listen,
    /// Let the remote in: all root keys that are opened first stand before this.
    Admit,
    /// End, without a word to the remote.
    Refuse,
    /// End cleanly.
    End,
    /// Report that the root keys differ.
    Mismatch(Mismatch),
}

/// The remote of a connection opened a root key, and none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The discovery key of the remote's.
    pub(crate) theirs: DiscoveryKey,
    /// It is the first time for this peer.
    pub(crate) is_new: bool,
}

/// How far a root key is on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RootState {
    /// It is left out, as the remote did not answer it the last time. It is opened once the remote opens it.
    LeftOut,
    /// It is open here, and the remote did not answer yet.
    Opening,
    /// Both sides have it.
    Ready,
    /// Its session is being ended from here.
    Closing,
    /// Its session is over: the remote left, or did not answer, or it failed. It is opened again once the remote opens it.
    Over,
    /// The remote opened it again, and it is about to be opened here.
    Reopening,
}

impl RootState {
    /// Whether there is a session.
    pub(super) fn is_carried(self) -> bool {
        matches!(self, Self::Opening | Self::Ready | Self::Closing)
    }
}

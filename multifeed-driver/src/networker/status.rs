//! Who is connected, and how each root key stands with whom.

use std::time::Duration;

use multifeed_core::{Moved, SyncState};
use multifeed_proto::{FeedKey, Totals};

use crate::networker::ids::{ConnectionId, DialId, PeerKey};
use crate::networker::orders::RootState;

/// A peer that is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The connection.
    pub connection: ConnectionId,
    /// The peer's static key. Many peers draw a new one for each connection.
    pub key: PeerKey,
    /// Whether this side is the stream's initiator.
    pub initiator: bool,
    /// The dial that keeps the connection, if one does.
    pub dial: Option<DialId>,
    /// How long it is up.
    pub up: Duration,
    /// The root keys on it.
    pub roots: Vec<(FeedKey, RootState)>,
    /// What went over it.
    pub totals: Totals,
}

/// How a root key stands on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootPeer {
    /// The connection.
    pub connection: ConnectionId,
    /// The peer's static key.
    pub key: PeerKey,
    /// How far the root key is there.
    pub state: RootState,
    /// What is missing on either side, what moves, and whether both are in sync, as last reported.
    pub sync: SyncState,
}

/// How a root key stands with all peers that have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootStatus {
    /// Each connection on which it is, was, or is left out.
    pub peers: Vec<RootPeer>,
}

impl RootStatus {
    /// Returns the peers that share it now.
    pub fn shared(&self) -> impl Iterator<Item = &RootPeer> {
        self.peers.iter().filter(|peer| peer.state == RootState::Ready)
    }

    /// Returns those of them that hold the same as this side.
    pub fn in_sync(&self) -> impl Iterator<Item = &RootPeer> {
        self.shared().filter(|peer| peer.sync.in_sync)
    }

    /// Blocks that peers have and that are missing here; one that is missing here and at hand at three peers may count three times.
    pub fn missing_here(&self) -> u64 {
        self.shared().map(|peer| peer.sync.missing_here).sum()
    }

    /// Blocks that are held here and missing at peers; one that is missing at three peers counts three times.
    pub fn missing_there(&self) -> u64 {
        self.shared().map(|peer| peer.sync.missing_there).sum()
    }

    /// Returns what moved in a second, with all peers together.
    pub fn per_second(&self) -> Moved {
        self.shared().fold(Moved::default(), |mut sum, peer| {
            let moved = peer.sync.per_second;
            sum.blocks_received += moved.blocks_received;
            sum.bytes_received += moved.bytes_received;
            sum.blocks_sent += moved.blocks_sent;
            sum.bytes_sent += moved.bytes_sent;
            sum
        })
    }
}

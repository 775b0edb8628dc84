//! Every bound of a swarm, by name.

use std::time::Duration;

/// What announcements may make a swarm hold or do. Streams, stores and connections have bounds of their own:
/// [`NetworkerLimits`](multifeed_tokio::NetworkerLimits).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwarmLimits {
    /// Peers that were found. If one more is, one gives way that was tried, and never reached; if there is none, the new one is not taken.
    /// Default 1,024.
    pub peers: usize,
    /// Ways to reach one peer. Default 8.
    pub routes: usize,
    /// Dials at once to peers that were never reached, and that the user did not name. Default 16.
    pub dials_at_once: usize,
    /// Dials in all: one is kept for each peer that is connected or tried. If more peers wait, those that were never reached have them in turn. Default 512.
    pub dials: usize,
    /// Failures in a row after which a peer is given up, until it is found again. Default 5, which takes about 15 s if it refuses.
    pub failures: u32,
    /// How long one way to reach a peer may take to connect, if the engine names no other time. Default 5 s.
    pub connect_time: Duration,
    /// Connections that come from one network ([`Network`](multifeed_tokio::Network)). Default 64.
    pub incoming_per_network: usize,
    /// Events that wait for one subscriber; older ones are dropped, which is reported. Default 1,024.
    pub events: usize,
}

impl Default for SwarmLimits {
    fn default() -> Self {
        Self {
            peers: 1024,
            routes: 8,
            dials_at_once: 16,
            dials: 512,
            failures: 5,
            connect_time: Duration::from_secs(5),
            incoming_per_network: 64,
            events: 1024,
        }
    }
}

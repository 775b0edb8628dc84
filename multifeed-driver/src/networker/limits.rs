//! Every bound of a networker, by name.

use std::time::Duration;

/// What peers may make a networker hold or do. What a stream and a store may hold has bounds of its own: [`proto::Limits`](multifeed_proto::Limits),
/// [`core::Limits`](multifeed_core::Limits) and [`PumpOptions`](crate::PumpOptions).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkerLimits {
    /// Connections whose remote has proven that it knows a root key of ours, and those that were dialled. Default 1,024.
    pub connections: usize,
    /// Other connections: their handshake is not done, or their remote has proven nothing. If one more comes, the oldest gives way. Default 128.
    pub handshakes: usize,
    /// How long such a connection keeps its place, however many others come. Default 250 ms.
    pub handshake_time: Duration,
    /// How long a connection stays on which no root key is shared, from the end of Noise's handshake. Default 30 s.
    pub unshared_time: Duration,
    /// Multifeeds that are joined. Default 256.
    pub roots: usize,
    /// How long a root key that the remote closed is left closed, from when it was opened, before the remote can have it opened again. Default 1 s.
    pub reopen_time: Duration,
    /// Connections to one peer, with those that wait until it is decided which one stays. Two at the least; default 4.
    pub per_peer: usize,
    /// How long the second connection to a peer waits for the remote to end one of the two. Then this side does. Default 5 s.
    pub merge_time: Duration,
    /// A root key that was open for so long without an answer when the remote ended the stream is left out of the next connection
    /// to that peer. Default 5 s. JS waits for 10 s.
    pub unanswered_time: Duration,
    /// How long a root key is left out at most. Default 10 minutes.
    pub left_out_time: Duration,
    /// Pairs of peers and root keys that are remembered for this; the oldest are forgotten. Default 4,096.
    pub left_out: usize,
    /// Static keys that are banned. Default 4,096.
    pub banned: usize,
    /// Dials at once. Default 1,024.
    pub dials: usize,
    /// Bytes that are received and not yet handed to a store, on all connections together, beyond
    /// [`PumpOptions::receive_bytes`](crate::PumpOptions::receive_bytes) for each; and as many that wait to be sent, beyond twice
    /// [`PumpOptions::send_bytes`](crate::PumpOptions::send_bytes) for each. Default 64 MiB.
    pub queued_bytes: usize,
    /// Events that wait for one subscriber; later ones are dropped, which is reported. Default 1,024.
    pub events: usize,
    /// Messages of one extension that wait for the application, of all peers together. Default 1,024.
    pub extension_messages: usize,
    /// Bytes of them. One message is always taken. Default 1 MiB.
    pub extension_bytes: usize,
}

impl Default for NetworkerLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            handshakes: 128,
            handshake_time: Duration::from_millis(250),
            unshared_time: Duration::from_secs(30),
            roots: 256,
            reopen_time: Duration::from_secs(1),
            per_peer: 4,
            merge_time: Duration::from_secs(5),
            unanswered_time: Duration::from_secs(5),
            left_out_time: Duration::from_secs(600),
            left_out: 4096,
            banned: 4096,
            dials: 1024,
            queued_bytes: 64 * 1024 * 1024,
            events: 1024,
            extension_messages: 1024,
            extension_bytes: 1024 * 1024,
        }
    }
}

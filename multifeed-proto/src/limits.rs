//! Every bound of a session, by name.

use core::time::Duration;

/// What a remote may make a session hold or do. Passing one ends the session with
/// [`SessionError::Limit`](crate::SessionError::Limit), except if a field says that it pauses reading instead. The defaults leave room for
/// what real JS peers do.
///
/// # Memory
///
/// However hostile the remote, a session holds no more at its doing than the sum of
///
/// - 3 × `message_bytes` for the message that is arriving (its buffer doubles up to the message's length, and is copied when it does),
///   and as much again while one is parsed;
/// - 2 × (`event_bytes` + `message_bytes`) for events not yet polled: one may pass the bound, and a buffer may be twice as
///   large as what was read into it;
/// - 3 × (`reply_bytes` + `output_bytes` + `message_bytes`) for what waits to be sent;
/// - 400 bytes × (`channels` + the keys that we offered and requested), and as much again for those that we opened too;
/// - 96 bytes × `manifest_keys` for the lists that came before the handshake and the one that is read;
/// - 2 × `handshake_bytes`;
/// - 4 × `options_bytes`;
/// - 16 × `manifest_fields_bytes`, since each may be a letter and a digit;
/// - 1 MiB for all the rest.
///
/// What the caller offered and requested, and its commands that wait, come on top: 100 bytes or less for each key. On top come, too:
/// for what came before the handshake of each multifeed after the first, 4 × `options_bytes`, `handshake_bytes`,
/// 2 × `manifest_fields_bytes` and 96 bytes × `manifest_keys`; and for each feed's channel with an extension of the application's,
/// 4 × `options_bytes`. Events that were polled are the caller's. `tests/limits.rs` measures it.
///
/// Until the remote has proven itself, `unproven_message_bytes` stands for `message_bytes` in this sum, and no list or handshake that it
/// sends is longer than `unproven_bytes` in all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest message body in bytes, without the header. JS refuses more than 8,388,608 (simple-message-channels).
    pub message_bytes: usize,
    /// Largest message body in bytes until the remote has [proven](crate::Session::is_proven) that it knows a key of ours, or was
    /// accepted. Anyone can do the Noise handshake. A JS peer sends its Open and Options before that, and its handshake, however large its
    /// user data, only after it. Default 65,536, the largest Options message.
    pub unproven_message_bytes: usize,
    /// Bytes of all messages until then, headers and keep-alives included, if [`Config::root`](crate::Config::root) names a root key, or
    /// the remote was [admitted](crate::Session::admit). Default 256 KiB.
    pub unproven_bytes: u64,
    /// Time that a message may take from its first byte to its last, plus the time that its bytes take at
    /// [`slowest_rate`](Self::slowest_rate). Time in which the session is paused does not count. Default 20 s.
    pub message_time: Duration,
    /// Slowest rate of a message that is arriving, in bytes a second. At 0 a message may take any time. Default 256.
    pub slowest_rate: u64,
    /// Channels that the remote may have open beside one for each feed that we offered or requested: root keys', and those that we did not
    /// open. So a store of any size can be synced. Default 65,536.
    pub channels: usize,
    /// Messages on channels that are not open on both sides, or of unknown types: they are dropped as in JS, but not without
    /// end. Default 1,000,000.
    pub stray_messages: u64,
    /// Proof nodes in one Data message. A feed of 2^53 blocks needs fewer than 110. Default 128.
    pub proof_nodes: usize,
    /// Extension names in one Options message. Default 256.
    pub extensions: usize,
    /// Bytes of an Options message. Default 65,536.
    pub options_bytes: usize,
    /// Bytes of the handshake JSON, user data included. Default 1 MiB.
    pub handshake_bytes: usize,
    /// Keys in one MANIFEST, REQUEST_FEEDS or REPLICATE_FEEDS message, and in all that come before the remote's handshake.
    /// Default 100,000.
    pub manifest_keys: usize,
    /// Bytes of what a MANIFEST says beside its keys, names and values, and of all that comes before the remote's handshake. Default
    /// 256 KiB.
    pub manifest_fields_bytes: usize,
    /// Keys in all MANIFEST messages of a session, for each multifeed. Default 1,000,000.
    pub offers_total: u64,
    /// Feed-list messages that may come before the remote's handshake. Default 64.
    pub early_messages: usize,
    /// Events not yet polled; more input is not parsed, and no more is read, while this many wait. Default 512.
    pub events: usize,
    /// Bytes of events not yet polled, with the pieces of read buffers that they pin; as with [`events`](Self::events), nothing
    /// is parsed or read while more wait. Default 16 MiB, twice the largest message.
    pub event_bytes: usize,
    /// Bytes of commands that [`send_credit`](crate::Session::send_credit) leaves room for. Default 1 MiB.
    pub output_bytes: usize,
    /// Bytes of our own answers to the remote that it has not read; reading pauses above it. Default 16 MiB, which is
    /// twice the largest message, so that two sessions that answer each other's largest lists cannot both pause.
    pub reply_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 8 * 1024 * 1024,
            unproven_message_bytes: 65_536,
            unproven_bytes: 256 * 1024,
            message_time: Duration::from_secs(20),
            slowest_rate: 256,
            channels: 65_536,
            stray_messages: 1_000_000,
            proof_nodes: 128,
            extensions: 256,
            options_bytes: 65_536,
            handshake_bytes: 1024 * 1024,
            manifest_keys: 100_000,
            manifest_fields_bytes: 262_144,
            offers_total: 1_000_000,
            early_messages: 64,
            events: 512,
            event_bytes: 16 * 1024 * 1024,
            output_bytes: 1024 * 1024,
            reply_bytes: 16 * 1024 * 1024,
        }
    }
}

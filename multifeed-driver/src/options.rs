//! How a multifeed is opened.

use std::time::Duration;

use multifeed_core::FileStorageOptions;
use multifeed_proto::{Config, FeedKey, StaticKeyPair};

use crate::budget::Budget;

/// How a multifeed is opened: its root key, and every bound of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// What each session gets at its start: root key, client name, version, static key, timeouts and limits.
    /// `live` and `user_data` are set from what each session's own options say; `stall_timeout` is for those that are not live, and without
    /// one it is [`STALL_TIMEOUT`](multifeed_core::STALL_TIMEOUT).
    pub session: Config,
    /// The bounds of the store and of its syncing, and its [`Durability`](multifeed_core::Durability).
    pub multifeed: multifeed_core::Options,
    /// How a folder is opened: the files that are open at once, and whether links in it are followed.
    pub files: FileStorageOptions,
    /// The buffers between a stream and the store.
    pub pump: PumpOptions,
    /// Calls of the application that may wait for the store's thread; further ones wait to be accepted. Default 256.
    pub calls: usize,
    /// Bytes of commands that a session is handed before it is another session's turn. Default 256 KiB.
    pub quantum_bytes: usize,
}

/// The buffers between one stream and the store. Memory for a session is about the sum of the byte counts; what all sessions of a process
/// have received is bounded by [`receive_budget`](Self::receive_budget), beside `receive_bytes` for each, and what waits to be sent by
/// [`send_budget`](Self::send_budget), beside twice `send_bytes`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PumpOptions {
    /// Most bytes that one read takes from the stream. Default 64 KiB.
    pub read_bytes: usize,
    /// Bytes that the session may have received and not handed to the store, whatever other sessions hold: what messages of up to 64 KiB
    /// need. Default 128 KiB.
    pub receive_bytes: usize,
    /// What it takes of for more. Default: one of 64 MiB that all sessions of the process share.
    pub receive_budget: Budget,
    /// Bytes a second at which a message larger than `receive_bytes` has to come while other sessions wait for their share of the budget,
    /// over five seconds; a session that is slower, or brings nothing for so long, ends with [`SessionError::SlowMessage`](multifeed_proto::SessionError::SlowMessage). While
    /// nobody waits [`Limits::slowest_rate`](multifeed_proto::Limits::slowest_rate) holds. Default 16 KiB.
    pub receive_rate: u64,
    /// Bytes that may wait to be sent on the session, whatever other sessions hold. A block of no more is read from the disk at once, a larger one
    /// when there is room in the [`send_budget`](Self::send_budget). Default 64 KiB.
    pub send_bytes: usize,
    /// What it takes of for more. Default: one of 48 MiB that all sessions of the process share.
    pub send_budget: Budget,
    /// Bytes a second that the remote has to take, over five seconds, if the session holds a share of the budget and others wait for theirs. A
    /// session that takes less ends with [`SessionError::SlowReader`](multifeed_proto::SessionError::SlowReader). Default 16 KiB.
    pub send_rate: u64,
    /// Bytes written in a row before reading has its turn. Default 256 KiB.
    pub write_bytes: usize,
    /// Bytes of commands that the store may have under way to the session: its credit. Default 512 KiB.
    pub credit_bytes: usize,
    /// The least credit of a slow stream, which gets as much as goes out in about a second. Default 32 KiB.
    pub slow_credit_bytes: usize,
    /// Events that may wait for the store; while there are as many, the stream is not read. Default 1,024.
    pub events: usize,
    /// Bytes of blocks in events that wait for the store; as `events`. One block more than that is accepted. Default 2 MiB.
    pub event_bytes: usize,
    /// Events that are kept for a store that is behind while other multifeeds share the stream, beyond [`events`](Self::events). Default
    /// 4,096.
    pub backlog_events: usize,
    /// Bytes of blocks in them. What an honest remote has under way to us, since we asked for it, is less. Default 8 MiB.
    pub backlog_bytes: usize,
    /// How long a store that is further behind holds up the multifeeds that it shares the stream with. Default 5 s.
    pub backlog_time: Duration,
    /// Names of the application's own extensions on the stream, of at most 256 bytes each; JS peers take 256, and multifeed has some of its
    /// own. Default 200.
    pub extensions: usize,
    /// Messages of one such extension that wait for the application; later ones are lost, and counted. Default 1,024.
    pub extension_messages: usize,
    /// Bytes of messages of one such extension that wait for the application, and of all of them that wait to be sent, each with 64 bytes for
    /// itself. One message is always taken. Default 1 MiB.
    pub extension_bytes: usize,
    /// How long an ending session waits for a remote that takes no bytes. Default 5 s.
    pub linger: Duration,
    /// How long a session that ended, and whose last byte was taken, waits for the remote to end its half too. To close the
    /// stream at once could destroy bytes that are still under way. Default 1 s.
    pub farewell: Duration,
}

impl Options {
    /// Returns the default options with this root key, the multifeed's shared secret: any 32 random bytes, as [`generate_root_key`](crate::generate_root_key) makes
    /// them.
    pub fn new(root_key: FeedKey) -> Self {
        Self { session: Config::new(root_key), ..Self::default() }
    }

    /// Returns these options with these bounds of the store.
    pub fn with_limits(mut self, limits: multifeed_core::Limits) -> Self {
        self.multifeed.limits = limits;
        self
    }

    /// Returns these options, sparse or not: whether sessions fetch only the blocks that the application asks for. By default they fetch every block of every
    /// feed.
    pub fn with_sparse(mut self, sparse: bool) -> Self {
        self.multifeed.sparse = sparse;
        self
    }

    /// Returns these options with this static key: who we are in the Noise handshake of each session. By default each session draws one.
    pub fn with_static_key(mut self, static_key: StaticKeyPair) -> Self {
        self.session.static_key = Some(static_key);
        self
    }

    /// Returns these options with this durability: when to fsync.
    pub fn with_durability(mut self, durability: multifeed_core::Durability) -> Self {
        self.multifeed.durability = durability;
        self
    }

    /// Returns these options with a signer: it signs for the feed of its public key, whose secret key the application keeps. Several can be added. Without its
    /// signer such a feed is read and synced, and nothing can be appended to it. A feed is made with one by
    /// [`Multifeed::writer_with_signer`](crate::Multifeed::writer_with_signer).
    pub fn with_signer(mut self, signer: impl multifeed_core::Signer + 'static) -> Self {
        self.multifeed.signers.add(signer);
        self
    }

    /// Returns these options with this policy: what sessions offer and take, if they have no policy of their own.
    pub fn with_policy(mut self, policy: impl multifeed_core::Policy + 'static) -> Self {
        self.multifeed.policy = Some(std::sync::Arc::new(policy));
        self
    }
}

/// Uses multifeed's public default root key, so the set is not private.
impl Default for Options {
    fn default() -> Self {
        Self {
            session: Config::default(),
            multifeed: multifeed_core::Options::default(),
            files: FileStorageOptions::default(),
            pump: PumpOptions::default(),
            calls: 256,
            quantum_bytes: 256 * 1024,
        }
    }
}

impl Default for PumpOptions {
    fn default() -> Self {
        Self {
            read_bytes: 64 * 1024,
            receive_bytes: 128 * 1024,
            receive_budget: Budget::received(),
            receive_rate: 16 * 1024,
            send_bytes: 64 * 1024,
            send_budget: Budget::sent(),
            send_rate: 16 * 1024,
            write_bytes: 256 * 1024,
            credit_bytes: 512 * 1024,
            slow_credit_bytes: 32 * 1024,
            events: 1024,
            event_bytes: 2 * 1024 * 1024,
            backlog_events: 4096,
            backlog_bytes: 8 * 1024 * 1024,
            backlog_time: Duration::from_secs(5),
            extensions: 200,
            extension_messages: 1024,
            extension_bytes: 1024 * 1024,
            linger: Duration::from_secs(5),
            farewell: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_of_options_holds_no_secret() {
        let mut options = Options::new(FeedKey::new([0x5a; 32]));
        options.session.static_key = Some(multifeed_proto::StaticKeyPair::from_secret_key([0xa5; 32]));
        let stream = crate::StreamOptions { session: options.session.clone(), ..crate::StreamOptions::default() };
        let replicate = multifeed_core::Replicate::default();
        let pair = multifeed_core::KeyPair::from_seed(&[0xa5; 32]);
        for printed in
            [format!("{options:?}"), format!("{options:#?}"), format!("{stream:?}"), format!("{replicate:?} {pair:?}")]
        {
            for secret in ["5a5a5a5a", "a5a5a5a5", "90, 90, 90", "165, 165, 165"] {
                assert!(!printed.contains(secret), "{printed}");
            }
        }
    }
}

//! What a session tells its caller, and what it is told.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::SessionError;
use crate::json::Json;
use crate::key::FeedKey;
use crate::wire::message::Message;

/// A channel's name between a session and its caller, chosen by the caller when it opens the channel, and unique among
/// its open channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u32);

/// What happened on a stream, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The Noise handshake is done.
    Connected {
        /// The remote's static key. Anyone can have made one up: compare it where identity matters.
        remote_public_key: [u8; 32],
        /// Noise's handshake hash, equal on both sides of this stream and nowhere else (for channel binding).
        handshake_hash: [u8; 64],
    },
    /// The remote knows the root key, and its handshake was accepted: offers may go.
    Ready(RemoteHandshake),
    /// MULTIFEED_MANIFEST: the remote offers these feeds. Sorted, without duplicates. Answer it with
    /// [`request_feeds`](crate::Session::request_feeds), also when nothing is wanted: a peer waits for it.
    Manifest {
        /// The offered feeds.
        keys: Vec<FeedKey>,
    },
    /// Both sides agreed to replicate these feeds: open their channels. Sorted, without duplicates; it comes also when empty
    /// (JS's `remote-feeds` event is the one of [`Origin::Remote`]).
    Replicate {
        /// The feeds.
        keys: Vec<FeedKey>,
        /// Whose wish it was.
        origin: Origin,
    },
    /// The remote's Open for a channel that we opened is there, and proves that it knows the key.
    Opened {
        /// The channel.
        token: Token,
    },
    /// A message on a channel that both sides opened.
    Message {
        /// The channel.
        token: Token,
        /// The message, its values slices of the buffer that it was read into.
        message: Message,
    },
    /// The remote closed a channel, or never proved that it knows the key. The token is free.
    ChannelClosed {
        /// The channel.
        token: Token,
    },
    /// The root key's channel is closed, by the remote or as an answer to [`close_root`](crate::Session::close_root). Not the end
    /// of a session: feeds and feed lists go on.
    RootClosed,
    /// The remote ended its half of the stream, after whole messages. Not an error in itself; nothing more will come.
    RemoteEnded,
    /// The session is over. Once, and last.
    Closed(Result<(), SessionError>),
}

/// Whose wish a feed's replication is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The remote's: a REQUEST_FEEDS of theirs, cut to what we offered, which we answered.
    Local,
    /// Ours: a REPLICATE_FEEDS of theirs, cut to what we requested.
    Remote,
}

/// The remote's MULTIFEED_HANDSHAKE, which was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteHandshake {
    /// The remote's multifeed protocol version.
    pub version: String,
    /// The remote's client name, equal to ours.
    pub client: String,
    /// What the remote's application sent along.
    pub user_data: Option<Json>,
    /// Whether the remote stays after everything is synced, where it says so (JS does where its option was given).
    pub live: Option<bool>,
}

/// A call on a [`Session`](crate::Session), as a value: for callers that decide in one place and act in another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// [`Session::offer_feeds`](crate::Session::offer_feeds)
    Offer(Vec<FeedKey>),
    /// [`Session::request_feeds`](crate::Session::request_feeds)
    Request(Vec<FeedKey>),
    /// [`Session::open_channel`](crate::Session::open_channel)
    Open {
        /// The channel's name.
        token: Token,
        /// The feed.
        key: FeedKey,
    },
    /// [`Session::send`](crate::Session::send)
    Send {
        /// The channel.
        token: Token,
        /// What to send.
        message: Message,
    },
    /// [`Session::close_channel`](crate::Session::close_channel)
    Close {
        /// The channel.
        token: Token,
    },
    /// [`Session::close_root`](crate::Session::close_root)
    CloseRoot,
    /// [`Session::finish`](crate::Session::finish)
    Finish,
    /// [`Session::abort`](crate::Session::abort)
    Abort(SessionError),
}

impl Command {
    /// About how many bytes it takes in the output; what it counts against [`send_credit`](crate::Session::send_credit).
    pub fn size(&self) -> usize {
        match self {
            Self::Offer(keys) | Self::Request(keys) => 32 + 67 * keys.len(),
            Self::Open { .. } => 80,
            Self::Send { message, .. } => 16 + message.encoded_len(),
            Self::Close { .. } | Self::CloseRoot => 8,
            Self::Finish | Self::Abort(_) => 0,
        }
    }
}

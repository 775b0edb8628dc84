//! The events of a session, and the commands that it takes.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Range, RangeInclusive};

use bytes::Bytes;

use crate::config::RootConfig;
use crate::error::SessionError;
use crate::exchange::ManifestFields;
use crate::ids::{Root, Token};
use crate::json::Json;
use crate::key::{DiscoveryKey, FeedKey, HandshakeHash, PeerKey};
use crate::trace::Scope;
use crate::wire::message::Message;

/// What happened on a stream, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The Noise handshake is done.
    Connected {
        /// The remote's static key. Anyone can have made one up: compare it if identity matters.
        remote_public_key: PeerKey,
        /// Noise's handshake hash, equal on both sides of this stream and nowhere else (for channel binding).
        handshake_hash: HandshakeHash,
    },
    /// The remote knows the root key, and its handshake was accepted: offers may go.
    Ready {
        /// The multifeed.
        root: Root,
        /// What the remote said.
        remote: RemoteHandshake,
    },
    /// MULTIFEED_MANIFEST: the remote offers these feeds. Sorted, without duplicates. Answer it with
    /// [`request_feeds`](crate::Session::request_feeds), also when nothing is wanted: a peer waits for it.
    Manifest {
        /// The multifeed.
        root: Root,
        /// The offered feeds.
        keys: Vec<FeedKey>,
        /// What the remote's application says of them.
        fields: Option<ManifestFields>,
    },
    /// Both sides agreed to replicate these feeds: open their channels. Sorted, without duplicates; it comes also when empty
    /// (JS's `remote-feeds` event is the one of [`Origin::Remote`]).
    Replicate {
        /// The multifeed.
        root: Root,
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
    /// The remote announced blocks on a channel after we had closed it, and before it heard of that.
    LateHave {
        /// The channel's token until then; it may be in use again.
        token: Token,
        /// The blocks. Those that an answer lists as a bitfield are not reported.
        blocks: Range<u64>,
    },
    /// A message on a channel that both sides opened is under way for longer than a second, and more of it arrived: Data, or a Have. At most once
    /// a second, so that one that is whole by then costs nothing.
    Partial {
        /// The channel.
        token: Token,
        /// Whether it is a Data message, and else a Have.
        is_data: bool,
        /// How many bytes of it arrived since the last such event of it, or its start.
        bytes: usize,
    },
    /// The remote closed a channel, or never proved that it knows the key. The token is free.
    ChannelClosed {
        /// The channel.
        token: Token,
    },
    /// A message of an [extension](crate::Session::register_extension) of ours.
    Extension {
        /// The scope in which it came.
        scope: Scope,
        /// The extension's name.
        name: Arc<str>,
        /// The message, a slice of the buffer that it was read into; [`Json::from_bytes`] reads one that is JSON.
        body: Bytes,
    },
    /// The remote opened a channel that we have not opened (if [`Config::discover`](crate::Config::discover) asks for it). Whoever
    /// knows the key may open it as well; [`refuse_channel`](crate::Session::refuse_channel) tells that we will not.
    Discovered {
        /// The channel's.
        discovery_key: DiscoveryKey,
    },
    /// A root key's channel is closed, by the remote or as an answer to [`close_root`](crate::Session::close_root). Not the end
    /// of a session: feeds go on, and so do feed lists with a multifeed 6, whose lists go over channel 0. If there are several
    /// multifeeds, it comes also for one that failed by itself.
    RootClosed {
        /// The multifeed.
        root: Root,
        /// Why, if it failed: the remote lacks this root key (a timeout), or has another version or client.
        error: Option<SessionError>,
    },
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
    /// Whether the remote stays after everything is synced, if it says so (JS does if its option was given).
    pub live: Option<bool>,
    /// The extensions of ours that the remote speaks on the stream too, as far as it said so by then; multifeed's own four are
    /// left out. Each side of ours names those of its [`Config::extensions`](crate::Config::extensions) before its handshake, so that
    /// both know.
    pub extensions: Vec<Arc<str>>,
    /// The same of the root key's own channel, if its lists are sent there: those of [`RootConfig::extensions`].
    pub root_extensions: Vec<Arc<str>>,
}

/// A call on a [`Session`](crate::Session), as a value: for callers that decide in one place and act in another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// [`Session::accept`](crate::Session::accept)
    Accept,
    /// [`Session::admit`](crate::Session::admit)
    Admit,
    /// [`Session::refuse`](crate::Session::refuse)
    Refuse,
    /// [`Session::open_root`](crate::Session::open_root)
    OpenRoot {
        /// The multifeed's name.
        root: Root,
        /// Its key, and what our handshake says.
        config: RootConfig,
    },
    /// [`Session::offer_feeds_with`](crate::Session::offer_feeds_with)
    Offer {
        /// The multifeed.
        root: Root,
        /// The feeds.
        keys: Vec<FeedKey>,
        /// What is said of them.
        fields: Option<ManifestFields>,
    },
    /// [`Session::request_feeds`](crate::Session::request_feeds)
    Request {
        /// The multifeed.
        root: Root,
        /// The feeds.
        keys: Vec<FeedKey>,
    },
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
    /// [`Session::refuse_channel`](crate::Session::refuse_channel)
    RefuseChannel {
        /// The channel's.
        discovery_key: DiscoveryKey,
    },
    /// [`Session::register_extension`](crate::Session::register_extension)
    RegisterExtension {
        /// The scope in which to speak it.
        scope: Scope,
        /// Its name.
        name: String,
    },
    /// [`Session::send_extension`](crate::Session::send_extension)
    SendExtension {
        /// The scope in which it is spoken.
        scope: Scope,
        /// Its name.
        name: Arc<str>,
        /// The message.
        body: Bytes,
    },
    /// [`Session::ping`](crate::Session::ping)
    Ping,
    /// [`Session::close_root`](crate::Session::close_root)
    CloseRoot {
        /// The multifeed.
        root: Root,
    },
    /// [`Session::leave_root`](crate::Session::leave_root)
    LeaveRoot {
        /// The multifeed.
        root: Root,
        /// The names of its feeds' channels.
        feeds: RangeInclusive<Token>,
    },
    /// [`Session::finish`](crate::Session::finish)
    Finish,
    /// [`Session::abort`](crate::Session::abort)
    Abort(SessionError),
}

impl Command {
    /// Returns about how many bytes it takes in the output: what it counts against [`send_credit`](crate::Session::send_credit).
    pub fn size(&self) -> usize {
        match self {
            Self::Offer { keys, fields, .. } => 32 + 67 * keys.len() + fields.as_ref().map_or(0, ManifestFields::len),
            Self::Request { keys, .. } => 32 + 67 * keys.len(),
            Self::Open { .. } => 80,
            Self::OpenRoot { config, .. } => 256 + config.user_data.as_ref().map_or(0, |json| json.as_str().len()),
            Self::Send { message, .. } => 16 + message.encoded_len(),
            Self::RegisterExtension { name, .. } => 16 + name.len(),
            Self::SendExtension { body, .. } => 16 + body.len(),
            Self::RefuseChannel { .. } => 48,
            Self::Close { .. } | Self::CloseRoot { .. } | Self::LeaveRoot { .. } => 8,
            Self::Ping => 1,
            Self::Accept | Self::Admit | Self::Refuse | Self::Finish | Self::Abort(_) => 0,
        }
    }
}

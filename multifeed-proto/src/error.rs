//! Why a session ended, and whose fault it was.

mod misuse;

use alloc::string::{String, ToString};
use core::time::Duration;

use crate::key::{DiscoveryKey, FeedKey, PeerKey};
use crate::machine::Machine;

pub use misuse::ApiMisuse;

/// Why a session ended before its time. Sticky: once a session failed, every call tells the same error.
///
/// [`code`](Self::code) is a stable name for programs (`ERR_VERSION_MISMATCH` and `ERR_CLIENT_MISMATCH` are JS multifeed's own);
/// [`us`](Self::us) and [`them`](Self::them) are both sides' values if two values did not agree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The major numbers of the two sides' multifeed protocol versions differ.
    #[error("protocol versions do not agree: ours is {us}, theirs is {}", .them.as_deref().unwrap_or("missing"))]
    VersionMismatch {
        /// Our version.
        us: String,
        /// The remote's, if its handshake had one (cut to 256 characters).
        them: Option<String>,
    },
    /// The two sides' client names differ.
    #[error("client names do not agree: ours is {us}, theirs is {}", .them.as_deref().unwrap_or("missing"))]
    ClientMismatch {
        /// Our client name.
        us: String,
        /// The remote's, if its handshake had one (cut to 256 characters).
        them: Option<String>,
    },
    /// The remote opened another channel when the root key's was due: it has another root key.
    #[error("root keys do not agree: our discovery key is {us}, theirs is {them}")]
    RootKeyMismatch {
        /// The discovery key of our root key.
        us: DiscoveryKey,
        /// The discovery key of the channel that the remote opened first.
        them: DiscoveryKey,
    },
    /// The caller refused the remote for its static key.
    #[error("the remote was refused: its static key is {remote_public_key}")]
    Refused {
        /// The remote's static key.
        remote_public_key: PeerKey,
    },
    /// The Noise handshake failed.
    #[error("the Noise handshake failed: {0}")]
    Handshake(#[from] HandshakeError),
    /// Something did not come in time.
    #[error("timed out: {}", .0.waited_for())]
    Timeout(Phase),
    /// For too long nothing but keep-alives came and went: something was lost on its way without an error, or the remote does nothing any
    /// more. See [`Config::stall_timeout`](crate::Config::stall_timeout).
    #[error("timed out: nothing but keep-alives came and went for {} ms", .waited.as_millis())]
    Stalled {
        /// How long.
        waited: Duration,
    },
    /// A message came too slowly: see [`Limits::message_time`](crate::Limits::message_time).
    #[error("timed out: {bytes} bytes of a message came in {} ms, too few", .waited.as_millis())]
    SlowMessage {
        /// Bytes of it that came.
        bytes: u64,
        /// How long after its first byte.
        waited: Duration,
    },
    /// The remote took too little of what waits for it, while other sessions waited for that memory.
    #[error("timed out: the remote took {bytes} bytes in {} ms of what waits for it, too few", .waited.as_millis())]
    SlowReader {
        /// Bytes that it took.
        bytes: u64,
        /// In how long.
        waited: Duration,
    },
    /// The remote's bytes are not frames.
    #[error("bad frame: {0}")]
    Frame(#[from] FrameError),
    /// A message of the remote's is malformed, or breaks the protocol.
    #[error("bad message: {0}")]
    Message(#[from] MessageError),
    /// The remote opened a channel that we had opened, without proof that it knows the key.
    #[error("wrong capability for the channel {0}")]
    Capability(DiscoveryKey),
    /// The remote passed a bound of ours.
    #[error("more than {limit} {what}")]
    Limit {
        /// What there was too much of: the name of the field of [`Limits`](crate::Limits), or of another crate's limits.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The writer of a feed signed a length past a bound of ours.
    #[error("feed {feed} is signed for {length} blocks, more than {limit} feed_blocks: no more of it is taken")]
    FeedTooLong {
        /// The feed.
        feed: crate::FeedKey,
        /// The length that is signed, in blocks.
        length: u64,
        /// The bound, in blocks.
        limit: u64,
    },
    /// The writer of a feed signed more bytes than a bound of ours.
    #[error("feed {feed} is signed for {bytes} bytes, more than {limit} feed_bytes: no more of it is taken")]
    FeedTooLarge {
        /// The feed.
        feed: crate::FeedKey,
        /// Bytes up to the end that is signed, or of a block that lies past the bound.
        bytes: u64,
        /// The bound, in bytes.
        limit: u64,
    },
    /// The stream ended in the middle.
    #[error("the remote ended the stream too early: {}", .0.waited_for())]
    Disconnected(Phase),
    /// A multifeed handshake or feed list of the remote's is malformed.
    #[error("bad feed exchange: {0}")]
    Exchange(#[from] ExchangeError),
    /// The remote sent a block or a proof that does not verify, or asked for what cannot be proven.
    #[error("block {index} of feed {feed} does not verify: {reason}")]
    Proof {
        /// The feed.
        feed: FeedKey,
        /// The block's index.
        index: u64,
        /// What did not agree.
        reason: String,
    },
    /// The remote does not open the feed that a session of one feed alone is about: it does not have it, or does not give it away.
    #[error("the remote does not have the feed {feed}")]
    NoFeed {
        /// The feed.
        feed: FeedKey,
    },
    /// A message on a feed's channel says what can't be (a bitfield that does not decode, say).
    #[error("bad message on the channel of feed {feed}: {reason}")]
    Feed {
        /// The feed.
        feed: FeedKey,
        /// What was wrong with it.
        reason: String,
    },
    /// A message of an extension breaks its rules.
    #[error("bad message of the extension {name}: {reason}")]
    Extension {
        /// The extension.
        name: String,
        /// What was wrong with it.
        reason: String,
    },
    /// The socket or stream below failed.
    #[error("the stream failed: {0}")]
    Network(String),
    /// Our own store did not take what came for it for so long, and others share the stream: it was taken off.
    #[error("our store was behind for {} ms, and others share the stream", .waited.as_millis())]
    Behind {
        /// How long it held up the stream.
        waited: Duration,
    },
    /// Our own side failed (a store's error, say), or was closed while the session ran.
    #[error("{0}")]
    Local(String),
    /// Whoever drives the session ended it, as a call was a mistake.
    #[error("a mistake of the caller: {0}")]
    Misuse(#[from] ApiMisuse),
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The remote broke the protocol.
    Remote,
    /// The remote is sound, but not one that we can sync with (another version, client or root key).
    Incompatible,
    /// Our side.
    Local,
    /// The program that calls: see [`ApiMisuse`].
    Caller,
    /// The remote asked for more than a limit of ours allows.
    Limit,
    /// The network: too slow, or cut.
    Network,
}

/// What a session is doing; what was missing when it timed out or was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The Noise handshake is running.
    Noise,
    /// Noise is done; the caller has not said yet whether the remote's static key will do.
    Held,
    /// The root key's channel and multifeed's handshake are under way.
    Exchange,
    /// The session is up.
    Ready,
    /// The session has ended.
    Over,
}

/// What moves a session from one phase to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Noise is done, and the caller has to judge the remote's key.
    NoiseToBeAccepted,
    /// Noise is done, or the caller accepted the remote's key; there is a root key.
    RootsFollow,
    /// The same, and there is none.
    NoRootFollows,
    /// A root key's exchange is ready.
    RootReady,
    /// The session ended, well or not.
    End,
}

impl Machine for Phase {
    type Input = Step;
    const START: Self = Self::Noise;
    const MOVES: &'static [(Self, Step, Self)] = &[
        (Self::Noise, Step::NoiseToBeAccepted, Self::Held),
        (Self::Noise, Step::RootsFollow, Self::Exchange),
        (Self::Noise, Step::NoRootFollows, Self::Ready),
        (Self::Held, Step::RootsFollow, Self::Exchange),
        (Self::Held, Step::NoRootFollows, Self::Ready),
        (Self::Exchange, Step::RootReady, Self::Ready),
        (Self::Noise, Step::End, Self::Over),
        (Self::Held, Step::End, Self::Over),
        (Self::Exchange, Step::End, Self::Over),
        (Self::Ready, Step::End, Self::Over),
    ];
}

/// How a Noise handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The remote speaks as npm multifeed 1 to 5 do: their wires are others, and no handshake of theirs says which.
    #[error("not a multifeed 6 peer; perhaps npm multifeed 5 or older")]
    OldRelease,
    /// A handshake message is longer than Noise's 65,535 bytes: not a peer of ours.
    #[error("a handshake message of more than 65,535 bytes")]
    TooLong,
    /// A handshake message does not decrypt, or is too short.
    #[error("a handshake message does not decrypt")]
    Decrypt,
    /// A key of the remote's gives an all-zero shared secret.
    #[error("a public key of low order")]
    LowOrderKey,
    /// No message carried the stream nonce.
    #[error("no payload with a stream nonce")]
    NoPayload,
    /// The payload is not a protobuf with a 24-byte nonce.
    #[error("the payload with the stream nonce is malformed")]
    BadPayload,
}

/// How bytes fail to be frames (simple-message-channels).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A varint of more than 8 bytes.
    #[error("a varint of more than 8 bytes")]
    Varint,
    /// The length does not cover the header.
    #[error("a length of {0} bytes, less than the header")]
    TooShort(u64),
    /// The body is longer than [`Limits::message_bytes`](crate::Limits::message_bytes).
    #[error("a message of {size} bytes, {limit} are allowed")]
    TooLong {
        /// Bytes of the body, as claimed.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// A channel id of 2^27 or more.
    #[error("a channel id of 2^27 or more")]
    Channel,
}

/// How a message is malformed, or out of place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Not protobuf, or a field of the wrong kind.
    #[error("{0} is not valid protobuf")]
    Protobuf(&'static str),
    /// A required field is missing.
    #[error("{0} lacks its field {1}")]
    Missing(&'static str, &'static str),
    /// A field of fixed size has another one.
    #[error("{0} has a {1} of {2} bytes")]
    Size(&'static str, &'static str, usize),
    /// A number past 2^53 - 1, the largest that JS peers can mean.
    #[error("{0} has a number past 2^53 - 1")]
    Number(&'static str),
    /// An Open for a channel id, or a discovery key, that is open already, or for channel 0.
    #[error("an Open for what is open already, or for channel 0")]
    OpenTwice,
}

/// How a multifeed handshake or feed list is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Not JSON of the expected shape.
    #[error("{0} is not JSON of the expected shape")]
    Json(&'static str),
    /// An entry of a feed list is not a key of 64 hex digits.
    #[error("{0} has an entry that is not a key of 64 hex digits")]
    Key(&'static str),
}

impl SessionError {
    /// Returns whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::VersionMismatch { .. }
            | Self::ClientMismatch { .. }
            | Self::RootKeyMismatch { .. }
            | Self::Handshake(HandshakeError::OldRelease)
            | Self::NoFeed { .. } => Fault::Incompatible,
            Self::Timeout(_)
            | Self::Stalled { .. }
            | Self::SlowMessage { .. }
            | Self::SlowReader { .. }
            | Self::Disconnected(_)
            | Self::Network(_) => Fault::Network,
            Self::Limit { .. } | Self::FeedTooLong { .. } | Self::FeedTooLarge { .. } => Fault::Limit,
            Self::Local(_) | Self::Behind { .. } | Self::Refused { .. } => Fault::Local,
            Self::Misuse(misuse) => misuse.fault(),
            Self::Handshake(_)
            | Self::Frame(_)
            | Self::Message(_)
            | Self::Capability(_)
            | Self::Exchange(_)
            | Self::Feed { .. }
            | Self::Extension { .. }
            | Self::Proof { .. } => Fault::Remote,
        }
    }

    /// Returns a stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::VersionMismatch { .. } => "ERR_VERSION_MISMATCH",
            Self::ClientMismatch { .. } => "ERR_CLIENT_MISMATCH",
            Self::RootKeyMismatch { .. } => "ERR_ROOT_KEY_MISMATCH",
            Self::NoFeed { .. } => "ERR_NO_FEED",
            Self::Refused { .. } => "ERR_REFUSED",
            Self::Handshake(HandshakeError::OldRelease) => "ERR_OLD_RELEASE",
            Self::Handshake(_) => "ERR_HANDSHAKE",
            Self::Timeout(_) | Self::Stalled { .. } | Self::SlowMessage { .. } | Self::SlowReader { .. } => {
                "ERR_TIMEOUT"
            }
            Self::Frame(_) => "ERR_FRAME",
            Self::Message(_) | Self::Feed { .. } | Self::Extension { .. } => "ERR_MESSAGE",
            Self::Capability(_) => "ERR_CAPABILITY",
            Self::Limit { .. } | Self::FeedTooLong { .. } | Self::FeedTooLarge { .. } => "ERR_LIMIT",
            Self::Disconnected(_) => "ERR_DISCONNECTED",
            Self::Exchange(_) => "ERR_FEED_EXCHANGE",
            Self::Proof { .. } => "ERR_PROOF",
            Self::Network(_) => "ERR_NETWORK",
            Self::Behind { .. } => "ERR_BEHIND",
            Self::Local(_) => "ERR_LOCAL",
            Self::Misuse(misuse) => misuse.code(),
        }
    }

    /// Returns our value, if two sides' values did not agree.
    pub fn us(&self) -> Option<String> {
        match self {
            Self::VersionMismatch { us, .. } | Self::ClientMismatch { us, .. } => Some(us.clone()),
            Self::RootKeyMismatch { us, .. } => Some(us.to_string()),
            _ => None,
        }
    }

    /// Returns the remote's value, if two sides' values did not agree and it sent one.
    pub fn them(&self) -> Option<String> {
        match self {
            Self::VersionMismatch { them, .. } | Self::ClientMismatch { them, .. } => them.clone(),
            Self::RootKeyMismatch { them, .. } => Some(them.to_string()),
            _ => None,
        }
    }

    /// A [`SessionError::Limit`], for a bound that was counted as `usize`.
    pub(crate) fn limit(what: &'static str, limit: usize) -> Self {
        Self::Limit { what, limit: u64::try_from(limit).unwrap_or(u64::MAX) }
    }
}

impl Phase {
    fn waited_for(self) -> &'static str {
        match self {
            Self::Noise => "the Noise handshake was not done",
            Self::Held => "the remote's key was not accepted yet",
            Self::Exchange => "the multifeed handshake was not done",
            Self::Ready => "the session was running",
            Self::Over => "the session was over",
        }
    }
}

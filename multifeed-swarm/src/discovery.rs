//! What an engine is: it finds addresses, and brings streams.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use multifeed_tokio::{DiscoveryKey, PeerKey};

/// What peers look for each other by: the discovery key of a root key. It may be shown to anyone; the root key cannot be computed from it.
pub type Topic = DiscoveryKey;

/// Whether to look for the peers of a topic, to be found by them, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// To be found: announce the topic, and dial nobody.
    Server,
    /// To look: announce nothing.
    Client,
    /// Both.
    #[default]
    Both,
}

impl Mode {
    /// Returns whether the topic is announced.
    pub fn is_server(self) -> bool {
        self != Self::Client
    }

    /// Returns whether peers are looked for.
    pub fn is_client(self) -> bool {
        self != Self::Server
    }
}

/// How an engine reaches a peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Route {
    /// By TCP, as `host:port`. The same text means the same peer, whichever engine found it.
    Address(String),
    /// By a key of the engine's own network, such as a DHT's: the engine finds its address.
    Key([u8; 32]),
}

impl Route {
    pub(crate) fn is_address(&self) -> bool {
        matches!(self, Self::Address(_))
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => f.write_str(address),
            Self::Key(key) => f.write_str(&hex::encode(key)),
        }
    }
}

/// A way to reach a peer, found by an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// How to reach it.
    pub route: Route,
    /// The peer's static key, if it is known: several routes to one are one peer. A peer that proves another one is refused.
    pub key: Option<PeerKey>,
    /// The topics that it is said to have.
    pub topics: Vec<Topic>,
    /// The user named it: it is never given up.
    pub kept: bool,
}

/// An engine's stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An engine's stream, of whatever kind.
pub type BoxStream = Box<dyn Stream>;

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send>>;

/// A peer that came.
pub struct Incoming {
    /// Its stream, on which this side is the responder.
    pub stream: BoxStream,
    /// The address it came from, if that is known: how many connections come from one network is bounded.
    pub from: Option<IpAddr>,
    /// How the engine would reach it, if its stream shows that. It is not dialled that way while the stream is open.
    pub route: Option<Route>,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("from", &self.from).finish_non_exhaustive()
    }
}

/// What an engine reports.
#[derive(Debug)]
#[non_exhaustive]
pub enum DiscoveryEvent {
    /// A way to reach a peer was found, or is said to be there still.
    Found(Found),
    /// A way to reach a peer is no longer there, for these topics.
    Lost {
        /// The way.
        route: Route,
        /// The peer's static key, as it was found.
        key: Option<PeerKey>,
        /// The topics.
        topics: Vec<Topic>,
    },
    /// A peer connected.
    Incoming(Incoming),
    /// Something is wrong with the engine. It goes on as far as it can.
    Trouble(String),
}

/// A way in which peers find each other, and connect. The swarm decides whom to dial and when; an engine only finds, and brings streams.
///
/// All calls return at once; what takes time is done by the engine's own tasks, or inside of [`poll_event`](Self::poll_event).
pub trait Discovery: Send + Sync + 'static {
    /// Its name, such as `lan`.
    fn name(&self) -> &'static str;

    /// Looks for the peers of a topic, is found by them, or both. A topic that is joined is joined in the new mode. What is known already is
    /// reported.
    fn join(&self, topic: Topic, mode: Mode);

    /// Undoes [`join`](Self::join). Nothing needs to be reported as lost.
    fn leave(&self, topic: &Topic);

    /// The next thing that happened. Polled by one task.
    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<DiscoveryEvent>;

    /// Connects to what it found. Dropping this gives up.
    fn connect(&self, route: &Route) -> Connecting;

    /// How long one attempt to connect may take, if [`SwarmLimits::connect_time`](crate::SwarmLimits::connect_time) is too short for its network.
    fn connect_time(&self) -> Option<Duration> {
        None
    }

    /// What it found could not be reached: it may look whether that is there still.
    fn doubt(&self, route: &Route) {
        let _ = route;
    }

    /// Ends all that it does, and is ready when nothing is left: no thread, task or socket. Begun by the first call. One that is dropped does the
    /// same, without waiting.
    fn poll_close(&self, cx: &mut Context<'_>) -> Poll<()>;
}

//! The network of hyperswarm 4: a DHT to find each other, and encrypted streams over UDP.

mod accept;
mod links;
mod node;
mod pipe;
pub(crate) mod testnet;
mod topics;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::node::{Command, Node};
use crate::discovery::{BoxStream, Connecting, Discovery, DiscoveryEvent, Mode, Route, Topic};
use crate::lock;

/// A public key of the DHT's network, of Ed25519.
type Key = [u8; 32];

/// Events that wait for the swarm. More are dropped: what was found is found again.
const EVENTS: usize = 1024;

/// How long a dial may take: a node that relays has 10 s to answer, and hole punching takes seconds.
const CONNECT_TIME: Duration = Duration::from_secs(15);

/// The bootstrap nodes of the public network, which hyperswarm and Cabal use: `IP@host:port`.
pub const PUBLIC_BOOTSTRAP: [&str; 3] = peeroxide_dht::hyperdht::DEFAULT_BOOTSTRAP;

/// How [`Hyperswarm`] finds the DHT.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HyperswarmOptions {
    /// Nodes to begin with, as `host:port`; one that answers is enough, at any time. Default [`PUBLIC_BOOTSTRAP`].
    pub bootstrap: Vec<String>,
    /// Binds its sockets to 127.0.0.1: for tests. Default `false`.
    pub loopback_only: bool,
    /// Bytes that a peer may have sent and the application not taken; one that sends more is disconnected. Nothing below holds a peer back.
    /// Default 16 MiB.
    pub unread_bytes: usize,
}

impl Default for HyperswarmOptions {
    fn default() -> Self {
        let bootstrap = PUBLIC_BOOTSTRAP.iter().map(|&node| node.to_owned()).collect();
        Self { bootstrap, loopback_only: false, unread_bytes: 16 * 1024 * 1024 }
    }
}

/// Why the engine cannot start, or a connection ended; in the second case it is inside of the stream's [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HyperswarmError {
    /// There is no bootstrap node.
    #[error("no bootstrap node is given: name one as host:port")]
    NoBootstrap,
    /// A bootstrap node is not `host:port`.
    #[error("`{0}` is no bootstrap node: name it as host:port, with an IPv4 address or a name")]
    Bootstrap(String),
    /// No socket, thread or runtime could be made.
    #[error("the DHT cannot be started: {0}")]
    Start(String),
    /// A peer sent faster than it was read ([`HyperswarmOptions::unread_bytes`]).
    #[error("the peer sent more than {bytes} bytes that were not taken yet")]
    Unread {
        /// The limit.
        bytes: usize,
    },
    /// A peer did not acknowledge what it was sent.
    #[error("the peer acknowledged nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// A dial is not needed: the peer has a connection already.
    #[error("the peer is connected already")]
    Connected,
    /// As many connections are open as may be.
    #[error("{0} connections are open, and no more are made")]
    Full(usize),
    /// The engine was closed.
    #[error("the DHT was left")]
    Closed,
}

/// The engine `hyperswarm`: announces topics in a DHT, and looks there for others'.
///
/// Nodes of the DHT, and anyone who asks them, see the topics, this machine's address and a public key that is drawn when the engine starts. No root
/// key is shown, and streams are encrypted. It has a thread of its own, which ends with it.
///
/// IPv4 only. Behind a NAT it can dial like JS does; it is reached itself if the NAT maps its port for all alike.
pub struct Hyperswarm {
    key: [u8; 32],
    commands: Mutex<Option<mpsc::UnboundedSender<Command>>>,
    events: Mutex<mpsc::Receiver<DiscoveryEvent>>,
    over: Mutex<oneshot::Receiver<()>>,
}

impl Hyperswarm {
    /// Starts a node of the DHT. Nothing is announced before a topic is joined. If no bootstrap node answers, that is reported as
    /// [`SwarmEvent::Trouble`](crate::SwarmEvent::Trouble), and tried again.
    ///
    /// # Errors
    /// [`HyperswarmError`].
    pub async fn start(options: HyperswarmOptions) -> Result<Self, HyperswarmError> {
        if options.bootstrap.is_empty() {
            return Err(HyperswarmError::NoBootstrap);
        }
        for node in &options.bootstrap {
            split(node).ok_or_else(|| HyperswarmError::Bootstrap(node.clone()))?;
        }
        let (commands, orders) = mpsc::unbounded_channel();
        let (reports, events) = mpsc::channel(EVENTS);
        let (is_over, over) = oneshot::channel();
        let (has_started, started) = oneshot::channel();
        // A runtime of its own: the libraries below start tasks that nobody can end otherwise.
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(has_started.send(Err(HyperswarmError::Start(error.to_string())))),
            };
            runtime.block_on(async {
                match Node::start(options, orders, reports).await {
                    Ok(node) => {
                        if has_started.send(Ok(node.key())).is_ok() {
                            node.run().await;
                        }
                    }
                    Err(error) => drop(has_started.send(Err(error))),
                }
            });
            // With it all tasks and sockets. Names that are being resolved are not waited for.
            runtime.shutdown_background();
            drop(is_over);
        };
        let thread = std::thread::Builder::new().name("multifeed-dht".to_owned()).spawn(run);
        thread.map_err(|error| HyperswarmError::Start(error.to_string()))?;
        let key = started.await.map_err(|_| HyperswarmError::Start("its thread ended".to_owned()))??;
        Ok(Self { key, commands: Mutex::new(Some(commands)), events: Mutex::new(events), over: Mutex::new(over) })
    }

    /// Returns the public key by which peers reach this node.
    pub fn public_key(&self) -> [u8; 32] {
        self.key
    }

    /// Waits until each topic that is joined was announced and looked up, and each that was left is withdrawn. From then on peers that look find this
    /// one. It takes as long as no bootstrap node answers. As JS's `flushed`.
    ///
    /// # Errors
    /// [`HyperswarmError::Closed`].
    pub async fn settled(&self) -> Result<(), HyperswarmError> {
        let (reply, settled) = oneshot::channel();
        self.order(Command::Settle(reply));
        settled.await.map_err(|_| HyperswarmError::Closed)
    }

    fn order(&self, command: Command) {
        if let Some(commands) = &*lock(&self.commands) {
            // It fails if the thread has ended, and then there is nothing to do.
            let _ = commands.send(command);
        }
    }
}

impl Discovery for Hyperswarm {
    fn name(&self) -> &'static str {
        "hyperswarm"
    }

    fn join(&self, topic: Topic, mode: Mode) {
        self.order(Command::Join(topic, mode));
    }

    fn leave(&self, topic: &Topic) {
        self.order(Command::Leave(*topic));
    }

    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<DiscoveryEvent> {
        match lock(&self.events).poll_recv(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            // It ended by itself: that is a bug, here or in a library, and said once.
            Poll::Ready(None) if lock(&self.commands).take().is_some() => {
                Poll::Ready(DiscoveryEvent::Trouble("the DHT's thread ended; start the engine again".to_owned()))
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn connect(&self, route: &Route) -> Connecting {
        let Route::Key(key) = *route else {
            return Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())));
        };
        let (reply, connected) = oneshot::channel::<io::Result<BoxStream>>();
        self.order(Command::Dial { key, reply });
        Box::pin(async move {
            let closed = |_| io::Error::new(io::ErrorKind::NotConnected, HyperswarmError::Closed);
            connected.await.map_err(closed)?
        })
    }

    fn connect_time(&self) -> Option<Duration> {
        Some(CONNECT_TIME)
    }

    fn poll_close(&self, cx: &mut Context<'_>) -> Poll<()> {
        lock(&self.commands).take();
        let over = &mut *lock(&self.over);
        if over.is_terminated() {
            return Poll::Ready(());
        }
        std::pin::Pin::new(over).poll(cx).map(drop)
    }
}

impl fmt::Debug for Hyperswarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hyperswarm").field("public_key", &hex::encode(self.key)).finish_non_exhaustive()
    }
}

/// The address, or name, and port of a bootstrap node. Hyperswarm's DHT has no IPv6.
fn split(node: &str) -> Option<(&str, u16)> {
    let (host, port) = node.rsplit_once(':')?;
    // JS writes the address before the name: `88.99.3.86@node1.hyperdht.org`.
    let host = host.split_once('@').map_or(host, |(address, _)| address);
    Some((host, port.parse().ok().filter(|port| *port > 0)?))
        .filter(|(host, _)| !host.is_empty() && !host.contains(':'))
}

/// Looks up the addresses of a bootstrap node.
async fn resolve(node: &str) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = split(node).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_that_names_no_node_is_refused() {
        let start = |bootstrap: &[&str]| {
            let bootstrap = bootstrap.iter().map(|&node| node.to_owned()).collect();
            Hyperswarm::start(HyperswarmOptions { bootstrap, ..HyperswarmOptions::default() })
        };
        assert_eq!(start(&[]).await.err(), Some(HyperswarmError::NoBootstrap));
        for wrong in [
            "example.org",
            "example.org:",
            "example.org:0",
            ":7",
            "example.org:70000",
            "[::1]:7",
            "[::ffff:127.0.0.1]:7",
        ] {
            let error = start(&["127.0.0.1:7", wrong]).await.err();
            assert_eq!(error, Some(HyperswarmError::Bootstrap(wrong.to_owned())));
        }
        assert_eq!(split("88.99.3.86@node1.hyperdht.org:49737"), Some(("88.99.3.86", 49737)));
    }
}

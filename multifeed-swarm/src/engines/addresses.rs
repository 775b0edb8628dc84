//! A given list of addresses, and a listener.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use tokio::net::TcpListener;

use crate::discovery::{Connecting, Discovery, DiscoveryEvent, Found, Mode, Route, Topic};
use crate::engines::door::Door;
use crate::lock;
use crate::tcp;

/// The addresses that [`Addresses`] dials, and the one it listens on.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AddressesOptions {
    /// Peers, each as `host:port`. They are dialled for every topic, and never given up; the networker says when a dial is repeated.
    pub peers: Vec<String>,
    /// Where to listen, as `host:port`, if at all. Port 0 takes a free one. `[::]:port` takes IPv4 too, even if the system keeps the two apart or has
    /// no IPv6.
    pub listen: Option<String>,
}

/// The engine `addresses`: for servers and tests, and for peers that no other engine finds. It shows nothing to anybody but those that are dialled,
/// or come.
#[derive(Debug)]
pub struct Addresses {
    peers: Vec<String>,
    address: Option<SocketAddr>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    door: Option<Door>,
    topics: BTreeSet<Topic>,
    found: VecDeque<Found>,
    waker: Option<Waker>,
}

impl Addresses {
    /// Makes the engine, and listens if that is asked for.
    ///
    /// # Errors
    /// It cannot listen there.
    pub async fn start(options: AddressesOptions) -> io::Result<Self> {
        let listener = match &options.listen {
            Some(address) => Some(match address.strip_prefix("[::]:").and_then(|port| port.parse().ok()) {
                Some(port) => tcp::listen_everywhere(port)?,
                None => TcpListener::bind(address).await?,
            }),
            None => None,
        };
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let state =
            State { door: listener.map(Door::new), topics: BTreeSet::new(), found: VecDeque::new(), waker: None };
        Ok(Self { peers: options.peers, address, state: Mutex::new(state) })
    }

    /// Returns the address it listens on.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Discovery for Addresses {
    fn name(&self) -> &'static str {
        "addresses"
    }

    fn join(&self, topic: Topic, _: Mode) {
        let waker = {
            let mut state = lock(&self.state);
            state.topics.insert(topic);
            let topics: Vec<Topic> = state.topics.iter().copied().collect();
            // One report names all topics, so that they take no room for each.
            state.found = self
                .peers
                .iter()
                .map(|peer| Found {
                    route: Route::Address(peer.clone()),
                    key: None,
                    topics: topics.clone(),
                    kept: true,
                })
                .collect();
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    fn leave(&self, topic: &Topic) {
        let mut state = lock(&self.state);
        state.topics.remove(topic);
    }

    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<DiscoveryEvent> {
        let mut state = lock(&self.state);
        if let Some(found) = state.found.pop_front() {
            return Poll::Ready(DiscoveryEvent::Found(found));
        }
        state.waker = Some(cx.waker().clone());
        state.door.as_mut().map_or(Poll::Pending, |door| door.poll(cx))
    }

    fn connect(&self, route: &Route) -> Connecting {
        tcp::connect(route)
    }

    fn poll_close(&self, _: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        (state.door, state.found) = (None, VecDeque::new());
        Poll::Ready(())
    }
}

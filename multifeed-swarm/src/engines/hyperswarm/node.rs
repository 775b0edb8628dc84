//! The node: it owns all that the engine has, in one task of a runtime of its own.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libudx::{UdxAsyncStream, UdxRuntime, UdxSocket};
use peeroxide_dht::crypto::hash;
use peeroxide_dht::hyperdht::{
    self, ConnectOpts, HyperDhtConfig, HyperDhtHandle, KeyPair, PeerConnection, ServerEvent,
};
use peeroxide_dht::messages::Ipv4Peer;
use peeroxide_dht::secret_stream::SecretStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::accept::{self, Came};
use super::links::Links;
use super::pipe;
use super::topics::{Changes, Topics, Work};
use super::{HyperswarmError, HyperswarmOptions, Key};
use crate::discovery::{BoxStream, DiscoveryEvent, Found, Incoming, Mode, Route, Topic};

/// How often it looks whether the nodes that relay to us are there, and keeps the way to them open in a NAT.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// How often it looks whether this machine has other addresses than before.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often our own key is announced. Nodes forget it after 20 minutes.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(600);

/// How long to wait after our own key could not be announced.
const RETRY: Duration = Duration::from_secs(5);

/// The waits between tries to reach a bootstrap node: the first, and the longest.
const BOOTSTRAP_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long bootstrap nodes, or relays, have for an answer.
const PING_TIME: Duration = Duration::from_secs(3);

/// Peers that were answered and have not sent anything. One more takes the place of the oldest.
const ANSWERED: usize = 64;

/// Handshakes that wait to be answered. More are refused.
const HANDSHAKES: usize = 256;

/// Connections in all.
const CONNECTIONS: usize = 1024;

/// How long closing may take.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// What the engine's handle asks for. It is closed by dropping the sender.
pub(super) enum Command {
    Join(Topic, Mode),
    Leave(Topic),
    Dial { key: Key, reply: oneshot::Sender<io::Result<BoxStream>> },
    Settle(oneshot::Sender<()>),
}

/// What a job came to.
enum Done {
    IsOnline,
    /// Our own key was announced, or not; through other relays than before.
    Announced {
        done: bool,
        moved: bool,
    },
    Round {
        topic: Topic,
        done: bool,
        found: Option<Vec<(Key, Vec<Ipv4Peer>)>>,
    },
    Withdrawn(Topic),
    Unannounced,
    Checked {
        nodes: usize,
        relays: usize,
        alive: usize,
    },
    Dialled {
        key: Key,
        reply: oneshot::Sender<io::Result<BoxStream>>,
        dialled: io::Result<PeerConnection>,
    },
    Came {
        key: Key,
        came: Option<Came>,
    },
    Over {
        key: Key,
        id: u64,
    },
    Nothing,
}

/// How far it is with the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// No node is known; a job looks for one.
    Offline,
    /// Nodes are known. Our own key is announced from then on, if a topic is.
    Online { announce: Duration },
    /// A job announces our own key.
    Announcing,
    /// Others can reach us, until then.
    Reachable { announce: Duration },
}

pub(super) struct Node {
    options: HyperswarmOptions,
    udx: UdxRuntime,
    dht: HyperDhtHandle,
    requests: mpsc::UnboundedReceiver<ServerEvent>,
    socket: UdxSocket,
    key_pair: KeyPair,
    start: Instant,
    topics: Topics,
    links: Links,
    presence: Presence,
    /// When to look after the relays again; none while a job does.
    check: Option<Duration>,
    /// The addresses of this machine, and when to look at them again.
    own_addresses: (BTreeSet<IpAddr>, Duration),
    jobs: JoinSet<Done>,
    answered: VecDeque<AbortHandle>,
    /// Who waits until all is announced and looked up.
    settling: Vec<oneshot::Sender<()>>,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::Sender<DiscoveryEvent>,
}

impl Node {
    /// Binds the sockets. Nothing is sent but to bootstrap nodes.
    pub(super) async fn start(
        options: HyperswarmOptions,
        commands: mpsc::UnboundedReceiver<Command>,
        events: mpsc::Sender<DiscoveryEvent>,
    ) -> Result<Self, HyperswarmError> {
        let failed = |error: &dyn std::fmt::Display| HyperswarmError::Start(error.to_string());
        let udx = UdxRuntime::new().map_err(|error| failed(&error))?;
        let mut config = HyperDhtConfig::default();
        config.dht.bootstrap.clone_from(&options.bootstrap);
        // Never a node that others route by, whatever the list says.
        config.dht.ephemeral = Some(true);
        if options.loopback_only {
            config.dht.host = Ipv4Addr::LOCALHOST.to_string();
        }
        let (_, dht, requests) = hyperdht::spawn(&udx, config).await.map_err(|error| failed(&error))?;
        let socket = dht.server_socket().await.map_err(|error| failed(&error))?;
        let socket = socket.ok_or_else(|| failed(&"no socket"))?;
        let key_pair = KeyPair::generate();
        dht.register_server(&hash(&key_pair.public_key));
        let mut node = Self {
            options,
            udx,
            dht,
            requests,
            socket,
            start: Instant::now(),
            topics: Topics::default(),
            links: Links::new(key_pair.public_key),
            key_pair,
            presence: Presence::Offline,
            check: None,
            own_addresses: (own_addresses(), LOOK_EVERY),
            jobs: JoinSet::new(),
            answered: VecDeque::new(),
            settling: Vec::new(),
            commands,
            events,
        };
        node.get_online();
        Ok(node)
    }

    pub(super) fn key(&self) -> Key {
        self.key_pair.public_key
    }

    /// Until the handle is closed.
    pub(super) async fn run(mut self) {
        loop {
            let due = self.work();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
                Some(request) = self.requests.recv() => self.take_request(request).await,
                Some(done) = self.jobs.join_next() => self.take_done(done.unwrap_or(Done::Nothing)),
                () = sleep(due) => {}
            }
        }
        // It may be that nobody answers any more.
        let _ = timeout(CLOSE_TIME, self.end()).await;
        let _ = self.dht.destroy().await;
    }

    /// Withdraws what is announced, and says goodbye to all.
    async fn end(&mut self) {
        self.dht.unregister_server(&hash(&self.key_pair.public_key));
        self.topics.leave_all();
        self.links.cut_all();
        if matches!(self.presence, Presence::Announcing | Presence::Reachable { .. }) {
            let (dht, key_pair) = (self.dht.clone(), self.key_pair.clone());
            self.jobs.spawn(async move {
                let _ = dht.unannounce(hash(&key_pair.public_key), &key_pair).await;
                Done::Unannounced
            });
            self.presence = Presence::Announcing;
        } else {
            self.presence = Presence::Offline;
        }
        loop {
            self.withdraw_and_look();
            if self.topics.is_empty() && self.links.len() == 0 && self.presence == Presence::Offline {
                return;
            }
            let Some(done) = self.jobs.join_next().await else { return };
            match done.unwrap_or(Done::Nothing) {
                Done::Unannounced => self.presence = Presence::Offline,
                Done::Round { topic, .. } => _ = self.topics.round_over(topic, true, None, self.now()),
                Done::Withdrawn(topic) => self.topics.withdrawn(&topic),
                Done::Over { key, id } => _ = self.links.ended(&key, id),
                _ => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn tell(&self, event: DiscoveryEvent) {
        // What finds no room is found again.
        if self.events.try_send(event).is_err() {
            tracing::debug!("an event of the DHT found no room");
        }
    }

    /// Begins what is due. How long until something else is.
    fn work(&mut self) -> Duration {
        let now = self.now();
        let mut due = Vec::new();
        if !self.options.loopback_only {
            if self.own_addresses.1 <= now {
                self.look_at_addresses(now);
            }
            due.push(self.own_addresses.1);
        }
        match self.presence {
            Presence::Online { announce } | Presence::Reachable { announce } if self.topics.serves() => {
                if announce <= now {
                    self.announce_key();
                } else {
                    due.push(announce);
                }
            }
            _ => {}
        }
        let is_ready = match self.presence {
            Presence::Offline => false,
            Presence::Online { .. } | Presence::Announcing => !self.topics.serves(),
            Presence::Reachable { .. } => true,
        };
        if is_ready {
            self.withdraw_and_look();
            due.extend(self.topics.due());
        }
        if !self.settling.is_empty() && self.topics.is_settled() {
            self.settling.drain(..).for_each(|settled| _ = settled.send(()));
        }
        match self.check {
            Some(check) if check <= now => self.look_after_relays(),
            check => due.extend(check),
        }
        due.into_iter().min().map_or(CHECK_EVERY, |due| due.saturating_sub(now))
    }

    /// Nodes relay to the address that they know: if it is another one now, it is announced at once, and peers are looked up anew.
    fn look_at_addresses(&mut self, now: Duration) {
        let addresses = own_addresses();
        let are_others = !addresses.is_empty() && addresses != self.own_addresses.0;
        if are_others {
            tracing::debug!("this machine has other addresses than before");
            if let Presence::Online { announce } | Presence::Reachable { announce } = &mut self.presence {
                *announce = now;
            }
            self.topics.hurry(now);
            self.own_addresses.0 = addresses;
        }
        self.own_addresses.1 = now + LOOK_EVERY;
    }

    fn withdraw_and_look(&mut self) {
        for work in self.topics.poll(self.now()) {
            let (dht, key_pair) = (self.dht.clone(), self.key_pair.clone());
            match work {
                Work::Withdraw(topic) => self.jobs.spawn(async move {
                    if let Err(error) = dht.unannounce(*topic.as_bytes(), &key_pair).await {
                        tracing::debug!("a topic is not withdrawn: {error}");
                    }
                    Done::Withdrawn(topic)
                }),
                Work::Round { topic, announce, lookup } => self.jobs.spawn(async move {
                    let relays = dht.current_relay_addresses();
                    let announced = async {
                        match dht.announce(*topic.as_bytes(), &key_pair, &relays).await {
                            Ok(announced) => !announced.closest_nodes.is_empty(),
                            Err(_) => false,
                        }
                    };
                    // Of two that come at once, the one that looks last finds the other.
                    let mut done = !announce || announced.await;
                    let mut found = None;
                    if lookup {
                        match dht.lookup(*topic.as_bytes()).await {
                            Ok(answers) => {
                                let peers = answers.into_iter().flat_map(|answer| answer.peers);
                                found = Some(peers.map(|peer| (peer.public_key, peer.relay_addresses)).collect());
                            }
                            Err(_) => done = false,
                        }
                    }
                    Done::Round { topic, done, found }
                }),
            };
        }
    }

    fn announce_key(&mut self) {
        self.presence = Presence::Announcing;
        let (dht, key_pair) = (self.dht.clone(), self.key_pair.clone());
        self.jobs.spawn(async move {
            let before = dht.current_relay_addresses();
            let announced = dht.announce(hash(&key_pair.public_key), &key_pair, &[]).await;
            let done = announced.is_ok_and(|announced| !announced.closest_nodes.is_empty());
            Done::Announced { done, moved: dht.current_relay_addresses() != before }
        });
    }

    /// Looks for a node of the DHT until there is one: by the library once, and by this job as often as it takes.
    fn get_online(&mut self) {
        (self.presence, self.check) = (Presence::Offline, None);
        let (dht, hosts, events) = (self.dht.clone(), self.options.bootstrap.clone(), self.events.clone());
        self.jobs.spawn(async move {
            let mut wait = BOOTSTRAP_WAITS.0;
            let mut is_told = false;
            loop {
                let mut pings = JoinSet::new();
                for host in hosts.clone() {
                    let dht = dht.clone();
                    pings.spawn(async move { ping_host(&dht, &host).await });
                }
                let first = async { while let Some(Ok(false)) = pings.join_next().await {} };
                let _ = timeout(PING_TIME, first).await;
                if dht.table_size().await.unwrap_or(0) > 0 {
                    // It knows others.
                    let _ = dht.dht().find_node(rand::random()).await;
                    return Done::IsOnline;
                }
                if !std::mem::replace(&mut is_told, true) {
                    let message = format!("no bootstrap node answers, and it tries again: {}", hosts.join(", "));
                    let _ = events.try_send(DiscoveryEvent::Trouble(message));
                }
                sleep(wait).await;
                wait = (wait * 2).min(BOOTSTRAP_WAITS.1);
            }
        });
    }

    fn look_after_relays(&mut self) {
        self.check = None;
        let dht = self.dht.clone();
        let relays = if self.topics.serves() { dht.current_relay_addresses() } else { Vec::new() };
        self.jobs.spawn(async move {
            let mut pings = JoinSet::new();
            let count = relays.len();
            for relay in relays {
                let dht = dht.clone();
                pings.spawn(async move { timeout(PING_TIME, dht.dht().ping(&relay.host, relay.port)).await });
            }
            let mut alive = 0;
            while let Some(answer) = pings.join_next().await {
                alive += usize::from(matches!(answer, Ok(Ok(Ok(_)))));
            }
            Done::Checked { nodes: dht.table_size().await.unwrap_or(0), relays: count, alive }
        });
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Join(topic, mode) => self.topics.join(topic, mode, self.now()),
            Command::Leave(topic) => self.topics.leave(&topic),
            Command::Dial { key, reply } => self.dial(key, reply),
            Command::Settle(reply) => self.settling.push(reply),
        }
    }

    fn dial(&mut self, key: Key, mut reply: oneshot::Sender<io::Result<BoxStream>>) {
        let refused = if self.links.is_open(&key) {
            Some(io::Error::new(io::ErrorKind::AlreadyExists, HyperswarmError::Connected))
        } else if self.links.len() >= CONNECTIONS {
            Some(io::Error::new(io::ErrorKind::QuotaExceeded, HyperswarmError::Full(CONNECTIONS)))
        } else {
            None
        };
        if let Some(error) = refused {
            let _ = reply.send(Err(error));
            return;
        }
        let dial = self.links.dials(key, self.now());
        let relays = self.topics.relays(&key);
        let (dht, key_pair, udx) = (self.dht.clone(), self.key_pair.clone(), self.udx.handle());
        self.jobs.spawn(async move {
            let udx = UdxRuntime::shared(udx);
            let dialling = dht.connect_with_options(&key_pair, key, &relays, &udx, ConnectOpts::default());
            let dialled = tokio::select! {
                dialled = dialling => {
                    dialled.map_err(|error| io::Error::new(io::ErrorKind::HostUnreachable, error.to_string()))
                }
                // The swarm gave up.
                () = reply.closed() => return Done::Nothing,
            };
            drop(dial);
            Done::Dialled { key, reply, dialled }
        });
    }

    async fn take_request(&mut self, request: ServerEvent) {
        let ServerEvent::PeerHandshake { msg, peer_address, reply_tx, .. } = request else { return };
        // One that is dropped is refused.
        if self.requests.len() > HANDSHAKES || self.links.len() >= CONNECTIONS || !self.topics.serves() {
            return;
        }
        let addresses = self.addresses().await;
        let (links, now) = (&self.links, self.now());
        let admits = |key: &Key| links.admits(key, false, now);
        let answering = accept::answer(&msg, peer_address, &self.key_pair, addresses, &self.udx, &self.socket, admits);
        let Some((reply, answered)) = answering.await else { return };
        if reply_tx.send(Some(reply)).is_err() {
            return;
        }
        self.answered.retain(|one| !one.is_finished());
        if self.answered.len() >= ANSWERED
            && let Some(oldest) = self.answered.pop_front()
        {
            oldest.abort();
        }
        let job = async move { Done::Came { key: answered.key(), came: answered.open().await } };
        self.answered.push_back(self.jobs.spawn(job));
    }

    /// Returns the addresses that we announce.
    async fn addresses(&self) -> Vec<Ipv4Peer> {
        if self.options.loopback_only {
            return Vec::new();
        }
        match self.socket.local_addr().await {
            Ok(address) => self.dht.noise_addresses4(address.port()).await,
            Err(_) => Vec::new(),
        }
    }

    fn take_done(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::IsOnline => {
                (self.presence, self.check) = (Presence::Online { announce: now }, Some(now + CHECK_EVERY));
                self.topics.hurry(now);
            }
            Done::Announced { done: true, moved } => {
                self.presence = Presence::Reachable { announce: now + ANNOUNCE_EVERY };
                // The relays stand in each announcement.
                if moved {
                    self.topics.hurry(now);
                }
            }
            Done::Announced { done: false, .. } => self.presence = Presence::Online { announce: now + RETRY },
            Done::Checked { nodes: 0, .. } => self.get_online(),
            Done::Checked { relays, alive, .. } => {
                self.check = Some(now + CHECK_EVERY);
                if relays > 0
                    && alive * 2 < relays
                    && let Presence::Reachable { announce } = &mut self.presence
                {
                    *announce = now;
                }
            }
            Done::Round { topic, done, found } => {
                let Changes { found, lost } = self.topics.round_over(topic, done, found, now);
                found.iter().for_each(|key| self.tell_found(key, vec![topic]));
                for key in lost {
                    self.tell(DiscoveryEvent::Lost { route: Route::Key(key), key: None, topics: vec![topic] });
                }
            }
            Done::Withdrawn(topic) => self.topics.withdrawn(&topic),
            Done::Dialled { key, reply, dialled } => {
                let linked = dialled.and_then(|connection| {
                    if !self.links.admits(&key, true, now) {
                        return Err(io::Error::new(io::ErrorKind::AlreadyExists, HyperswarmError::Connected));
                    }
                    Ok(self.link(key, connection.stream, connection.socket))
                });
                let _ = reply.send(linked);
            }
            Done::Came { key, came: Some(Came { stream, socket, from }) } => {
                if self.links.admits(&key, false, now) {
                    let stream = self.link(key, stream, socket);
                    self.tell(DiscoveryEvent::Incoming(Incoming {
                        stream,
                        from: Some(from),
                        route: Some(Route::Key(key)),
                    }));
                }
            }
            Done::Over { key, id } => {
                if self.links.ended(&key, id) {
                    self.topics.look_again(&key, now);
                }
            }
            Done::Came { came: None, .. } | Done::Unannounced | Done::Nothing => {}
        }
    }

    fn tell_found(&self, key: &Key, topics: Vec<Topic>) {
        if *key != self.key() {
            self.tell(DiscoveryEvent::Found(Found { route: Route::Key(*key), key: None, topics, kept: false }));
        }
    }

    fn link(&mut self, key: Key, stream: SecretStream<UdxAsyncStream>, socket: UdxSocket) -> BoxStream {
        let (stream, control, driving) = pipe::open(stream, self.options.unread_bytes);
        let id = self.links.add(key, control);
        self.jobs.spawn(async move {
            driving.await;
            drop(socket);
            Done::Over { key, id }
        });
        Box::new(stream)
    }
}

/// The addresses of this machine, without those for itself alone.
fn own_addresses() -> BTreeSet<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.into_iter().filter(|interface| !interface.is_loopback()).map(|interface| interface.ip()).collect()
}

/// Asks a bootstrap node for nodes, which makes both known to the table. Whether one answered.
async fn ping_host(dht: &HyperDhtHandle, host: &str) -> bool {
    let Ok(addresses) = super::resolve(host).await else { return false };
    for address in addresses {
        if let IpAddr::V4(ip) = address.ip()
            && dht.dht().ping(&ip.to_string(), address.port()).await.is_ok()
        {
            return true;
        }
    }
    false
}

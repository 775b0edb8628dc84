//! The local network: multicast DNS to find each other, and TCP.

mod near;
mod seen;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mdns_sd::{DaemonEvent, DaemonStatus, IfKind, Receiver, ServiceDaemon, ServiceEvent, ServiceInfo};
use multifeed_tokio::PeerKey;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::net::TcpListener;
use tokio::time::Sleep;

use crate::discovery::{Connecting, Discovery, DiscoveryEvent, Mode, Route, Topic};
use crate::engines::door::Door;
use crate::engines::lan::seen::Seen;
use crate::lock;
use crate::tcp;

/// The service's type. The part before `_tcp` has 15 bytes at most.
const SERVICE: &str = "_multifeed._tcp.local.";

/// What the text records are like.
const VERSION: &str = "1";

/// Topics in one announcement, each 64 hex digits, so that it fits into one packet. With more there are more announcements.
const TOPICS: usize = 12;

/// Topics that join or leave within this time change the announcements once.
const GATHER: Duration = Duration::from_millis(50);

/// How long to wait with what mDNS' thread did not take.
const RETRY: Duration = Duration::from_millis(100);

/// What is there is reported again so often: a peer that was given up is tried again.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// How long a peer has to say that it is there still.
const VERIFY_TIME: Duration = Duration::from_secs(3);

/// How long closing waits for mDNS' thread.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// How [`Lan`] announces, and the address it listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LanOptions {
    /// The TCP port to listen on; 0 takes a free one. Default 0.
    pub port: u16,
    /// The UDP port of multicast DNS. Default 5353. Another one keeps apart from everything else on the network.
    pub mdns_port: u16,
    /// Listens, announces and looks on 127.0.0.1 alone: for tests. Default `false`.
    pub loopback_only: bool,
}

impl Default for LanOptions {
    fn default() -> Self {
        Self { port: 0, mdns_port: 5353, loopback_only: false }
    }
}

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LanError {
    /// It cannot listen.
    #[error("cannot listen on port {port}: {source}")]
    Listen {
        /// [`LanOptions::port`].
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// Multicast DNS cannot be started.
    #[error("multicast DNS cannot be started: {0}")]
    Mdns(String),
    /// The operating system gave no randomness for a name.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// The engine `lan`: announces topics by multicast DNS as `_multifeed._tcp`, and looks for others'.
///
/// An announcement shows anyone on the network the topics, the networker's static key, addresses and the port; no root key, and not the machine's
/// name. Only addresses in networks of this machine are dialled. All interfaces are used; those that come and go are followed.
pub struct Lan {
    key: PeerKey,
    port: u16,
    state: Mutex<State>,
}

struct State {
    /// The handle of mDNS' thread, until that has ended.
    daemon: Option<ServiceDaemon>,
    door: Option<Door>,
    topics: BTreeMap<Topic, Mode>,
    announced: Vec<Announced>,
    /// When the announcements have to be made to fit the topics.
    announce: Option<Pin<Box<Sleep>>>,
    browse: Inlet<ServiceEvent>,
    monitor: Inlet<DaemonEvent>,
    seen: Seen,
    report: Pin<Box<Sleep>>,
    events: VecDeque<DiscoveryEvent>,
    /// The trouble that was reported last, and when.
    trouble: Option<(String, Instant)>,
    closing: Option<Closing>,
    waker: Option<Waker>,
}

/// One announcement.
struct Announced {
    fullname: String,
    topics: Vec<Topic>,
}

/// Events of mDNS' thread, or how long to wait before they are asked for again.
enum Inlet<T: 'static> {
    Open(Pin<Box<dyn futures_core::Stream<Item = T> + Send>>),
    Retry(Pin<Box<Sleep>>),
}

struct Closing {
    shutdown: Option<Pin<Box<dyn futures_core::Stream<Item = DaemonStatus> + Send>>>,
    retry: Pin<Box<Sleep>>,
    until: Instant,
}

impl Lan {
    /// Starts to listen, and to look for others; `key` is the networker's [`public_key`](multifeed_tokio::driver::Networker::public_key). Nothing is
    /// announced before a topic is joined.
    ///
    /// # Errors
    /// [`LanError`]. What goes wrong with the network later is reported as [`SwarmEvent::Trouble`](crate::SwarmEvent::Trouble).
    pub async fn start(key: PeerKey, options: LanOptions) -> Result<Self, LanError> {
        let cannot = |source| LanError::Listen { port: options.port, source };
        let listener = listen(&options).map_err(cannot)?;
        let port = listener.local_addr().map_err(cannot)?.port();
        let failed = |error: mdns_sd::Error| LanError::Mdns(error.to_string());
        let daemon = ServiceDaemon::new_with_port(options.mdns_port).map_err(failed)?;
        // From here on dropping stops the thread.
        let lan = Self {
            key,
            port,
            state: Mutex::new(State {
                daemon: Some(daemon.clone()),
                door: Some(Door::new(listener)),
                topics: BTreeMap::new(),
                announced: Vec::new(),
                announce: None,
                browse: Inlet::later(Duration::ZERO),
                monitor: Inlet::later(Duration::ZERO),
                seen: Seen::new(options.loopback_only),
                report: Box::pin(tokio::time::sleep(REPORT_EVERY)),
                events: VecDeque::new(),
                trouble: None,
                closing: None,
                waker: None,
            }),
        };
        if options.loopback_only {
            daemon.disable_interface(IfKind::All).map_err(failed)?;
            daemon.enable_interface(IfKind::LoopbackV4).map_err(failed)?;
        }
        Ok(lan)
    }

    /// Returns the TCP port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes the announcements fit the topics. An error if mDNS' thread takes no more now.
    fn announce(&self, state: &mut State) -> mdns_sd::Result<()> {
        let daemon = state.daemon.clone().ok_or(mdns_sd::Error::DaemonShutdown)?;
        let served: Vec<Topic> =
            state.topics.iter().filter(|(_, mode)| mode.is_server()).map(|(topic, _)| *topic).collect();
        let wanted: Vec<&[Topic]> = served.chunks(TOPICS).collect();
        // New ones first: nobody is to think meanwhile that this peer is gone.
        for topics in &wanted {
            if state.announced.iter().any(|announced| announced.topics == *topics) {
                continue;
            }
            let mut text = vec![("v".to_owned(), VERSION.to_owned()), ("k".to_owned(), hex::encode(self.key))];
            text.extend(topics.iter().enumerate().map(|(n, topic)| (format!("t{n}"), topic.to_string())));
            // Each name is used once, and is not the machine's. The host is named anew as well: the goodbye of an announcement takes its host's
            // addresses along, and another one on the same host would stay without.
            let name = random_name().map_err(|error| mdns_sd::Error::Msg(error.to_string()))?;
            let host = format!("{name}.local.");
            let mut service = ServiceInfo::new(SERVICE, &name, &host, "", self.port, &text[..])?.enable_addr_auto();
            // Nobody else has the name: it is announced at once, and before what it stands for is withdrawn.
            service.set_requires_probe(false);
            let fullname = service.get_fullname().to_owned();
            daemon.register(service)?;
            state.announced.push(Announced { fullname, topics: topics.to_vec() });
        }
        while let Some(at) = state.announced.iter().position(|announced| !wanted.contains(&&announced.topics[..])) {
            daemon.unregister(&state.announced[at].fullname)?;
            state.announced.remove(at);
        }
        Ok(())
    }

    fn topics_changed(&self, state: &mut State) -> Option<Waker> {
        if state.announce.is_none() {
            state.announce = Some(Box::pin(tokio::time::sleep(GATHER)));
        }
        state.waker.take()
    }

    /// Whether there was anything to do.
    fn poll_work(&self, state: &mut State, cx: &mut Context<'_>) -> bool {
        if let Some(announce) = &mut state.announce
            && announce.as_mut().poll(cx).is_ready()
        {
            state.announce = None;
            if let Err(error) = self.announce(state) {
                if !matches!(error, mdns_sd::Error::Again) {
                    state.is_in_trouble(&format!("topics cannot be announced: {error}"));
                }
                state.announce = Some(Box::pin(tokio::time::sleep(RETRY)));
            }
            return true;
        }
        if state.report.as_mut().poll(cx).is_ready() {
            state.report = Box::pin(tokio::time::sleep(REPORT_EVERY));
            state.report_all();
            return true;
        }
        let Some(daemon) = &state.daemon else { return false };
        if let Poll::Ready(event) = state.monitor.poll(cx, || daemon.monitor()) {
            match event {
                DaemonEvent::Error(error) => state.is_in_trouble(&error.to_string()),
                // What could not be reached from one network may be reached from another.
                DaemonEvent::IpAdd(_) | DaemonEvent::IpDel(_) => {
                    state.seen.networks_changed();
                    state.report_all();
                }
                _ => {}
            }
            return true;
        }
        if let Poll::Ready(event) = state.browse.poll(cx, || daemon.browse(SERVICE)) {
            match event {
                ServiceEvent::ServiceResolved(service)
                    if !state.announced.iter().any(|announced| announced.fullname == service.fullname) =>
                {
                    state.seen.resolved(&service, &self.key, &mut state.events);
                }
                ServiceEvent::ServiceRemoved(_, fullname) => state.seen.removed(&fullname, &mut state.events),
                _ => {}
            }
            return true;
        }
        false
    }
}

impl Discovery for Lan {
    fn name(&self) -> &'static str {
        "lan"
    }

    fn join(&self, topic: Topic, mode: Mode) {
        let waker = {
            let state = &mut *lock(&self.state);
            state.topics.insert(topic, mode);
            state.events.extend(state.seen.report(Some(&topic)).map(DiscoveryEvent::Found));
            self.topics_changed(state)
        };
        waker.into_iter().for_each(Waker::wake);
    }

    fn leave(&self, topic: &Topic) {
        let waker = {
            let mut state = lock(&self.state);
            state.topics.remove(topic);
            self.topics_changed(&mut state)
        };
        waker.into_iter().for_each(Waker::wake);
    }

    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<DiscoveryEvent> {
        let state = &mut *lock(&self.state);
        state.waker = Some(cx.waker().clone());
        loop {
            if let Some(event) = state.events.pop_front() {
                return Poll::Ready(event);
            }
            if state.closing.is_some() || !self.poll_work(state, cx) {
                break;
            }
        }
        state.door.as_mut().map_or(Poll::Pending, |door| door.poll(cx))
    }

    fn connect(&self, route: &Route) -> Connecting {
        tcp::connect(route)
    }

    fn doubt(&self, route: &Route) {
        let state = &mut *lock(&self.state);
        let Some(daemon) = &state.daemon else { return };
        for fullname in state.seen.doubt(route) {
            // If it is busy, the next failure asks again.
            let _ = daemon.verify(fullname, VERIFY_TIME);
        }
    }

    fn poll_close(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = &mut *lock(&self.state);
        state.door = None;
        state.events.clear();
        let closing = state.closing.get_or_insert_with(|| Closing {
            shutdown: None,
            retry: Box::pin(tokio::time::sleep(Duration::ZERO)),
            until: Instant::now() + CLOSE_TIME,
        });
        while let Some(daemon) = &state.daemon {
            // A status, or the end of the thread.
            let is_over = closing.shutdown.as_mut().is_some_and(|shutdown| shutdown.as_mut().poll_next(cx).is_ready());
            if is_over || Instant::now() >= closing.until {
                break;
            }
            if closing.retry.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            closing.retry = Box::pin(tokio::time::sleep(RETRY));
            if closing.shutdown.is_none() {
                match daemon.shutdown() {
                    Ok(receiver) => closing.shutdown = Some(Box::pin(receiver.into_stream())),
                    Err(mdns_sd::Error::Again) => {}
                    // It is over.
                    Err(_) => break,
                }
            }
        }
        state.daemon = None;
        Poll::Ready(())
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let Some(daemon) = lock(&self.state).daemon.take() else { return };
        // Dropping the handle stops nothing. It takes no more than a hundred orders at once; a few moments empty that.
        for _ in 0..20 {
            match daemon.shutdown() {
                Err(mdns_sd::Error::Again) => std::thread::sleep(Duration::from_millis(1)),
                _ => return,
            }
        }
    }
}

impl std::fmt::Debug for Lan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lan").field("port", &self.port).finish_non_exhaustive()
    }
}

impl State {
    /// Reports all that is there again.
    fn report_all(&mut self) {
        self.events.extend(self.seen.report(None).map(DiscoveryEvent::Found));
    }

    /// Reports trouble; the same no more than once a minute.
    fn is_in_trouble(&mut self, message: &str) {
        let is_told = |(told, when): &(String, Instant)| told == message && when.elapsed() < REPORT_EVERY;
        if !self.trouble.as_ref().is_some_and(is_told) {
            self.trouble = Some((message.to_owned(), Instant::now()));
            self.events.push_back(DiscoveryEvent::Trouble(message.to_owned()));
        }
    }
}

impl<T: Send + 'static> Inlet<T> {
    fn later(delay: Duration) -> Self {
        Self::Retry(Box::pin(tokio::time::sleep(delay)))
    }

    /// The next event. It ends if its reader was too far behind, and is then asked for again.
    fn poll(&mut self, cx: &mut Context<'_>, open: impl Fn() -> mdns_sd::Result<Receiver<T>>) -> Poll<T> {
        loop {
            match self {
                Self::Open(events) => match events.as_mut().poll_next(cx) {
                    Poll::Ready(Some(event)) => return Poll::Ready(event),
                    Poll::Ready(None) => *self = Self::later(RETRY),
                    Poll::Pending => return Poll::Pending,
                },
                Self::Retry(retry) => {
                    if pin!(retry).as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    *self = match open() {
                        Ok(receiver) => Self::Open(Box::pin(receiver.into_stream())),
                        Err(_) => Self::later(RETRY),
                    };
                }
            }
        }
    }
}

fn random_name() -> Result<String, LanError> {
    let mut bytes = [0; 8];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| LanError::Random(error.to_string()))?;
    Ok(hex::encode(bytes))
}

fn listen(options: &LanOptions) -> io::Result<TcpListener> {
    match options.loopback_only {
        true => tcp::listen((Ipv4Addr::LOCALHOST, options.port).into()),
        false => tcp::listen_everywhere(options.port),
    }
}

//! `serve` and `sync` of several multifeeds of a corestore, of which each connection carries all that its peer has too, and dials that are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use multifeed_swarm::tcp::Tuned;
use multifeed_tokio::{
    ConnectionId, EndReason, FeedKey, Multifeed, MultifeedEvent, Network, Networker, NetworkerError, NetworkerEvent,
    NetworkerOptions, Options, PeerKey, Replicate, Role, RootState, SessionError, SyncError,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::connecting;
use super::control::{Control, Place};
use super::door::listen;
use super::opening::{bounded, close, open_all};
use super::outcome::{Apart, Outcome, not_in_sync, two_histories};
use super::peer::{self, PROGRESS_EVERY, Peer};
use super::reading::open_all_to_serve;
use super::root_keys::{self, Unproven};
use super::sync::bound_handshake;
use super::whereabouts::Whereabouts;
use crate::args::{Global, Serve, Sync};
use crate::error::{CliError, EXIT_NOT_IN_SYNC, code};
use crate::line_limit::{LineLimit, SUM_UP_EVERY};
use crate::output::{Event, Output, PeerName, Seat, Standing, Unit};
use crate::stop::Stop;

/// How long to wait after the system refused to accept, before the next try.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a root key waits for a peer that may not have it, as in JS.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Peers of which it is said that their root key is another one.
const MOST_MISMATCHED: usize = 1024;

/// Digits of a key that stand for it in lines for people.
pub(super) const DIGITS: usize = 8;

pub(super) async fn serve(
    args: Serve,
    global: &Global,
    options: Options,
    keys: &[FeedKey],
    mut output: Output,
) -> Result<(), CliError> {
    let options = bounded(options, &args.bounds);
    let mut stop = Stop::listen()?;
    let (multis, only_reads) = open_all_to_serve(global, options, keys, &output).await?;
    if !only_reads {
        root_keys::remember(&multis, global, &output);
    }
    let control = if only_reads { None } else { Control::listen(&global.store, places(&multis, global), &output) };
    let whereabouts = Whereabouts::of(global);
    output.start_bar(Unit::Blocks);
    output.queue_lines();
    let replicate = if args.live { Replicate::live() } else { Replicate::default() };
    let replicate = if only_reads { replicate.upload_only() } else { replicate };
    let result = async {
        let mut network = network_options();
        network.limits.connections = args.max_peers;
        let mut roots = Roots::join(&multis, &replicate, network, &output)?;
        let result = peer::show(&multis, &output, roots.accept(&args, &mut stop)).await;
        let ended = roots.end().await;
        result.and(ended)
    };
    end(&multis, result.await, control, &whereabouts, &output).await
}

pub(super) async fn sync(
    args: Sync,
    global: &Global,
    options: Options,
    keys: &[FeedKey],
    mut output: Output,
) -> Result<(), CliError> {
    let mut stop = Stop::listen()?;
    let multis = open_all(global, options, keys, &output).await?;
    let control = if args.live { Control::listen(&global.store, places(&multis, global), &output) } else { None };
    let whereabouts = Whereabouts::of(global);
    output.start_bar(Unit::Blocks);
    output.queue_lines();
    let replicate = if args.live { Replicate::live() } else { Replicate::default() };
    let result = async {
        let mut network = network_options();
        // Nothing is said on it any more once each root key was waited for.
        network.limits.unshared_time = HANDSHAKE_TIME;
        bound_handshake(&mut network.session.handshake_timeout, &args);
        let mut roots = Roots::join(&multis, &replicate, network, &output)?;
        roots.unproven = Some(Unproven::of(&multis, global));
        let result = peer::show(&multis, &output, roots.dial(&args, &mut stop)).await;
        let ended = roots.end().await;
        result.and(ended)
    };
    end(&multis, result.await, control, &whereabouts, &output).await
}

pub(super) fn network_options() -> NetworkerOptions {
    let mut options = NetworkerOptions::default();
    options.session.handshake_timeout = Some(HANDSHAKE_TIME);
    options
}

pub(super) fn places(multis: &[Multifeed], global: &Global) -> Vec<(Place, Multifeed)> {
    multis.iter().map(|multi| (Place::new(&multi.root_key(), global), multi.clone())).collect()
}

/// Ends what a command began beside its networker, which is closed: the bar, the control socket, the stores.
pub(super) async fn end(
    multis: &[Multifeed],
    result: Result<(), CliError>,
    control: Option<Control>,
    whereabouts: &Whereabouts,
    output: &Output,
) -> Result<(), CliError> {
    output.end_bar();
    let result = result.and(control.map_or(Ok(()), Control::end)).and_then(|()| whereabouts.check());
    close_all(multis, result, output).await
}

pub(super) async fn close_all(
    multis: &[Multifeed],
    mut result: Result<(), CliError>,
    output: &Output,
) -> Result<(), CliError> {
    for multi in multis {
        result = close(multi, result, output).await;
    }
    result
}

/// What a sync with one peer came to.
#[derive(Default)]
pub(super) struct Ended {
    /// Root keys that the peer has.
    pub(super) shared: BTreeSet<FeedKey>,
    /// The first thing that went wrong.
    pub(super) error: Option<CliError>,
    /// Blocks went over.
    pub(super) moved: bool,
}

/// The multifeeds on a network, and what is said of it.
pub(super) struct Roots<'a> {
    pub(super) networker: Networker,
    pub(super) events: multifeed_tokio::NetworkerEvents,
    pub(super) keys: Vec<FeedKey>,
    /// New feeds of all of them.
    pub(super) feeds: mpsc::Receiver<(FeedKey, MultifeedEvent)>,
    _following: JoinSet<()>,
    /// Those in whose store something is damaged.
    damaged: BTreeSet<FeedKey>,
    live: bool,
    /// Nothing is said of those who have none of the root keys, whatever became of them.
    says_of_strangers: bool,
    peers: BTreeMap<ConnectionId, Connected>,
    /// How each sync stood when that was said last, and its seat for `status`.
    stood: BTreeMap<(ConnectionId, FeedKey), (Standing, Seat)>,
    lines: LineLimit,
    /// Why the last connection that was dialled came to nothing.
    came_to_nothing: Option<String>,
    /// As that, of one that nobody was connected on: nothing was said of it yet.
    unanswered: Option<String>,
    /// The address that is dialled, if there is only one.
    dialled: Option<String>,
    /// Root keys that the store remembers once a peer has them.
    pub(super) unproven: Option<Unproven>,
    /// Peers of which it was said that they have another root key.
    mismatched: BTreeSet<PeerKey>,
    pub(super) output: &'a Output,
}

/// A connection.
struct Connected {
    /// The address it came from, if it did.
    from: Option<SocketAddr>,
    peer: Option<PeerKey>,
    /// What its sessions report, by root key.
    syncs: BTreeMap<FeedKey, Peer>,
    /// It has another root key, and none of these.
    mismatch: Option<CliError>,
    ended: Ended,
}

impl Connected {
    fn new(from: Option<SocketAddr>) -> Self {
        Self { from, peer: None, syncs: BTreeMap::new(), mismatch: None, ended: Ended::default() }
    }

    /// For programs. One that did not come was dialled there.
    fn name(&self, dialled: Option<&String>) -> PeerName {
        let address = self.from.map(|from| from.to_string()).or_else(|| dialled.cloned());
        PeerName { id: self.peer.map(hex::encode), address }
    }
}

impl<'a> Roots<'a> {
    fn join(
        multis: &[Multifeed],
        replicate: &Replicate,
        options: NetworkerOptions,
        output: &'a Output,
    ) -> Result<Self, CliError> {
        let roots = Self::of(multis, replicate.live, Networker::new(options)?, output);
        for multi in multis {
            roots.networker.join(multi, replicate.clone())?;
        }
        Ok(roots)
    }

    /// Follows multifeeds on a networker, which they are to join.
    pub(super) fn of(multis: &[Multifeed], live: bool, networker: Networker, output: &'a Output) -> Self {
        let events = networker.events();
        let (news, feeds) = mpsc::channel(64);
        let mut following = JoinSet::new();
        for multi in multis {
            let (root, news) = (multi.root_key(), news.clone());
            let mut events = multi.events();
            following.spawn(async move {
                while let Some(event) = events.next().await {
                    if news.send((root, event)).await.is_err() {
                        return;
                    }
                }
            });
        }
        let keys = multis.iter().map(|multi| multi.root_key()).collect();
        let damaged = multis.iter().filter(|multi| !multi.problems().is_empty());
        let damaged = damaged.map(|multi| multi.root_key()).collect();
        Self {
            networker,
            events,
            keys,
            feeds,
            _following: following,
            damaged,
            live,
            says_of_strangers: true,
            peers: BTreeMap::new(),
            stood: BTreeMap::new(),
            lines: LineLimit::default(),
            came_to_nothing: None,
            unanswered: None,
            dialled: None,
            unproven: None,
            mismatched: BTreeSet::new(),
            output,
        }
    }

    /// As it is, without a word of those who have none of the root keys.
    pub(super) fn of_peers_alone(self) -> Self {
        Self { says_of_strangers: false, ..self }
    }

    /// Takes connections until a signal; with `once` until the first peer that has one of the root keys is gone.
    async fn accept(&mut self, args: &Serve, stop: &mut Stop) -> Result<(), CliError> {
        let listener = listen(args, self.output).await?;
        let start = tokio::time::Instant::now();
        let mut sums = tokio::time::interval(SUM_UP_EVERY);
        let mut looks = tokio::time::interval(PROGRESS_EVERY);
        loop {
            tokio::select! {
                _ = stop.wait() => return Ok(()),
                event = self.events.next() => {
                    let Some(event) = event else { return Ok(()) };
                    let ended = self.take(event, start.elapsed())?;
                    if let Some(ended) = ended.filter(|ended| args.once && !ended.shared.is_empty()) {
                        return self.result(ended);
                    }
                }
                Some((root, event)) = self.feeds.recv() => self.say_of_feed(root, &event)?,
                _ = looks.tick() => self.print_progress()?,
                _ = sums.tick() => self.lines.sum_up(start.elapsed()).iter().for_each(|unsaid| self.output.warn(unsaid)),
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => self.let_in(stream, from, args, start.elapsed()),
                    Err(error) => {
                        self.output.fail(&CliError::new(code::LISTEN, format!("cannot accept a peer: {error}")));
                        sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    fn let_in(&mut self, stream: TcpStream, from: SocketAddr, args: &Serve, now: Duration) {
        let network = Network::from(from.ip());
        let there =
            self.peers.values().filter(|peer| peer.from.is_some_and(|from| Network::from(from.ip()) == network));
        let connected = if there.count() < args.max_per_address {
            self.networker
                .connect_from(Tuned::new(stream), Role::Responder, network.to_string())
                .map_err(CliError::from)
        } else {
            Err(CliError::new(code::NO_PLACE, "turned away: too many connections of this address"))
        };
        match connected {
            Ok(id) => _ = self.peers.insert(id, Connected::new(Some(from))),
            Err(error) if self.lines.allows(from.ip(), false, now) => {
                self.output.fail_of(&from.into(), &error.of_peer(&format!("{from}: ")));
            }
            Err(_) => {}
        }
    }

    /// Connects, and again if that was asked for, until the sync is done or a signal comes.
    async fn dial(&mut self, args: &Sync, stop: &mut Stop) -> Result<(), CliError> {
        self.dialled = args.address.clone();
        let (address, time) = (args.address().to_owned(), args.time());
        let connect = move || {
            let address = address.clone();
            async move { connecting::connect(&address, time).await }
        };
        if args.retry {
            self.networker.dial(connect)?;
        } else {
            let stream = tokio::select! {
                stream = connect() => stream,
                signal = stop.wait() => {
                    let message = "interrupted before it was connected";
                    return Err(CliError::new(code::INTERRUPTED, message).with_exit(signal.exit()));
                }
            };
            let cannot = |error| CliError::new(code::CONNECT, format!("cannot connect to {}: {error}", args.address()));
            let id = self.networker.connect(stream.map_err(cannot)?, Role::Initiator)?;
            // It may end before anybody was there.
            self.peers.insert(id, Connected::new(None));
        }
        let start = tokio::time::Instant::now();
        let mut looks = tokio::time::interval(PROGRESS_EVERY);
        loop {
            tokio::select! {
                signal = stop.wait() => {
                    let message = "interrupted before it was done";
                    let error = CliError::new(code::INTERRUPTED, message).with_exit(signal.exit());
                    let mut syncs = self.peers.values().flat_map(|peer| peer.syncs.values());
                    return match args.live {
                        true if syncs.any(|sync| sync.apart.is_conflict()) => Err(two_histories()),
                        true => self.left_out().map_or(Ok(()), |feeds| Err(not_in_sync(signal, feeds))),
                        false => Err(error),
                    };
                }
                event = self.events.next() => {
                    let Some(event) = event else { return Ok(()) };
                    let Some(ended) = self.take(event, start.elapsed())? else { continue };
                    // What keeps the two apart does not get better.
                    let failed = ended.error.as_ref().is_some_and(|error| error.exit() != EXIT_NOT_IN_SYNC);
                    let is_ours = ended.error.as_ref().is_some_and(CliError::is_of_the_store);
                    if is_ours || !(args.retry && (args.live || failed || ended.shared.is_empty())) {
                        return self.result(ended);
                    }
                }
                _ = looks.tick() => self.print_progress()?,
                Some((root, event)) = self.feeds.recv() => self.say_of_feed(root, &event)?,
            }
        }
    }

    /// `None` if a peer is there for each root key, and all of them are in sync; else how many feeds they do not take.
    fn left_out(&self) -> Option<u64> {
        let mut not_taken = 0;
        let mut in_sync = true;
        for root in &self.keys {
            let status = self.networker.status(root);
            let peers = status.as_ref().map(|status| &status.peers[..]).unwrap_or_default();
            let mut ready = peers.iter().filter(|peer| peer.state == RootState::Ready).peekable();
            in_sync &= ready.peek().is_some();
            for peer in ready {
                in_sync &= peer.sync.in_sync;
                not_taken += peer.sync.not_taken;
            }
        }
        (!in_sync || not_taken > 0).then_some(not_taken)
    }

    /// What the command's end says of a sync with one peer.
    fn result(&self, ended: Ended) -> Result<(), CliError> {
        if let Some(error) = ended.error {
            return Err(error);
        }
        let missing = self.keys.iter().enumerate().filter(|(_, key)| !ended.shared.contains(key));
        let given = |(at, key)| format!("{} (number {} of those given)", short(key), at + 1);
        let missing: Vec<String> = missing.map(given).collect();
        match missing.len() {
            0 => Ok(()),
            count if count == self.keys.len() => {
                Err(CliError::new(code::NOT_SHARED, "the peer has none of these root keys").with_exit(EXIT_NOT_IN_SYNC))
            }
            count => {
                let keys = if count == 1 { "key" } else { "keys" };
                let message =
                    format!("the peer does not have the root {keys} {}; the others are in sync", missing.join(", "));
                Err(CliError::new(code::NOT_SHARED, message).with_exit(EXIT_NOT_IN_SYNC))
            }
        }
    }

    /// Says what happened. What a connection came to, if it is over.
    pub(super) fn take(&mut self, event: NetworkerEvent, now: Duration) -> Result<Option<Ended>, CliError> {
        match event {
            NetworkerEvent::Connected { connection, peer, .. } => {
                let connected = self.peers.entry(connection).or_insert_with(|| Connected::new(None));
                connected.peer = Some(peer);
            }
            NetworkerEvent::Ready { connection, root } => {
                let Some(connected) = self.peers.get_mut(&connection) else { return Ok(None) };
                // Nothing is said of a stranger.
                let is_first = connected.ended.shared.is_empty();
                connected.ended.shared.insert(root);
                if let Some(unproven) = &mut self.unproven {
                    unproven.prove(&root, self.output);
                }
                let who_syncs = format!("{}root {}: ", who(connected), short(&root));
                let apart = Apart::of_damage(self.damaged.contains(&root));
                let sync = Peer { who: who_syncs, apart, live: self.live, ..Peer::default() };
                connected.syncs.insert(root, sync);
                let (who, peer) = (who(connected), connected.name(self.dialled.as_ref()));
                if is_first && self.may_say(connection, now) {
                    self.output.about(&peer).print(|| format!("{who}connected"), &Event::PeerConnected)?;
                }
                if self.may_say(connection, now) {
                    let output = self.output.about_root(&peer, named_root(&root));
                    output.print(|| format!("{who}syncs root {}", short(&root)), &Event::RootReady)?;
                }
            }
            NetworkerEvent::RootKeyMismatch { connection, peer, theirs, .. } => {
                let error = SessionError::RootKeyMismatch { us: self.keys[0].discovery_key(), them: theirs };
                let error = CliError::from(SyncError::Session(error));
                // It comes back, and has the same one.
                let is_new = self.mismatched.len() < MOST_MISMATCHED && self.mismatched.insert(peer);
                let may_say = is_new && self.may_say(connection, now);
                // Of one that was dialled the end of its connection says it, unless nothing is said of strangers then.
                let says_at_end = self.says_of_strangers;
                let Some(connected) = self.peers.get_mut(&connection) else { return Ok(None) };
                if may_say && !(says_at_end && connected.from.is_none()) {
                    let who = who(connected);
                    self.output.fail_of(&connected.name(self.dialled.as_ref()), &error.clone().of_peer(&who));
                }
                connected.mismatch = Some(error);
            }
            NetworkerEvent::Sync { connection, root, event } => {
                let may_say = self.may_say(connection, now);
                let Some(connected) = self.peers.get_mut(&connection) else { return Ok(None) };
                let output = self.output.about_root(&connected.name(self.dialled.as_ref()), named_root(&root));
                let Some(sync) = connected.syncs.get_mut(&root) else { return Ok(None) };
                sync.apart.note(&event);
                if may_say {
                    peer::print(&event, sync, &output)?;
                }
            }
            NetworkerEvent::RootOver { connection, root, in_sync, result } => {
                self.stood.remove(&(connection, root));
                let may_say = self.may_say(connection, now);
                let Some(connected) = self.peers.get_mut(&connection) else { return Ok(None) };
                let output = self.output.about_root(&connected.name(self.dialled.as_ref()), named_root(&root));
                let Some(sync) = connected.syncs.remove(&root) else { return Ok(None) };
                if may_say {
                    sync.problems.end(&sync.who, &output)?;
                }
                let who = &sync.who;
                match result {
                    Ok(totals) => {
                        connected.ended.moved |= totals.blocks_received > 0 || totals.blocks_sent > 0;
                        let outcome = Outcome::of(self.live, in_sync, sync.apart, totals);
                        if may_say {
                            let (done, in_sync) = (Some(outcome.done()), outcome.is_in_sync());
                            let event = Event::RootClosed { done, in_sync, message: None };
                            output.print(|| format!("{who}{}", outcome.text()), &event)?;
                            outcome.say_more(who, true, &output)?;
                        }
                        connected.ended.error = connected.ended.error.take().or(outcome.result().err());
                    }
                    Err(error) => {
                        let error = CliError::from(error);
                        if may_say {
                            let message = Some(error.message().to_owned());
                            let event = Event::RootClosed { done: None, in_sync, message };
                            output.print(|| format!("{who}{}", error.message()), &event)?;
                        }
                        connected.ended.error.get_or_insert(error);
                    }
                }
            }
            NetworkerEvent::Disconnected { connection, dial, reason, error, in_sync, .. } => {
                let said = self.may_say(connection, now);
                let Some(mut connected) = self.peers.remove(&connection) else {
                    let error = error.map(|error| CliError::from(SyncError::Session(error)));
                    self.unanswered = error.filter(|_| dial.is_some()).map(|error| error.message().to_owned());
                    return Ok(None);
                };
                let is_stranger = connected.ended.shared.is_empty();
                let error = error.map(|error| CliError::from(SyncError::Session(error)));
                let error = error.or(connected.mismatch.take());
                let mut message = error.as_ref().map(|error| error.message().to_owned());
                // Who was dialled is no stranger, and what is tried again failed for some reason.
                let is_dialled = connected.from.is_none() && self.says_of_strangers;
                if is_stranger && is_dialled {
                    let why = || {
                        reason.and_then(in_words).unwrap_or(
                            "it ended before it proved one of these root keys, and may have been given another --key",
                        )
                    };
                    self.came_to_nothing = Some(message.get_or_insert_with(|| why().to_owned()).clone());
                }
                let not_shared = self.keys.iter().filter(|key| !connected.ended.shared.contains(key));
                let not_shared = not_shared.map(named_root).collect();
                let output = self.output.about(&connected.name(self.dialled.as_ref()));
                let who = who(&connected);
                if said && !(is_stranger && (message.is_none() || !self.says_of_strangers)) {
                    let why = message.clone().or_else(|| reason.and_then(in_words).map(str::to_owned));
                    let people =
                        || why.map_or_else(|| format!("{who}disconnected"), |why| format!("{who}disconnected: {why}"));
                    // As its sessions' ends said.
                    let is_apart = |error: &CliError| error.exit() == EXIT_NOT_IN_SYNC;
                    let in_sync = in_sync && !connected.ended.error.as_ref().is_some_and(is_apart);
                    output.print(people, &Event::PeerDisconnected { in_sync, not_shared, message })?;
                }
                if connected.ended.error.is_none() {
                    connected.ended.error = error;
                }
                return Ok(Some(connected.ended));
            }
            NetworkerEvent::Redial { after, error, .. } => {
                let seconds = after.as_secs_f64();
                let (before, unanswered) = (self.came_to_nothing.take(), self.unanswered.take());
                let error = error.or(unanswered);
                let why = error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
                let event = Event::Redial { seconds, message: error.or(before) };
                let output = self.output.about(&PeerName { id: None, address: self.dialled.clone() });
                output.print(|| format!("connecting again in {seconds:.1} s{why}"), &event)?;
            }
            _ => {}
        }
        Ok(None)
    }

    /// Prints how each sync stands with each peer, if that changed. People see all of it together, at the bottom of the terminal.
    pub(super) fn print_progress(&mut self) -> Result<(), CliError> {
        for root in &self.keys {
            let Some(status) = self.networker.status(root) else { continue };
            for found in status.peers.into_iter().filter(|found| found.state == RootState::Ready) {
                let standing = Standing::from(found.sync);
                let stood = self.stood.entry((found.connection, *root));
                let (before, seat) = stood.or_insert_with(|| (Standing::default(), self.output.board().seat()));
                if std::mem::replace(before, standing) != standing {
                    let name = self.peers.get(&found.connection).map(|on| on.name(self.dialled.as_ref()));
                    let name = name.unwrap_or_default();
                    seat.set(&name, Some(&named_root(root)), standing);
                    let output = self.output.about_root(&name, named_root(root));
                    output.print_progress(&Event::RootProgress(standing))?;
                }
            }
        }
        Ok(())
    }

    fn may_say(&self, connection: ConnectionId, now: Duration) -> bool {
        let Some(connected) = self.peers.get(&connection) else { return true };
        let proven = !connected.ended.shared.is_empty();
        connected.from.is_none_or(|from| self.lines.allows(from.ip(), proven, now))
    }

    pub(super) fn say_of_feed(&self, root: FeedKey, event: &MultifeedEvent) -> Result<(), CliError> {
        let MultifeedEvent::Feed(feed) = event else { return Ok(()) };
        let (key, name) = (feed.key().to_string(), feed.name());
        let people = || format!("root {}: new feed {key}, named {name}", short(&root));
        let event = Event::RootFeed { root: named_root(&root), key: key.clone(), name: name.clone() };
        self.output.print(people, &event)
    }

    /// Ends all connections, cleanly.
    pub(super) async fn end(mut self) -> Result<(), CliError> {
        self.networker.close().await;
        while let Some(event) = self.events.next().await {
            // Nothing is dialled again.
            if !matches!(event, NetworkerEvent::Redial { .. }) {
                self.take(event, Duration::MAX)?;
            }
        }
        Ok(())
    }
}

impl From<NetworkerError> for CliError {
    fn from(error: NetworkerError) -> Self {
        CliError::new(error.code(), error.to_string())
    }
}

/// Why this side ended a connection, if that is more than that all was done.
fn in_words(reason: EndReason) -> Option<&'static str> {
    Some(match reason {
        EndReason::OwnKey => "it is this process itself",
        EndReason::Merged | EndReason::TooManyToPeer => "there is another connection to this peer",
        EndReason::GaveWay => "others needed its place",
        EndReason::NothingShared => "it has none of these root keys",
        _ => return None,
    })
}

/// What stands before a line about a peer.
fn who(connected: &Connected) -> String {
    match (connected.from, connected.peer) {
        (Some(from), _) => format!("{from}: "),
        (None, Some(peer)) => format!("peer {}: ", &hex::encode(peer)[..DIGITS]),
        (None, None) => String::new(),
    }
}

/// A root key, which is not to be given away, by its discovery key.
fn named_root(root: &FeedKey) -> String {
    root.discovery_key().to_string()
}

pub(super) fn short(root: &FeedKey) -> String {
    named_root(root).chars().take(DIGITS).collect()
}

//! `multifeed swarm`: find peers, and sync with all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use multifeed_swarm::{
    Addresses, AddressesOptions, Discovery, FoundState, Hyperswarm, HyperswarmError, HyperswarmOptions, Lan, LanError,
    LanOptions, LostReason, Mode, SwarmEvent, SwarmEvents, SwarmOptions, SwarmPeer,
};
use multifeed_tokio::{
    DEFAULT_ROOT_KEY, FeedKey, Moved, Multifeed, Networker, NetworkerEvent, Options, PeerKey, Replicate, RootPeer,
    RootState,
};
use tokio::time::{Instant, interval};

use super::control::Control;
use super::network::{DIGITS, Ended, Roots, end, network_options, places};
use super::opening::bounded;
use super::peer::{self, PROGRESS_EVERY};
use super::reading::open_all_to_serve;
use super::root_keys::Unproven;
use super::whereabouts::Whereabouts;
use crate::args::{Global, Swarm};
use crate::error::{CliError, EXIT_NOT_IN_SYNC, EXIT_USAGE, code};
use crate::output::{Event, FoundBy, Output, PeerName, Rates, Unit};
use crate::stop::Stop;

/// How long nobody and nothing new has to come before a swarm that is not live is done. Multicast DNS finds a peer in about a second.
const QUIET: Duration = Duration::from_secs(3);

/// A sync that takes longer is more than a peer that comes back and finds nothing new.
const RETURN: Duration = Duration::from_secs(1);

/// Peers whose failure is remembered until they are in sync.
const MOST_FAILED: usize = 64;

pub(super) async fn run(
    args: Swarm,
    global: &Global,
    options: Options,
    keys: &[FeedKey],
    mut output: Output,
) -> Result<(), CliError> {
    if args.no_lan && args.peer.is_empty() && args.port.is_none() && !args.is_on_dht() {
        let message = "with --no-lan nobody is found: give --peer ADDR, --dht, or --port N for those who connect";
        return Err(CliError::new(code::USAGE, message).with_exit(EXIT_USAGE));
    }
    let options = bounded(options, &args.bounds);
    let mut stop = Stop::listen()?;
    let (multis, only_reads) = open_all_to_serve(global, options, keys, &output).await?;
    if keys.contains(&DEFAULT_ROOT_KEY) {
        output.warn(
            "this root key is the one that everyone knows: whoever is found gets all of this store, and adds to it; \
             --key-file gives one of your own (`multifeed keygen FILE` makes it)",
        );
    }
    if args.is_on_dht() && args.bootstrap.is_empty() {
        output.warn(
            "on the public DHT anyone who knows this multifeed's topic can see this machine's address: without --dht, or with \
             --bootstrap ADDR, nothing is announced there",
        );
    }
    let control = if only_reads { None } else { Control::listen(&global.store, places(&multis, global), &output) };
    let whereabouts = Whereabouts::of(global);
    output.start_bar(Unit::Blocks);
    output.queue_lines();
    let result = async {
        let mut network = network_options();
        let mut company = Company::new();
        if !args.live {
            // One that is in sync is not dialled again before this is done.
            network.backoff.in_sync = Some(2 * QUIET);
        }
        let networker = Networker::new(network)?;
        let engines = engines(&args, &networker, &output).await?;
        let swarm = multifeed_swarm::Swarm::new(networker.clone(), engines, SwarmOptions::default());
        // From before anybody is found.
        let mut found = swarm.events();
        let mut roots = Roots::of(&multis, args.live, networker, &output).of_peers_alone();
        roots.unproven = (!only_reads).then(|| Unproven::of(&multis, global));
        let replicate = if args.live { Replicate::live() } else { Replicate::default() };
        let replicate = if only_reads { replicate.upload_only() } else { replicate };
        let joined = multis.iter().try_for_each(|multi| swarm.join(multi, replicate.clone(), Mode::Both));
        let result = match joined {
            Ok(()) => {
                peer::show(
                    &multis,
                    &output,
                    roots.follow_swarm(&swarm, &mut found, (!args.live).then_some((&mut company, &multis)), &mut stop),
                )
                .await
            }
            Err(error) => Err(error.into()),
        };
        swarm.close().await;
        let ended = roots.end().await;
        result.and(ended)
    };
    end(&multis, result.await, control, &whereabouts, &output).await
}

/// The engines that the command line asks for, of which one listens.
async fn engines(args: &Swarm, networker: &Networker, output: &Output) -> Result<Vec<Arc<dyn Discovery>>, CliError> {
    let mut engines: Vec<Arc<dyn Discovery>> = Vec::new();
    let mut addresses = AddressesOptions::default();
    addresses.peers.clone_from(&args.peer);
    let listening = |address: String| {
        output.print(|| format!("listening on {address}"), &Event::Listening { address: address.clone() })
    };
    let host = if args.loopback.is_some() { "127.0.0.1" } else { "[::]" };
    if !args.no_lan {
        let mut lan = LanOptions::default();
        lan.port = args.port.unwrap_or(0);
        if let Some(port) = args.loopback {
            (lan.loopback_only, lan.mdns_port) = (true, port);
        }
        let lan = Lan::start(networker.public_key(), lan).await?;
        listening(format!("{host}:{}", lan.port()))?;
        engines.push(Arc::new(lan));
    } else if let Some(port) = args.port {
        addresses.listen = Some(format!("{host}:{port}"));
    }
    if addresses.listen.is_some() || !addresses.peers.is_empty() {
        let address = addresses.listen.clone().unwrap_or_default();
        let cannot = |error| CliError::new(code::LISTEN, format!("cannot listen on {address}: {error}"));
        let addresses = Addresses::start(addresses).await.map_err(cannot)?;
        if let Some(address) = addresses.address() {
            listening(address.to_string())?;
        }
        engines.push(Arc::new(addresses));
    }
    if args.is_on_dht() {
        let mut hyperswarm = HyperswarmOptions::default();
        if !args.bootstrap.is_empty() {
            hyperswarm.bootstrap.clone_from(&args.bootstrap);
        }
        hyperswarm.loopback_only = args.loopback.is_some();
        engines.push(Arc::new(Hyperswarm::start(hyperswarm).await?));
    }
    Ok(engines)
}

impl From<LanError> for CliError {
    fn from(error: LanError) -> Self {
        let code = if matches!(error, LanError::Listen { .. }) { code::LISTEN } else { code::IO };
        let hint = if matches!(error, LanError::Mdns(_)) { "; --no-lan goes without it" } else { "" };
        CliError::new(code, format!("{error}{hint}"))
    }
}

impl From<HyperswarmError> for CliError {
    fn from(error: HyperswarmError) -> Self {
        match error {
            HyperswarmError::Bootstrap(_) | HyperswarmError::NoBootstrap => {
                CliError::new(code::USAGE, error.to_string()).with_exit(EXIT_USAGE)
            }
            error => CliError::new(code::LISTEN, error.to_string()),
        }
    }
}

/// What was said of a peer that is connected.
#[derive(PartialEq, Default)]
struct Said {
    found: Vec<String>,
    in_sync: bool,
    /// How it was found when people were last told that it is in sync.
    told: Option<Vec<String>>,
}

/// Whether a swarm that is not live is done, as far as it goes.
struct Company {
    /// Somebody had a root key.
    met: bool,
    /// Those whose last sync failed.
    failed: BTreeMap<Option<PeerKey>, CliError>,
    /// What is wrong with this store, so that it cannot be done.
    stuck: Option<CliError>,
    /// Since when a sync is under way.
    syncing: Option<Instant>,
    /// When somebody or something new came last.
    news: Instant,
}

impl Company {
    fn new() -> Self {
        Self { met: false, syncing: None, failed: BTreeMap::new(), stuck: None, news: Instant::now() }
    }

    fn ended(&mut self, peer: Option<PeerKey>, ended: Ended) {
        if ended.shared.is_empty() {
            return;
        }
        self.met = true;
        if ended.moved {
            self.news = Instant::now();
        }
        match ended.error {
            None => _ = self.failed.remove(&peer),
            Some(error) if error.is_of_the_store() => _ = self.stuck.get_or_insert(error),
            Some(error) if self.failed.len() < MOST_FAILED => _ = self.failed.insert(peer, error),
            Some(_) => {}
        }
    }

    /// Whether nobody is waited for, and nothing new came for a while. `syncing` says that a sync is under way.
    fn is_done(&mut self, peers: &[SwarmPeer], syncing: bool) -> bool {
        let is_awaited = |peer: &SwarmPeer| {
            let is_tried = peer.reached || (!peer.kept && peer.failures > 0);
            peer.state != FoundState::Own && !is_tried
        };
        // What keeps the two apart does not get better; what broke may.
        let is_broken = |peer: &SwarmPeer| {
            peer.id.is_some() && self.failed.get(&peer.key).is_some_and(|error| error.exit() != EXIT_NOT_IN_SYNC)
        };
        let since = syncing.then(|| *self.syncing.get_or_insert_with(Instant::now));
        self.syncing = since;
        // Live peers come back each second, and find nothing new.
        let takes_time = since.is_some_and(|since| since.elapsed() >= RETURN);
        if !self.met || takes_time || peers.iter().any(|peer| is_awaited(peer) || is_broken(peer)) {
            self.news = Instant::now();
        }
        !syncing && self.news.elapsed() >= QUIET
    }

    /// What failed. If a sync broke, and its peer is gone, it is no failure that nothing is missing without it: others had it, or the same one under
    /// another key.
    fn result(&mut self, peers: &[SwarmPeer], multis: &[Multifeed]) -> Result<(), CliError> {
        let is_whole = |multi: &Multifeed| multi.feeds().iter().all(|feed| feed.downloaded() == feed.len());
        let is_whole = multis.iter().all(is_whole);
        let is_there = |key: &Option<PeerKey>| peers.iter().any(|peer| peer.key == *key);
        let failed = std::mem::take(&mut self.failed);
        let mut failed =
            failed.into_iter().filter(|(key, error)| error.exit() == EXIT_NOT_IN_SYNC || !is_whole || is_there(key));
        failed.next().map_or(Ok(()), |(_, error)| Err(error))
    }
}

impl Roots<'_> {
    /// Says what happens until a signal comes, or, if it is not live, until this store is in sync with all that was found.
    async fn follow_swarm(
        &mut self,
        swarm: &multifeed_swarm::Swarm,
        found: &mut SwarmEvents,
        mut until_done: Option<(&mut Company, &[Multifeed])>,
        stop: &mut Stop,
    ) -> Result<(), CliError> {
        let start = Instant::now();
        let mut looks = interval(PROGRESS_EVERY);
        let mut said = BTreeMap::new();
        loop {
            tokio::select! {
                signal = stop.wait() => {
                    let message = "interrupted before it was done";
                    let error = CliError::new(code::INTERRUPTED, message).with_exit(signal.exit());
                    return if until_done.is_some() { Err(error) } else { Ok(()) };
                }
                event = self.events.next() => {
                    let Some(event) = event else { return Ok(()) };
                    let who = match &event {
                        // The swarm reports it, as it knows which peer that is.
                        NetworkerEvent::Redial { .. } => continue,
                        NetworkerEvent::Disconnected { peer, .. } => *peer,
                        _ => None,
                    };
                    let ended = self.take(event, start.elapsed())?;
                    if let (Some((company, _)), Some(ended)) = (&mut until_done, ended) {
                        company.ended(who, ended);
                        if let Some(error) = company.stuck.take() {
                            return Err(error);
                        }
                    }
                }
                Some(event) = found.next() => self.say_of_found(event, swarm)?,
                Some((root, event)) = self.feeds.recv() => {
                    if let Some((company, _)) = &mut until_done {
                        company.news = Instant::now();
                    }
                    self.say_of_feed(root, &event)?;
                }
                _ = looks.tick() => {
                    self.print_progress()?;
                    let peers = swarm.peers();
                    let syncing = self.say_of_peers(&peers, &mut said)?;
                    if let Some((company, multis)) = &mut until_done
                        && company.is_done(&peers, syncing)
                    {
                        return company.result(&peers, multis);
                    }
                }
            }
        }
    }

    fn say_of_found(&self, event: SwarmEvent, swarm: &multifeed_swarm::Swarm) -> Result<(), CliError> {
        let of = |key: Option<PeerKey>| key.map(hex::encode);
        match event {
            SwarmEvent::Found { peer, key, engine, route } => {
                let (key, at) = (of(key), route.to_string());
                let people = || format!("{}found by {engine} at {at}", who(key.as_deref()));
                let found = peer.number();
                let name = PeerName { id: key.clone(), address: Some(at.clone()) };
                self.output.about(&name).print(people, &Event::PeerFound { found, by: engine })
            }
            SwarmEvent::Failed { peer, key, error, after } => {
                let known = swarm.peers().into_iter().find(|known| known.id == Some(peer));
                // Anyone may have announced a peer that the user did not name.
                let kept = known.as_ref().is_some_and(|known| known.kept);
                let at = known.as_ref().and_then(|known| known.found.first()).map(|found| found.route.to_string());
                let seconds = after.as_secs_f64();
                let key = of(key);
                let why = match known.is_some_and(|known| known.reached) {
                    true => "it ended the connection before a root key was shared",
                    false => "it has none of these root keys, or is no multifeed",
                };
                let why = error.unwrap_or_else(|| why.to_owned());
                let event = Event::PeerUnreachable { found: peer.number(), seconds, message: why.clone() };
                if self.output.is_json() || !kept {
                    return self.output.about(&PeerName { id: key, address: at }).print_object(&event);
                }
                let at = at.filter(|at| !why.starts_with(at)).map_or_else(String::new, |at| format!("{at}: "));
                self.output.say(&format!("{at}{why}; trying again in {seconds:.1} s"))
            }
            SwarmEvent::Lost { peer, key, reason } => {
                let reason = match reason {
                    LostReason::Gone => "gone",
                    LostReason::GivenUp => "given-up",
                    LostReason::Left => "left",
                    LostReason::GaveWay => "gave-way",
                    LostReason::Same => "same",
                    _ => "other",
                };
                let name = PeerName { id: of(key), address: None };
                let event = Event::PeerLost { found: peer.number(), reason };
                if reason != "given-up" {
                    return self.output.about(&name).print_object(&event);
                }
                let who = who(name.id.as_deref());
                let people = || {
                    format!("{who}one that was found cannot be reached, or has none of these root keys: it is given up")
                };
                self.output.about(&name).print(people, &event)
            }
            SwarmEvent::Trouble { engine, message } => {
                self.output.warn(&format!("{engine}: {message}"));
                Ok(())
            }
            other => {
                tracing::debug!("{other:?}");
                Ok(())
            }
        }
    }

    /// Says of each peer that is connected how it was found, and when it is in sync. Whether one of them is not.
    fn say_of_peers(&self, peers: &[SwarmPeer], said: &mut BTreeMap<PeerKey, Said>) -> Result<bool, CliError> {
        let statuses: Vec<_> = self.keys.iter().filter_map(|root| self.networker.status(root)).collect();
        let there: Vec<&RootPeer> =
            statuses.iter().flat_map(|status| &status.peers).filter(|on| on.state == RootState::Ready).collect();
        said.retain(|key, _| there.iter().any(|on| on.key == *key));
        for peer in peers {
            let Some(key) = peer.key else { continue };
            let ours: Vec<_> = there.iter().filter(|on| peer.connections.contains(&on.connection)).collect();
            if ours.is_empty() {
                continue;
            }
            let in_sync = ours.iter().all(|on| on.sync.in_sync);
            let mut found: Vec<_> =
                peer.found.iter().map(|found| format!("{} at {}", found.engine, found.route)).collect();
            found.sort();
            let before = said.entry(key).or_default();
            let is_new = in_sync && before.told.as_ref() != Some(&found);
            let told = if is_new { Some(found.clone()) } else { before.told.clone() };
            let now = Said { found, in_sync, told };
            if *before == now {
                continue;
            }
            let text = hex::encode(key);
            if self.output.is_json() {
                let mut rates = Moved::default();
                for on in &ours {
                    let moved = on.sync.per_second;
                    rates.blocks_received += moved.blocks_received;
                    rates.bytes_received += moved.bytes_received;
                    rates.blocks_sent += moved.blocks_sent;
                    rates.bytes_sent += moved.bytes_sent;
                }
                let found = peer.found.iter().map(|found| FoundBy {
                    by: found.engine,
                    at: found.route.to_string(),
                    seconds: found.known.as_secs_f64(),
                });
                let name = PeerName { id: Some(text), address: None };
                self.output.about(&name).print_object(&Event::PeerStatus {
                    found: found.collect(),
                    came: peer.came,
                    seconds: peer.known.as_secs_f64(),
                    in_sync,
                    per_second: Rates::from(rates),
                })?;
            } else if is_new {
                let by = match &now.found[..] {
                    [] => peer.came.map_or_else(String::new, |engine| format!("; it came by {engine}")),
                    found => format!("; found by {}", found.join(", by ")),
                };
                self.output.say(&format!("{}in sync{by}; known for {} s", who(Some(&text)), peer.known.as_secs()))?;
            }
            *before = now;
        }
        Ok(there.iter().any(|on| !on.sync.in_sync))
    }
}

/// What stands before a line about a peer.
fn who(peer: Option<&str>) -> String {
    peer.map_or_else(String::new, |peer| format!("peer {}: ", &peer[..DIGITS]))
}

//! Many networkers in one process, over sockets of this machine, each with a corestore of its own on disk: peers come and go all the time. They know
//! each other's addresses, or find each other by multicast DNS or by a DHT.
//! What is counted is what they hold together, and what is left of them in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use multifeed_swarm::{Discovery, Hyperswarm, HyperswarmOptions, Lan, LanOptions, Mode, Swarm, SwarmOptions, Testnet};
use multifeed_testkit::random::Random;
use multifeed_tokio::{
    Corestore, FeedKey, Multifeed, Namespace, Networker, NetworkerOptions, Options, Replicate, Role, StaticKeyPair,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Files that each store has open at once, so that all fit into what a process may have.
const FILES: usize = 40;

/// How often it is looked at.
const SECOND: Duration = Duration::from_secs(1);

/// How long everybody may take to get everything once all are back.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Args)]
pub(crate) struct Crowd {
    /// Peers, each with one to four of the root keys.
    #[arg(long, default_value_t = 200)]
    peers: usize,
    #[arg(long, default_value_t = 20)]
    roots: usize,
    /// Feeds, all peers together.
    #[arg(long, default_value_t = 2000)]
    feeds: usize,
    /// For how many seconds peers come and go.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// For how many seconds a peer stays, on average.
    #[arg(long, default_value_t = 120)]
    stay: u64,
    /// For how many seconds it is away, at most.
    #[arg(long, default_value_t = 40)]
    away: u64,
    /// Where the folders are made, and removed again; by default in the system's folder for what is temporary.
    #[arg(long)]
    folder: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How they find each other.
    #[arg(long, value_enum, default_value_t = By::Address)]
    by: By,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    /// Each dials two of those with one root key.
    Address,
    Lan,
    Dht,
}

/// The network that they are on.
enum Network {
    Addresses,
    /// The port of multicast DNS.
    Lan(u16),
    Dht(Testnet),
}

impl Network {
    async fn new(by: By) -> Result<Self> {
        Ok(match by {
            By::Address => Self::Addresses,
            By::Lan => Self::Lan(std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port()),
            By::Dht => Self::Dht(Testnet::start(4, 0).await?),
        })
    }

    /// The engine of one peer, if they find each other by one.
    async fn engine(&self, networker: &Networker) -> Result<Option<Arc<dyn Discovery>>> {
        Ok(match self {
            Self::Addresses => None,
            Self::Lan(port) => {
                let mut options = LanOptions::default();
                (options.mdns_port, options.loopback_only) = (*port, true);
                Some(Arc::new(Lan::start(networker.public_key(), options).await?))
            }
            Self::Dht(testnet) => {
                let mut options = HyperswarmOptions::default();
                options.bootstrap = testnet.bootstrap().iter().map(ToString::to_string).collect();
                options.loopback_only = true;
                Some(Arc::new(Hyperswarm::start(options).await?))
            }
        })
    }
}

/// A peer that is there.
struct Present {
    store: Corestore,
    multifeeds: BTreeMap<FeedKey, Multifeed>,
    networker: Networker,
    door: Door,
}

/// How others get to it.
enum Door {
    Listener(JoinHandle<()>),
    Swarm(Swarm),
}

/// A peer, there or not.
struct Peer {
    folder: PathBuf,
    secret: [u8; 32],
    address: SocketAddr,
    roots: Vec<FeedKey>,
    /// Its writers: their root keys and names.
    writers: Vec<(FeedKey, String)>,
    neighbours: Vec<SocketAddr>,
    present: Option<Present>,
}

/// What the process holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    resident: u64,
    files: usize,
    threads: usize,
    tasks: usize,
    queued: usize,
    connections: usize,
}

impl Held {
    fn now(peers: &[Peer]) -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let present = || peers.iter().filter_map(|peer| peer.present.as_ref());
        Ok(Self {
            resident: field("VmRSS:").context("no VmRSS")? * 1024,
            files: fs::read_dir("/proc/self/fd")?.count(),
            threads: usize::try_from(field("Threads:").context("no Threads")?)?,
            tasks: Handle::current().metrics().num_alive_tasks(),
            queued: present().map(|present| present.networker.queued_bytes()).sum(),
            connections: present().map(|present| present.networker.connections()).sum(),
        })
    }

    fn most(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            files: self.files.max(other.files),
            threads: self.threads.max(other.threads),
            tasks: self.tasks.max(other.tasks),
            queued: self.queued.max(other.queued),
            connections: self.connections.max(other.connections),
        }
    }
}

/// Root keys with their feeds, and how many blocks each has.
type Truth = BTreeMap<FeedKey, BTreeMap<FeedKey, u64>>;

impl Peer {
    async fn come(&mut self, truth: &mut Truth, network: &Network) -> Result<()> {
        let mut options = Options::default();
        options.files.max_open_files = FILES;
        let store = Corestore::open(&self.folder, options).await?;
        let mut options = NetworkerOptions::default();
        if matches!(network, Network::Addresses) {
            options.static_key = Some(StaticKeyPair::from_secret_key(self.secret));
        }
        let networker = Networker::new(options)?;
        let mut multifeeds = BTreeMap::new();
        for root in &self.roots {
            let multi = Multifeed::in_corestore(&store, &Namespace::root(), *root).await?;
            multifeeds.insert(*root, multi);
        }
        for (root, name) in &self.writers {
            let multi = multifeeds.get(root).context("a writer of no multifeed of its own")?;
            let feed = multi.writer(name.as_str()).await?;
            let blocks = truth.entry(*root).or_default().entry(feed.key()).or_default();
            ensure!(feed.len() == *blocks, "{} blocks of {name}, of {blocks}", feed.len());
            if feed.is_empty() {
                feed.append("the first block").await?;
                *blocks += 1;
            }
        }
        let door = match network.engine(&networker).await? {
            Some(engine) => {
                let swarm = Swarm::new(networker.clone(), vec![engine], SwarmOptions::default());
                for multi in multifeeds.values() {
                    swarm.join(multi, Replicate::live(), Mode::Both)?;
                }
                Door::Swarm(swarm)
            }
            None => Door::Listener(self.listen(&networker, &multifeeds).await?),
        };
        self.present = Some(Present { store, multifeeds, networker, door });
        Ok(())
    }

    /// Takes whoever connects, and dials its neighbours.
    async fn listen(&self, networker: &Networker, multifeeds: &BTreeMap<FeedKey, Multifeed>) -> Result<JoinHandle<()>> {
        for multi in multifeeds.values() {
            networker.join(multi, Replicate::live())?;
        }
        let socket = TcpListener::bind(self.address).await?;
        let taker = networker.clone();
        let listener = tokio::spawn(async move {
            while let Ok((socket, from)) = socket.accept().await {
                // One that is refused is closed.
                drop(taker.connect_from(socket, Role::Responder, from.to_string()));
            }
        });
        for address in self.neighbours.clone() {
            networker.dial(move || TcpStream::connect(address))?;
        }
        Ok(listener)
    }

    async fn go(&mut self) -> Result<()> {
        let Some(Present { store, multifeeds, networker, door }) = self.present.take() else { return Ok(()) };
        match door {
            Door::Listener(listener) => {
                listener.abort();
                // It holds the networker.
                drop(listener.await);
                networker.close().await;
            }
            Door::Swarm(swarm) => swarm.close().await,
        }
        ensure!(networker.queued_bytes() == 0, "a closed networker holds {} bytes", networker.queued_bytes());
        drop(multifeeds);
        store.close().await?;
        Ok(())
    }

    async fn append(&self, which: usize, truth: &mut Truth) -> Result<()> {
        let Some((present, (root, name))) = self.present.as_ref().zip(self.writers.get(which)) else { return Ok(()) };
        let multi = present.multifeeds.get(root).context("a writer of no multifeed of its own")?;
        let feed = multi.writer(name.as_str()).await?;
        feed.append("one more block").await?;
        *truth.entry(*root).or_default().entry(feed.key()).or_default() += 1;
        Ok(())
    }

    /// How many of its multifeeds lack something.
    fn lacks(&self, truth: &Truth) -> usize {
        let Some(present) = &self.present else { return self.roots.len() };
        let held = |multi: &Multifeed| -> BTreeMap<FeedKey, u64> {
            let feeds = multi.feeds().into_iter().filter(|feed| feed.downloaded() > 0);
            feeds.map(|feed| (feed.key(), feed.downloaded())).collect()
        };
        present.multifeeds.iter().filter(|(root, multi)| truth.get(root) != Some(&held(multi))).count()
    }
}

impl Crowd {
    pub(crate) fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(self.run_on())
    }

    fn peers(&self, folder: &Path, random: &mut Random) -> Vec<Peer> {
        let roots: Vec<FeedKey> = (0..self.roots).map(|_| key(random)).collect();
        let mut members: BTreeMap<FeedKey, Vec<usize>> = BTreeMap::new();
        let mut peers = Vec::new();
        // Another process may do the same. Addresses of their own, as streams from here take ports of 127.0.0.1.
        let port = 5000 + u16::try_from(std::process::id() % 20_000).unwrap_or(0);
        for at in 0..self.peers {
            let mut own = BTreeSet::from([roots[at % roots.len()]]);
            for _ in 0..random.between(0, 3) {
                own.insert(roots[draw(random, roots.len())]);
            }
            own.iter().for_each(|root| members.entry(*root).or_default().push(at));
            let last = u16::try_from(at).unwrap_or(u16::MAX).to_be_bytes();
            peers.push(Peer {
                folder: folder.join(at.to_string()),
                secret: *key(random).as_bytes(),
                address: (Ipv4Addr::new(127, 77, last[0], last[1]), port).into(),
                roots: own.into_iter().collect(),
                writers: Vec::new(),
                neighbours: Vec::new(),
                present: None,
            });
        }
        // Those of a root key stand in a ring; each dials the next one, and one more.
        for ring in members.values() {
            for (at, peer) in ring.iter().enumerate() {
                let others = [ring[(at + 1) % ring.len()], ring[draw(random, ring.len())]];
                for other in others.into_iter().filter(|other| other != peer) {
                    let address = peers[other].address;
                    peers[*peer].neighbours.push(address);
                }
            }
        }
        for n in 0..self.feeds {
            let peer = &mut peers[n % self.peers];
            let root = peer.roots[(n / self.peers) % peer.roots.len()];
            peer.writers.push((root, format!("writer-{n}")));
        }
        peers
    }

    async fn run_on(self) -> Result<()> {
        let mut random = Random::new(self.seed);
        let folder = match &self.folder {
            Some(parent) => tempfile::tempdir_in(parent)?,
            None => tempfile::tempdir()?,
        };
        let network = Network::new(self.by).await?;
        let before = Held::now(&[])?;
        let mut peers = self.peers(folder.path(), &mut random);
        let mut truth = Truth::new();
        let start = Instant::now();
        for peer in &mut peers {
            peer.come(&mut truth, &network).await?;
        }
        println!("all are there after {:.1} s", start.elapsed().as_secs_f64());
        let (mut most, mut most_later, mut after_a_minute) = (Held::default(), Held::default(), None);
        let mut back: BTreeMap<Instant, Vec<usize>> = BTreeMap::new();
        let end = Instant::now() + Duration::from_secs(self.seconds);
        let (mut went, mut appended, mut said) = (0, 0, Duration::ZERO);
        while Instant::now() < end || !back.is_empty() {
            tokio::time::sleep(SECOND).await;
            let later = back.split_off(&Instant::now());
            for at in std::mem::replace(&mut back, later).into_values().flatten() {
                peers[at].come(&mut truth, &network).await.with_context(|| format!("peer {at} comes back"))?;
            }
            if Instant::now() < end {
                for (at, peer) in peers.iter_mut().enumerate() {
                    if peer.present.is_some() && random.one_in(self.stay) {
                        peer.go().await.with_context(|| format!("peer {at} goes"))?;
                        let away = Duration::from_millis(random.between(0, self.away * 1000));
                        back.entry(Instant::now() + away).or_default().push(at);
                        went += 1;
                    }
                }
                for _ in 0..self.peers.div_ceil(20) {
                    let at = draw(&mut random, peers.len());
                    let which = draw(&mut random, peers[at].writers.len().max(1));
                    peers[at].append(which, &mut truth).await?;
                    appended += 1;
                }
            }
            let held = Held::now(&peers)?;
            if start.elapsed() >= said + Duration::from_secs(60) {
                said = start.elapsed();
                println!("after {} s: {held:?}", said.as_secs());
            }
            most = most.most(held);
            if start.elapsed() >= Duration::from_secs(60) {
                after_a_minute.get_or_insert(held);
                most_later = most_later.most(held);
            }
        }
        ensure!(went > 0, "nobody went");
        println!("peers went {went} times, and came back; {appended} blocks were appended meanwhile");
        let all_back = Instant::now();
        loop {
            let lacks: usize = peers.iter().map(|peer| peer.lacks(&truth)).sum();
            most = most.most(Held::now(&peers)?);
            if lacks == 0 {
                break;
            }
            ensure!(all_back.elapsed() < PATIENCE, "{lacks} multifeeds lack something after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("all have everything {:.1} s after the last came back", all_back.elapsed().as_secs_f64());
        println!("before: {before:?}");
        println!("after a minute: {after_a_minute:?}");
        println!("at most: {most:?}, and {} resident after the first minute", most_later.resident);
        println!("with all there: {:?}", Held::now(&peers)?);
        for peer in &mut peers {
            peer.go().await?;
        }
        // A task that has just said that it is done counts for a moment more.
        let gone = Instant::now();
        let left = loop {
            let left = Held::now(&peers)?;
            if left.tasks == before.tasks || gone.elapsed() >= 5 * SECOND {
                break left;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        println!("left: {left:?}");
        ensure!(left.tasks == before.tasks, "tasks are left: {left:?}, of {before:?}");
        // Tokio's own stay.
        ensure!(left.files <= before.files + 4, "files are left: {left:?}, of {before:?}");
        Ok(())
    }
}

fn key(random: &mut Random) -> FeedKey {
    let mut bytes = [0; 32];
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.number().to_le_bytes()));
    FeedKey::new(bytes)
}

fn draw(random: &mut Random, below: usize) -> usize {
    usize::try_from(random.between(0, below.saturating_sub(1) as u64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_crowd_leaves_nothing() {
        // One after the other: what is counted is the process's.
        for by in [By::Address, By::Lan, By::Dht] {
            let crowd =
                Crowd { peers: 6, roots: 2, feeds: 12, seconds: 4, stay: 2, away: 2, folder: None, seed: 1, by };
            crowd.run().unwrap_or_else(|error| panic!("{by:?}: {error:#}"));
        }
    }
}

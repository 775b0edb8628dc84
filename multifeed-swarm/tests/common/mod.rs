//! What the tests share.

use std::future::Future;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use multifeed_swarm::{
    Addresses, AddressesOptions, Discovery, FoundState, Lan, LanOptions, Mode, Swarm, SwarmEvent, SwarmEvents,
    SwarmOptions, SwarmPeer,
};
use multifeed_tokio::{Feed, FeedKey, Multifeed, Networker, NetworkerOptions, Options, Replicate};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(2 * PATIENCE, test).await.expect("it hangs") });
}

pub fn root(n: u8) -> FeedKey {
    FeedKey::new([n; 32])
}

pub async fn memory(n: u8) -> Multifeed {
    Multifeed::in_memory(Options::new(root(n))).await.unwrap()
}

/// A networker whose dials come back fast.
pub fn networker() -> Networker {
    let mut options = NetworkerOptions::default();
    options.backoff.first = Duration::from_millis(100);
    options.backoff.most = Duration::from_millis(500);
    Networker::new(options).unwrap()
}

pub fn swarm(networker: Networker, engines: Vec<Arc<dyn Discovery>>) -> Swarm {
    Swarm::new(networker, engines, SwarmOptions::default())
}

/// The engine with these peers, listening on loopback.
pub async fn addresses(peers: &[String]) -> (Arc<Addresses>, String) {
    addresses_on("127.0.0.1:0", peers).await
}

pub async fn addresses_on(listen: &str, peers: &[String]) -> (Arc<Addresses>, String) {
    let mut options = AddressesOptions::default();
    (options.listen, options.peers) = (Some(listen.to_owned()), peers.to_vec());
    let engine = Addresses::start(options).await.unwrap();
    let address = engine.address().unwrap().to_string();
    (Arc::new(engine), address)
}

/// A UDP port that nobody has, for a network of multicast DNS of the test's own.
pub fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The engine on loopback, on this network.
pub async fn lan(networker: &Networker, mdns_port: u16) -> Arc<Lan> {
    let mut options = LanOptions::default();
    (options.mdns_port, options.loopback_only) = (mdns_port, true);
    Arc::new(Lan::start(networker.public_key(), options).await.unwrap())
}

/// A swarm on this network with a multifeed in it.
pub async fn on_lan(mdns_port: u16, multi: &Multifeed) -> Swarm {
    let networker = networker();
    let lan = lan(&networker, mdns_port).await;
    let swarm = swarm(networker, vec![lan]);
    swarm.join(multi, Replicate::live(), Mode::Both).unwrap();
    swarm
}

/// Waits until a multifeed holds this many blocks of a feed.
pub async fn held(multi: &Multifeed, key: &FeedKey, blocks: u64) -> Feed {
    let mut events = multi.events();
    let held = async {
        loop {
            if let Some(feed) = multi.feed(&key.to_string())
                && feed.downloaded() >= blocks
            {
                return feed;
            }
            events.next().await.expect("it is open");
        }
    };
    tokio::time::timeout(PATIENCE, held).await.expect("the blocks come")
}

/// Waits until the peers of a swarm are as `wanted`.
pub async fn until(swarm: &Swarm, what: &str, wanted: impl Fn(&[SwarmPeer]) -> bool) -> Vec<SwarmPeer> {
    let begun = tokio::time::Instant::now();
    loop {
        let peers = swarm.peers();
        if wanted(&peers) {
            return peers;
        }
        assert!(begun.elapsed() < PATIENCE, "not {what}: {peers:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn event(events: &mut SwarmEvents, wanted: impl Fn(&SwarmEvent) -> bool) -> SwarmEvent {
    let event = async {
        loop {
            let event = events.next().await.expect("it is open");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, event).await.expect("the event comes")
}

pub fn connected(peers: &[SwarmPeer]) -> usize {
    peers.iter().filter(|peer| peer.state == FoundState::Connected).count()
}

/// Has a JS peer do something that blocks, while our tasks go on.
pub fn js<T>(call: impl FnOnce() -> anyhow::Result<T>) -> T {
    tokio::task::block_in_place(call).unwrap_or_else(|error| panic!("{error:#}"))
}

/// How many threads this process has of that name.
#[cfg(target_os = "linux")]
pub fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .filter(|comm| comm.trim() == name)
        .count()
}

/// Runs a test in a process of its own: other tests have threads of the same name. Returns `false` in the first process, once the test is over.
pub fn is_alone(test: &str) -> bool {
    if std::env::var_os("MULTIFEED_ALONE").is_some() {
        return true;
    }
    let this = std::env::current_exe().unwrap();
    let status = std::process::Command::new(this).args(["--exact", test]).env("MULTIFEED_ALONE", "1").status().unwrap();
    assert!(status.success());
    false
}

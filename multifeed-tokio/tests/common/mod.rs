//! What the tests with JS peers share.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use multifeed_testkit::blocks::FeedDigest;
use multifeed_testkit::js::{JsFeed, JsPeer};
use multifeed_testkit::throttle::Throttle;
use multifeed_tokio::{Feed, Multifeed, Options, Replicate, Replication, Role, SyncEvent, Totals};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

/// Far off: only a hang comes near it.
const HANG: Duration = Duration::from_secs(120);

/// Runs a test on a runtime with threads.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(HANG, test).await.expect("it hangs") });
}

/// Has a JS peer do something that blocks, while our tasks go on.
pub fn js<T>(call: impl FnOnce() -> anyhow::Result<T>) -> T {
    tokio::task::block_in_place(call).unwrap_or_else(|error| panic!("{error:#}"))
}

pub async fn memory() -> Multifeed {
    Multifeed::in_memory(Options::default()).await.unwrap()
}

pub async fn sparse() -> Multifeed {
    let mut options = Options::default();
    options.multifeed.sparse = true;
    Multifeed::in_memory(options).await.unwrap()
}

/// Joins a JS peer over a link; it listens if ours is the initiator.
pub async fn join_slowly(
    multi: &Multifeed,
    peer: &mut JsPeer,
    role: Role,
    link: Throttle,
    options: Replicate,
) -> Replication {
    let stream = match role {
        Role::Initiator => {
            let reply = js(|| peer.call(json!({"cmd": "listen", "address": "127.0.0.1:0"})));
            let target: SocketAddr = reply["address"].as_str().unwrap().parse().unwrap();
            TcpStream::connect(link.listen(target).unwrap()).await.unwrap()
        }
        Role::Responder => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = link.listen(listener.local_addr().unwrap()).unwrap();
            js(|| peer.connect(address));
            listener.accept().await.unwrap().0
        }
    };
    multi.replicate(stream, role, options)
}

/// Joins two multifeeds; the first is the initiator.
pub fn join(a: &Multifeed, b: &Multifeed, options: &Replicate) -> (Replication, Replication) {
    let (left, right) = tokio::io::duplex(64 * 1024);
    (a.replicate(left, Role::Initiator, options.clone()), b.replicate(right, Role::Responder, options.clone()))
}

/// Joins a multifeed to a JS peer that listens.
pub async fn join_js(multi: &Multifeed, address: SocketAddr, options: Replicate) -> Replication {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    multi.replicate(stream, Role::Initiator, options)
}

/// A socket to a JS peer, which listens if ours is the initiator, and else connects.
pub async fn socket(peer: &mut JsPeer, role: Role) -> TcpStream {
    match role {
        Role::Initiator => {
            let reply = js(|| peer.call(json!({"cmd": "listen", "address": "127.0.0.1:0"})));
            TcpStream::connect(reply["address"].as_str().unwrap()).await.unwrap()
        }
        Role::Responder => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            js(|| peer.connect(address));
            listener.accept().await.unwrap().0
        }
    }
}

/// All events of a session, which has to end well.
pub async fn finish(mut sync: Replication) -> Vec<SyncEvent> {
    let mut events = Vec::new();
    while let Some(event) = sync.next().await {
        events.push(event);
    }
    sync.finish().await.unwrap();
    events
}

/// Ends a session of two of ours from the left, once both sides report that they are in sync. Both ends are clean.
pub async fn hang_up(left: Replication, right: Replication) {
    let (left_in_sync, right_in_sync) = tokio::join!(left.in_sync(), right.in_sync());
    left_in_sync.unwrap();
    right_in_sync.unwrap();
    left.close();
    let (left, right) = tokio::join!(left.finish(), right.finish());
    left.unwrap();
    right.unwrap();
}

/// Ends a live session with a JS peer from our side: it ends well here, and JS reports no error. Takes the oldest end that JS reported.
pub async fn hang_up_js(sync: Replication, peer: &mut JsPeer) -> Totals {
    sync.close();
    let totals = sync.finish().await.unwrap();
    assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
    totals
}

/// Syncs two multifeeds until both have everything: the events of either session.
pub async fn sync(a: &Multifeed, b: &Multifeed) -> [Vec<SyncEvent>; 2] {
    let (left, right) = join(a, b, &Replicate::default());
    let (left, right) = tokio::join!(finish(left), finish(right));
    assert_eq!(facts(a).await, facts(b).await);
    [left, right]
}

/// Syncs a multifeed with a JS peer that listens, until both have everything: the events of our session.
pub async fn sync_js(multi: &Multifeed, peer: &mut JsPeer, address: SocketAddr) -> Vec<SyncEvent> {
    let events = finish(join_js(multi, address, Replicate::default()).await).await;
    assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
    js(|| peer.event("remote-feeds"));
    assert_eq!(facts(multi).await, js_facts(&js(|| peer.feeds())));
    events
}

/// Waits until a multifeed holds this many blocks of a feed.
pub async fn held(multi: &Multifeed, key: &str, blocks: u64) -> Feed {
    let mut events = multi.events();
    loop {
        if let Some(feed) = multi.feed(key)
            && feed.downloaded() >= blocks
        {
            return feed;
        }
        events.next().await.expect("it is open");
    }
}

/// Key, length, blocks held and a digest of them, of each feed that has any: JS keeps others' feeds of nothing, and we do not.
pub type Facts = Vec<(String, u64, u64, String)>;

pub async fn facts(multi: &Multifeed) -> Facts {
    let mut facts = Vec::new();
    for feed in multi.feeds() {
        let mut digest = FeedDigest::new();
        for index in 0..feed.len() {
            if let Some(block) = feed.get(index).await.unwrap() {
                digest.update(index, &block);
            }
        }
        if feed.is_empty() {
            continue;
        }
        facts.push((feed.key().to_string(), feed.len(), feed.downloaded(), digest.finish()));
    }
    facts.sort();
    facts
}

pub fn js_facts(feeds: &[JsFeed]) -> Facts {
    let mut facts: Facts = feeds
        .iter()
        .filter(|feed| feed.length > 0)
        .map(|feed| (feed.key.clone(), feed.length, feed.downloaded, feed.hash.clone().unwrap_or_default()))
        .collect();
    facts.sort();
    facts
}

pub fn remote_feeds(events: &[SyncEvent]) -> usize {
    events.iter().filter(|event| matches!(event, SyncEvent::RemoteFeeds { .. })).count()
}

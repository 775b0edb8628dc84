//! Several of ours at once at one JS peer.

use crate::common;

use std::net::SocketAddr;
use std::time::Duration;

use common::*;
use multifeed_testkit::js::JsPeer;
use multifeed_tokio::{Feed, Multifeed, Replicate, Replication, Role, SyncTotals};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Stores that bring a feed each.
const STORES: usize = 8;
const BLOCKS: u64 = 10;

/// Brings a feed of each store to one JS peer, all at once and not live. JS offers each feed to the others before it has a block of it, and
/// hears that they do not wait for any. What it has by then is not always known to all: it ends a session whose remote waits for nothing as soon
/// as a feed is complete. Then each side says what it did not get, and the sessions after it bring that.
async fn feeds_of_many_at_once(role: Role) {
    let mut peer = js(|| JsPeer::spawn(&[]));
    let mut stores: Vec<Multifeed> = Vec::new();
    for number in 0..STORES {
        let multi = memory().await;
        multi.writer(format!("writer {number}").as_str()).await.unwrap().append_batch(vec!["block"; 10]).await.unwrap();
        stores.push(multi);
    }
    let listens = match role {
        Role::Initiator => js(|| peer.call(json!({"cmd": "listen", "address": "127.0.0.1:0"})))["address"].to_string(),
        Role::Responder => String::new(),
    };
    let mut syncs: Vec<Replication> = Vec::new();
    for multi in &stores {
        syncs.push(connect(&mut peer, multi, role, &listens).await);
    }
    let all = STORES as u64 * BLOCKS;
    let mut sent = 0;
    for sync in syncs {
        let end = ended(sync, &peer).await;
        sent += end.blocks_sent;
        // Its own feed was taken, or is said not to have been.
        assert_eq!(BLOCKS - end.blocks_sent, BLOCKS * end.not_taken, "{end:?}; {}", peer.history());
        assert!(end.blocks_received + end.missing <= all - BLOCKS, "{end:?}; {}", peer.history());
    }
    assert_eq!(held(&mut peer), sent, "{}", peer.history());
    // One after the other: first JS gets what it did not take, and then each what the others brought.
    for _ in 0..2 {
        for multi in &stores {
            let end = ended(connect(&mut peer, multi, role, &listens).await, &peer).await;
            assert_eq!((end.missing, end.not_taken), (0, 0), "{end:?}; {}", peer.history());
        }
    }
    assert_eq!(held(&mut peer), all, "{}", peer.history());
    for multi in &stores {
        let here: u64 = multi.feeds().iter().map(Feed::downloaded).sum();
        assert_eq!(here, all, "{}", peer.history());
    }
}

async fn ended(sync: Replication, peer: &JsPeer) -> SyncTotals {
    let end = timeout(Duration::from_secs(30), sync.finish()).await.expect("it hangs");
    end.unwrap_or_else(|error| panic!("{error}; {}", peer.history())).moved
}

/// The blocks that JS holds.
fn held(peer: &mut JsPeer) -> u64 {
    js(|| peer.feeds()).iter().map(|feed| feed.downloaded).sum()
}

async fn connect(peer: &mut JsPeer, multi: &Multifeed, role: Role, listens: &str) -> Replication {
    let stream = match role {
        Role::Initiator => {
            let address: SocketAddr = listens.trim_matches('"').parse().unwrap();
            TcpStream::connect(address).await.unwrap()
        }
        Role::Responder => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            js(|| peer.connect(address));
            listener.accept().await.unwrap().0
        }
    };
    multi.replicate(stream, role, Replicate::default())
}

#[test]
fn as_initiators() {
    run(feeds_of_many_at_once(Role::Initiator));
}

#[test]
fn as_responders() {
    run(feeds_of_many_at_once(Role::Responder));
}

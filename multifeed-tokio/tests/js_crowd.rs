//! Several of ours at once at one JS peer.

use crate::common;

use std::net::SocketAddr;
use std::time::Duration;

use common::*;
use multifeed_testkit::js::JsPeer;
use multifeed_tokio::{Multifeed, Replicate, Replication, Role};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Stores that bring a feed each.
const STORES: usize = 8;
const BLOCKS: u64 = 10;

/// Brings a feed of each store to one JS peer, all at once and not live. JS offers each feed to the others before it has a block of it, and
/// hears that they do not wait for any. It never closes those channels: it was still fetching when it heard that.
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
    let mut ends = Vec::new();
    for sync in syncs {
        let end = timeout(Duration::from_secs(30), sync.finish()).await.expect("it hangs");
        ends.push(end.unwrap_or_else(|error| panic!("{error}; {}", peer.history())).moved);
    }
    let all = STORES as u64 * BLOCKS;
    assert_eq!(held(&mut peer), all, "{ends:?}; {}", peer.history());
    // Each also got what the others brought.
    for end in ends {
        assert_eq!(
            (end.blocks_received, end.missing, end.not_taken),
            (all - BLOCKS, 0, 0),
            "{end:?}; {}",
            peer.history()
        );
    }
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

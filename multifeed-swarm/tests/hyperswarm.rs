//! The DHT, on loopback alone: with Rust's testnet and with JS hyperswarm 4.

use std::sync::Arc;
use std::time::Duration;

use multifeed_swarm::{Hyperswarm, HyperswarmOptions, Mode, Swarm, Testnet};
use multifeed_testkit::js::{self, JsPeer};
use multifeed_tokio::{FeedKey, Multifeed, Replicate};
use serde_json::{Value, json};

use crate::common::{connected, held, js, memory, networker, root, run, swarm, until};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

async fn testnet() -> (Testnet, Vec<String>) {
    let testnet = Testnet::start(4, 0).await.unwrap();
    let bootstrap = vec![testnet.bootstrap()[0].to_string()];
    (testnet, bootstrap)
}

async fn engine(bootstrap: &[String]) -> Arc<Hyperswarm> {
    let mut options = HyperswarmOptions::default();
    (options.bootstrap, options.loopback_only) = (bootstrap.to_vec(), true);
    Arc::new(Hyperswarm::start(options).await.unwrap())
}

/// A swarm on this DHT with a multifeed in it, which peers find.
async fn on_dht(bootstrap: &[String], multi: &Multifeed, mode: Mode) -> Swarm {
    let engine = engine(bootstrap).await;
    let swarm = swarm(networker(), vec![engine.clone()]);
    swarm.join(multi, Replicate::live(), mode).unwrap();
    tokio::time::timeout(PATIENCE, engine.settled()).await.expect("the DHT is there").unwrap();
    swarm
}

#[test]
fn peers_that_join_at_once_sync_both_ways_and_say_goodbye() {
    run(async {
        let (_testnet, bootstrap) = testnet().await;
        let (a, b) = (memory(1).await, memory(1).await);
        let (ours, theirs) = (a.writer("a").await.unwrap(), b.writer("b").await.unwrap());
        ours.append("one").await.unwrap();
        theirs.append("two").await.unwrap();
        let (swarm_a, swarm_b) = tokio::join!(on_dht(&bootstrap, &a, Mode::Both), on_dht(&bootstrap, &b, Mode::Both));
        held(&a, &theirs.key(), 1).await;
        held(&b, &ours.key(), 1).await;
        for swarm in [&swarm_a, &swarm_b] {
            let peers = until(swarm, "connected", |peers| connected(peers) == 1).await;
            let [peer] = &peers[..] else { panic!("one peer, and not itself: {peers:?}") };
            assert!(peer.came == Some("hyperswarm") || peer.found[0].engine == "hyperswarm", "{peer:?}");
        }
        ours.append("three").await.unwrap();
        held(&b, &ours.key(), 2).await;
        swarm_b.close().await;
        until(&swarm_a, "gone", |peers| connected(peers) == 0).await;
        swarm_a.close().await;
    });
}

/// A JS multifeed 6 in memory, and its feed with five blocks.
fn js_multifeed(n: u8) -> (JsPeer, FeedKey) {
    js(|| {
        js::install_hyperswarm()?;
        let mut peer = JsPeer::spawn(&["--key", &root(n).to_string(), "--live"])?;
        let key = peer.append("theirs", 5, 100, 1)?.parse()?;
        Ok((peer, key))
    })
}

/// Has a JS peer do something.
fn order(peer: &mut JsPeer, command: Value) -> Value {
    js(|| {
        let id = peer.send(command)?;
        peer.reply(id, PATIENCE)
    })
}

/// A DHT of JS nodes.
fn js_testnet() -> (JsPeer, Vec<String>) {
    let mut peer = js(|| {
        js::install_hyperswarm()?;
        JsPeer::spawn(&[])
    });
    let bootstrap = order(&mut peer, json!({"cmd": "testnet"}))["bootstrap"].clone();
    (peer, serde_json::from_value(bootstrap).unwrap())
}

#[test]
fn js_multifeed_6_on_hyperswarm_4_is_dialled_and_dials() {
    run(async {
        let (testnet, bootstrap) = js_testnet();
        for js_dials in [false, true] {
            let a = memory(1).await;
            let ours = a.writer("ours").await.unwrap();
            ours.append("from Rust").await.unwrap();
            let (mut peer, theirs) = js_multifeed(1);
            let join = json!({"cmd": "swarm", "bootstrap": bootstrap});
            // Whoever joins second finds the other.
            if !js_dials {
                order(&mut peer, join.clone());
            }
            let swarm = on_dht(&bootstrap, &a, if js_dials { Mode::Server } else { Mode::Both }).await;
            if js_dials {
                order(&mut peer, join);
            }
            held(&a, &theirs, 5).await;
            js(|| peer.wait(2, 6, PATIENCE));
            let peers = until(&swarm, "connected", |peers| connected(peers) == 1).await;
            assert_eq!((peers.len(), peers[0].came.is_some()), (1, js_dials), "{peers:?}");
            // It goes on live, both ways.
            ours.append("more").await.unwrap();
            order(&mut peer, json!({"cmd": "append", "name": "theirs", "count": 1, "from": 5}));
            held(&a, &theirs, 6).await;
            js(|| peer.wait(2, 8, PATIENCE));
            assert_eq!(order(&mut peer, json!({"cmd": "swarm-state"}))["connections"], 1);
            // We say goodbye, and JS hears it.
            swarm.close().await;
            js(|| peer.event_within("ended", PATIENCE));
            js(|| peer.close());
        }
        js(|| testnet.close());
    });
}

//! The DHT, on loopback alone: with Rust's testnet and with JS hyperswarm 4.

#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../examples/swarm.rs"]
mod example;

use std::collections::BTreeSet;
use std::future::ready;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use multifeed_swarm::{
    Discovery, Hyperswarm, HyperswarmOptions, Mode, Swarm, SwarmEvent, SwarmEvents, SwarmPeer, Testnet,
};
use multifeed_testkit::js::{self, JsPeer};
use multifeed_tokio::{FeedKey, Multifeed, NetworkerEvent, NetworkerEvents, Replicate};
use serde_json::{Value, json};

use crate::common::{
    addresses, connected, event, free_port, held, is_alone, js, lan, memory, networker, on_lan, root, run, swarm, until,
};

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

#[test]
fn one_shot_syncs_that_found_each_other_come_back_as_who_they_are() {
    run(async {
        let (_testnet, bootstrap) = testnet().await;
        let join = async |multi: &Multifeed| {
            let engine = engine(&bootstrap).await;
            let swarm = swarm(networker(), vec![engine.clone()]);
            let events = (swarm.events(), swarm.networker().events());
            swarm.join(multi, Replicate::default(), Mode::Both).unwrap();
            (swarm, events)
        };
        let (a, b) = (memory(1).await, memory(1).await);
        // As soon as a sync is done its connection ends, and the next one comes.
        let meet = async |(swarm, (mut found, mut networker)): (Swarm, (SwarmEvents, NetworkerEvents))| {
            let mut ended = 0;
            while ended < 4 {
                let event = tokio::time::timeout(PATIENCE, networker.next()).await.expect("they meet").unwrap();
                ended += usize::from(matches!(event, NetworkerEvent::Disconnected { .. }));
            }
            let mut times = 0;
            let mut next = async || tokio::select! { biased; event = found.next() => event, () = ready(()) => None };
            while let Some(event) = next().await {
                assert!(!matches!(event, SwarmEvent::Lost { .. } | SwarmEvent::Failed { .. }), "{event:?}");
                times += usize::from(matches!(event, SwarmEvent::Found { .. }));
            }
            assert!(times <= 1, "it was found {times} times");
            swarm
        };
        let (a, b) = (join(&a).await, join(&b).await);
        let (a, b) = tokio::join!(meet(a), meet(b));
        tokio::join!(a.close(), b.close());
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

#[test]
fn the_example_syncs_with_its_js_twin() {
    run(async {
        let (_testnet, bootstrap) = testnet().await;
        let [ours, theirs] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        js(|| js::install().and_then(|()| js::install_hyperswarm()));
        let mut node = Command::new("node")
            .arg(js::interop_dir().join("example-swarm.js"))
            .args([bootstrap[0].as_ref(), theirs.path()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ran = tokio::time::timeout(PATIENCE, example::swarm(&bootstrap[0], ours.path().to_str().unwrap())).await;
        // It saw the block before ours was in sync; if the example failed, it may never come.
        let mut line = String::new();
        if ran.as_ref().is_ok_and(Result::is_ok) {
            js(|| Ok(BufReader::new(node.stdout.take().unwrap()).read_line(&mut line)?));
        }
        node.kill().unwrap();
        node.wait().unwrap();
        ran.expect("it ends").unwrap();
        assert_eq!(line, "hello from Rust\n");
        // And the Rust side has what JS wrote.
        let options = multifeed_tokio::Options::default();
        let store = multifeed_tokio::Corestore::open(ours.path(), options).await.unwrap();
        let multi = Multifeed::in_corestore(&store, &multifeed_tokio::Namespace::root(), root(2)).await.unwrap();
        let mut blocks = Vec::new();
        for feed in multi.feeds() {
            blocks.push(feed.get(0).await.unwrap().unwrap());
        }
        blocks.sort();
        assert_eq!(blocks, ["hello from JS", "hello from Rust"]);
        store.close().await.unwrap();
    });
}

/// A message as cabal-core 16 writes it.
fn cabal_message(text: &str) -> String {
    let content = json!({"text": text, "channel": "default"});
    json!({"type": "chat/text", "content": content, "timestamp": 1_700_000_000_000_u64}).to_string()
}

#[test]
fn cabal_chats_both_ways() {
    run(async {
        let (_testnet, bootstrap) = testnet().await;
        for cabal_dials in [false, true] {
            let a = memory(3).await;
            let ours = a.writer("ours").await.unwrap();
            ours.append(cabal_message("one from Rust")).await.unwrap();
            let spawn = || {
                js::install_hyperswarm()?;
                JsPeer::spawn_script("hyperswarm/cabal.js", &[&bootstrap[0], &root(3).to_string()])
            };
            // Whoever joins second finds the other.
            let before = (!cabal_dials).then(|| js(spawn));
            let mode = if cabal_dials { Mode::Server } else { Mode::Client };
            let swarm = on_dht(&bootstrap, &a, mode).await;
            let mut cabal = before.unwrap_or_else(|| js(spawn));
            let reads = |cabal: &mut JsPeer, text: &str| {
                let message = js(|| cabal.event_within("message", PATIENCE));
                assert_eq!(message["text"], text);
            };
            reads(&mut cabal, "one from Rust");
            order(&mut cabal, json!({"cmd": "publish", "text": "one from Cabal"}));
            reads(&mut cabal, "one from Cabal");
            let theirs = until_feed(&a, &ours.key()).await;
            let block = held(&a, &theirs, 1).await.get(0).await.unwrap().unwrap();
            let message: Value = serde_json::from_slice(&block).unwrap();
            assert_eq!(
                (&message["type"], &message["content"]["text"]),
                (&"chat/text".into(), &"one from Cabal".into())
            );
            // It goes on.
            ours.append(cabal_message("two from Rust")).await.unwrap();
            reads(&mut cabal, "two from Rust");
            order(&mut cabal, json!({"cmd": "publish", "text": "two from Cabal"}));
            held(&a, &theirs, 2).await;
            let peers = until(&swarm, "connected", |peers| connected(peers) == 1).await;
            assert_eq!((peers.len(), peers[0].came.is_some()), (1, cabal_dials), "{peers:?}");
            js(|| cabal.close());
            swarm.close().await;
        }
    });
}

/// Waits for a feed that is not this one.
async fn until_feed(multi: &Multifeed, ours: &FeedKey) -> FeedKey {
    let mut events = multi.events();
    let found = async {
        loop {
            if let Some(feed) = multi.feeds().iter().find(|feed| feed.key() != *ours && !feed.is_empty()) {
                return feed.key();
            }
            events.next().await.expect("it is open");
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("a feed comes")
}

#[test]
fn js_that_is_killed_and_comes_back_with_the_same_key_is_there_at_once() {
    run(async {
        let (_testnet, bootstrap) = testnet().await;
        let a = memory(1).await;
        let swarm = on_dht(&bootstrap, &a, Mode::Both).await;
        let join = json!({"cmd": "swarm", "bootstrap": bootstrap, "seed": "07".repeat(32)});
        let (mut peer, theirs) = js_multifeed(1);
        order(&mut peer, join.clone());
        held(&a, &theirs, 5).await;
        js(|| peer.kill());
        // It said nothing; the new one is known by its key.
        let (mut peer, theirs) = js_multifeed(1);
        order(&mut peer, join);
        held(&a, &theirs, 5).await;
        until(&swarm, "one connection", |peers| connected(peers) == 1).await;
        js(|| peer.close());
        until(&swarm, "gone", |peers| connected(peers) == 0).await;
        swarm.close().await;
    });
}

#[test]
fn js_and_ours_that_dial_each_other_keep_one_connection() {
    run(async {
        let (_testnet, bootstrap) = testnet().await;
        // The larger key decides: each side has it in some rounds, as keys are drawn.
        for _ in 0..3 {
            let a = memory(1).await;
            let ours = a.writer("ours").await.unwrap();
            ours.append("from Rust").await.unwrap();
            let (mut peer, theirs) = js_multifeed(1);
            let id = js(|| peer.send(json!({"cmd": "swarm", "bootstrap": bootstrap})));
            let swarm = on_dht(&bootstrap, &a, Mode::Both).await;
            js(|| peer.reply(id, PATIENCE));
            held(&a, &theirs, 5).await;
            js(|| peer.wait(2, 6, PATIENCE));
            until(&swarm, "one connection", |peers| {
                peers.iter().map(|peer| peer.connections.len()).sum::<usize>() == 1
            })
            .await;
            order(&mut peer, json!({"cmd": "append", "name": "theirs", "count": 1, "from": 5}));
            held(&a, &theirs, 6).await;
            assert_eq!(order(&mut peer, json!({"cmd": "swarm-state"}))["connections"], 1);
            swarm.close().await;
            js(|| peer.close());
        }
    });
}

#[test]
fn a_topic_that_joins_late_and_one_that_leaves() {
    run(async {
        let (_testnet, bootstrap) = testnet().await;
        let (a, b) = ([memory(1).await, memory(2).await], [memory(1).await, memory(2).await]);
        let engine_a = engine(&bootstrap).await;
        let swarm_a = swarm(networker(), vec![engine_a.clone()]);
        swarm_a.join(&a[0], Replicate::live(), Mode::Server).unwrap();
        engine_a.settled().await.unwrap();
        let swarm_b = on_dht(&bootstrap, &b[0], Mode::Client).await;
        let peers = until(&swarm_b, "connected", |peers| connected(peers) == 1).await;
        let before = peers[0].connections.clone();
        // The connection that is there carries the second one too.
        swarm_a.join(&a[1], Replicate::live(), Mode::Server).unwrap();
        engine_a.settled().await.unwrap();
        swarm_b.join(&b[1], Replicate::live(), Mode::Client).unwrap();
        let writer = a[1].writer("w").await.unwrap();
        writer.append("x").await.unwrap();
        held(&b[1], &writer.key(), 1).await;
        let peers = until(&swarm_b, "both topics", |peers| peers[0].topics.len() == 2).await;
        assert_eq!((peers.len(), &peers[0].connections), (1, &before));
        // One that is left is withdrawn: a peer that comes later does not find it.
        assert!(swarm_a.leave(&root(1)).await);
        engine_a.settled().await.unwrap();
        let (c, engine_c) = (memory(1).await, engine(&bootstrap).await);
        let swarm_c = swarm(networker(), vec![engine_c.clone()]);
        swarm_c.join(&c, Replicate::live(), Mode::Client).unwrap();
        engine_c.settled().await.unwrap();
        assert!(swarm_c.peers().is_empty(), "{:?}", swarm_c.peers());
        writer.append("y").await.unwrap();
        held(&b[1], &writer.key(), 2).await;
        for swarm in [swarm_a, swarm_b, swarm_c] {
            swarm.close().await;
        }
        // Nobody is left in it.
        assert!(engine_a.settled().await.is_err());
    });
}

#[test]
fn a_bootstrap_node_that_comes_up_later_is_found() {
    run(async {
        let (dead, later) = (free_port(), free_port());
        let bootstrap = [dead, later].map(|port| format!("127.0.0.1:{port}"));
        let (a, b) = (memory(1).await, memory(1).await);
        let mut swarms = Vec::new();
        for multi in [&a, &b] {
            let swarm = swarm(networker(), vec![engine(&bootstrap).await]);
            let mut events = swarm.events();
            swarm.join(multi, Replicate::live(), Mode::Both).unwrap();
            let trouble = event(&mut events, |event| matches!(event, SwarmEvent::Trouble { .. })).await;
            let SwarmEvent::Trouble { engine: "hyperswarm", message } = trouble else { panic!("{trouble:?}") };
            assert!(message.contains(&bootstrap[1]), "{message}");
            swarms.push(swarm);
        }
        let _testnet = Testnet::start(4, later).await.unwrap();
        let writer = a.writer("w").await.unwrap();
        writer.append("x").await.unwrap();
        held(&b, &writer.key(), 1).await;
        for swarm in swarms {
            swarm.close().await;
        }
    });
}

/// One on the local network, one on the DHT, one by address, and one between them.
#[test]
fn one_who_uses_all_engines_has_all_in_sync() {
    run(async {
        let (_testnet, bootstrap) = testnet().await;
        let network = free_port();
        let multis = [memory(1).await, memory(1).await, memory(1).await, memory(1).await];
        let mut writers = Vec::new();
        for multi in &multis {
            let writer = multi.writer("w").await.unwrap();
            writer.append("x").await.unwrap();
            writers.push(writer.key());
        }
        let networker_0 = networker();
        let (listener, address) = addresses(&[]).await;
        let engines: Vec<Arc<dyn Discovery>> =
            vec![lan(&networker_0, network).await, engine(&bootstrap).await, listener];
        let mut swarms = vec![swarm(networker_0, engines)];
        swarms[0].join(&multis[0], Replicate::live(), Mode::Both).unwrap();
        swarms.push(on_lan(network, &multis[1]).await);
        swarms.push(on_dht(&bootstrap, &multis[2], Mode::Both).await);
        swarms.push(swarm(networker(), vec![addresses(&[address]).await.0]));
        swarms[3].join(&multis[3], Replicate::live(), Mode::Both).unwrap();
        for multi in &multis {
            for key in &writers {
                held(multi, key, 1).await;
            }
        }
        for swarm in swarms {
            swarm.close().await;
        }
    });
}

/// Whichever engine is first, the two end with one connection over TCP, and know each other as one peer.
#[test]
fn a_peer_on_the_lan_and_on_the_dht_is_one_and_is_reached_by_the_lan() {
    run(async {
        let (_testnet, bootstrap) = testnet().await;
        let topic = root(1).discovery_key();
        for lan_first in [false, true] {
            let network = free_port();
            let multis = [memory(1).await, memory(1).await];
            let mut swarms = Vec::new();
            for multi in &multis {
                let networker = networker();
                let (lan, dht) = (lan(&networker, network).await, engine(&bootstrap).await);
                let swarm = swarm(networker, vec![dht.clone(), lan]);
                swarm.join(multi, Replicate::live(), Mode::Both).unwrap();
                if lan_first {
                    dht.leave(&topic);
                }
                // The second one finds the first.
                dht.settled().await.unwrap();
                swarms.push((swarm, dht));
            }
            if lan_first {
                for (swarm, _) in &swarms {
                    until(swarm, "connected", |peers| connected(peers) == 1).await;
                }
                for (_, dht) in &swarms {
                    dht.join(topic, Mode::Both);
                    dht.settled().await.unwrap();
                }
            }
            let is_one = |peers: &[SwarmPeer]| {
                let [peer] = peers else { return false };
                peer.connections.len() == 1 && peer.came.or(peer.dialled) == Some("lan")
            };
            let is_found_by_both = |peers: &[SwarmPeer]| {
                let engines: BTreeSet<_> =
                    peers.iter().flat_map(|peer| &peer.found).map(|found| found.engine).collect();
                is_one(peers) && engines.len() == 2
            };
            until(&swarms[1].0, "one peer, found by both and reached by the LAN", is_found_by_both).await;
            until(&swarms[0].0, "one peer, reached by the LAN", is_one).await;
            let writer = multis[0].writer("w").await.unwrap();
            writer.append("x").await.unwrap();
            held(&multis[1], &writer.key(), 1).await;
            for (swarm, _) in swarms {
                swarm.close().await;
            }
        }
    });
}

/// Somebody on the LAN says to be a peer that is connected by the DHT.
#[test]
fn a_stolen_key_cuts_nobody() {
    run(async {
        let (_testnet, bootstrap) = testnet().await;
        let network = free_port();
        let (a, b) = (memory(1).await, memory(1).await);
        let swarm_b = on_dht(&bootstrap, &b, Mode::Server).await;
        let networker = networker();
        let engines: Vec<Arc<dyn Discovery>> = vec![engine(&bootstrap).await, lan(&networker, network).await];
        let swarm_a = swarm(networker, engines);
        swarm_a.join(&a, Replicate::live(), Mode::Client).unwrap();
        let before = until(&swarm_a, "connected", |peers| connected(peers) == 1).await;
        let foreign = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let daemon = crate::lan::forger(network);
        let mut stolen = crate::lan::text(1, root(1).discovery_key());
        stolen[1].1 = swarm_b.networker().public_key().to_string();
        crate::lan::announce(&daemon, foreign.local_addr().unwrap().port(), "127.0.0.1", &stolen);
        // It is tried, and hangs up.
        let accepted = tokio::time::timeout(PATIENCE, foreign.accept()).await.expect("it is tried");
        drop(accepted);
        let peers = until(&swarm_a, "two ways", |peers| peers[0].found.len() == 2).await;
        assert_eq!((peers.len(), &peers[0].connections), (1, &before[0].connections));
        let writer = b.writer("w").await.unwrap();
        writer.append("x").await.unwrap();
        held(&a, &writer.key(), 1).await;
        let peers = swarm_a.peers();
        assert_eq!((peers.len(), &peers[0].connections), (1, &before[0].connections));
        daemon.shutdown().unwrap();
        swarm_a.close().await;
        swarm_b.close().await;
    });
}

#[cfg(target_os = "linux")]
#[test]
fn closing_and_dropping_leave_no_thread_and_no_socket() {
    if !is_alone("hyperswarm::closing_and_dropping_leave_no_thread_and_no_socket") {
        return;
    }
    run(async {
        let (_testnet, bootstrap) = testnet().await;
        let left = || (crate::common::threads("multifeed-dht"), std::fs::read_dir("/proc/self/fd").unwrap().count());
        let (a, b) = (memory(1).await, memory(1).await);
        let before = left();
        for round in 0..4 {
            let ours = on_dht(&bootstrap, &a, Mode::Both).await;
            let theirs = on_dht(&bootstrap, &b, Mode::Both).await;
            until(&ours, "connected", |peers| connected(peers) == 1).await;
            if round % 2 == 0 {
                ours.close().await;
                theirs.close().await;
            }
            drop((ours, theirs));
            let begun = std::time::Instant::now();
            while left() != before {
                assert!(begun.elapsed() < PATIENCE, "{:?}, and {before:?} before", left());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
}

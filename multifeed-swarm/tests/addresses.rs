//! Peers that are given by address, with JS too.

use multifeed_swarm::{FoundState, LostReason, Mode, SwarmEvent, SwarmPeer};
use multifeed_testkit::js::{JsPeer, TIMEOUT};
use multifeed_tokio::{EndReason, NetworkerEvent, Replicate};
use serde_json::json;

use crate::common::{addresses, addresses_on, connected, held, js, memory, networker, root, run, swarm, until};

#[test]
fn peers_by_address_sync_both_ways_and_one_comes_back() {
    run(async {
        let (a, b) = (memory(1).await, memory(1).await);
        let (ours, theirs) = (a.writer("a").await.unwrap(), b.writer("b").await.unwrap());
        ours.append("one").await.unwrap();
        theirs.append("two").await.unwrap();
        let (engine_b, address) = addresses(&[]).await;
        let swarm_b = swarm(networker(), vec![engine_b]);
        swarm_b.join(&b, Replicate::live(), Mode::Both).unwrap();
        let (engine_a, _) = addresses(std::slice::from_ref(&address)).await;
        let swarm_a = swarm(networker(), vec![engine_a]);
        swarm_a.join(&a, Replicate::live(), Mode::Both).unwrap();
        held(&a, &theirs.key(), 1).await;
        held(&b, &ours.key(), 1).await;
        let peers = until(&swarm_a, "connected", |peers| connected(peers) == 1).await;
        let [peer] = &peers[..] else { panic!("{peers:?}") };
        assert_eq!((peer.found[0].engine, peer.found[0].route.to_string()), ("addresses", address.clone()));
        assert_eq!((peer.key, peer.kept), (Some(swarm_b.networker().public_key()), true));
        // Who came is listed too.
        let peers = swarm_b.peers();
        assert_eq!((peers.len(), peers[0].came, peers[0].id), (1, Some("addresses"), None));
        // It goes, and another one comes in its place.
        swarm_b.close().await;
        until(&swarm_a, "gone", |peers| connected(peers) == 0 && peers[0].failures > 6).await;
        let (engine_b, _) = addresses_on(&address, &[]).await;
        let swarm_b = swarm(networker(), vec![engine_b]);
        swarm_b.join(&b, Replicate::live(), Mode::Both).unwrap();
        ours.append("three").await.unwrap();
        held(&b, &ours.key(), 2).await;
        swarm_a.close().await;
        swarm_b.close().await;
        let left = [&swarm_a, &swarm_b].map(|swarm| swarm.networker().connections());
        assert_eq!(left, [0, 0]);
        // The socket is free again.
        tokio::net::TcpListener::bind(&address).await.unwrap();
        a.close().await.unwrap();
        b.close().await.unwrap();
    });
}

/// Two dials meet one peer: one of them is in vain, and that is no fault of the peer.
#[test]
fn a_peer_that_is_given_by_several_addresses_is_one() {
    run(async {
        for _ in 0..5 {
            let (a, b) = (memory(1).await, memory(1).await);
            let (engine_b, address) = addresses_on("127.0.0.1:0", &[]).await;
            let swarm_b = swarm(networker(), vec![engine_b]);
            swarm_b.join(&b, Replicate::live(), Mode::Both).unwrap();
            let others = [address.clone(), address.replace("127.0.0.1", "localhost")];
            let (engine_a, _) = addresses(&others).await;
            let swarm_a = swarm(networker(), vec![engine_a]);
            let mut events = swarm_a.events();
            swarm_a.join(&a, Replicate::live(), Mode::Both).unwrap();
            let is_one =
                |peers: &[SwarmPeer]| peers.len() == 1 && peers[0].found.len() == 2 && peers[0].connections.len() == 1;
            until(&swarm_a, "one peer", is_one).await;
            let writer = b.writer("w").await.unwrap();
            writer.append("x").await.unwrap();
            held(&a, &writer.key(), 1).await;
            swarm_a.close().await;
            let (mut same, mut failed) = (0, 0);
            while let Some(event) = events.next().await {
                same += usize::from(matches!(event, SwarmEvent::Lost { reason: LostReason::Same, .. }));
                failed += usize::from(matches!(event, SwarmEvent::Failed { .. }));
            }
            assert_eq!((same, failed), (1, 0));
            swarm_b.close().await;
        }
    });
}

#[test]
fn one_that_is_closed_leaves_also_if_it_never_met_anybody() {
    run(async {
        let (engine, address) = addresses_on("[::]:0", &[]).await;
        let swarm_a = swarm(networker(), vec![engine]);
        let (a, b) = (memory(1).await, memory(1).await);
        swarm_a.join(&a, Replicate::live(), Mode::Both).unwrap();
        a.close().await.unwrap();
        let begun = std::time::Instant::now();
        while !swarm_a.networker().roots().is_empty() {
            assert!(begun.elapsed() < TIMEOUT, "it has not left");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        // Its place is free, and who leaves and comes back is not taken for it.
        let again = memory(1).await;
        swarm_a.join(&again, Replicate::live(), Mode::Both).unwrap();
        assert!(swarm_a.leave(&root(1)).await);
        swarm_a.join(&again, Replicate::live(), Mode::Both).unwrap();
        // Over IPv4, on a socket of IPv6.
        let ours = address.replace("[::]", "127.0.0.1");
        let (engine, _) = addresses(&[ours]).await;
        let swarm_b = swarm(networker(), vec![engine]);
        swarm_b.join(&b, Replicate::live(), Mode::Both).unwrap();
        until(&swarm_b, "connected", |peers| connected(peers) == 1).await;
        assert_eq!(swarm_a.networker().roots(), [root(1)]);
        swarm_a.close().await;
        swarm_b.close().await;
    });
}

#[test]
fn an_own_address_is_dialled_once() {
    run(async {
        let a = memory(1).await;
        let (engine, own) = addresses(&[]).await;
        let (dialler, _) = addresses(std::slice::from_ref(&own)).await;
        let swarm = swarm(networker(), vec![engine, dialler]);
        let mut events = swarm.networker().events();
        swarm.join(&a, Replicate::live(), Mode::Both).unwrap();
        until(&swarm, "found out", |peers| peers.iter().any(|peer| peer.state == FoundState::Own)).await;
        // Both ends of it.
        for _ in 0..2 {
            loop {
                let event = events.next().await.unwrap();
                if let NetworkerEvent::Disconnected { reason, .. } = event {
                    assert_eq!(reason, Some(EndReason::OwnKey));
                    break;
                }
            }
        }
        swarm.close().await;
        while let Some(event) = events.next().await {
            assert!(!matches!(event, NetworkerEvent::Disconnected { .. }), "again: {event:?}");
        }
    });
}

#[test]
fn a_topic_that_joins_late_starts_on_what_is_there_and_one_that_leaves_ends_alone() {
    run(async {
        let (a, b) = ([memory(1).await, memory(2).await], [memory(1).await, memory(2).await]);
        let (engine, address) = addresses(&[]).await;
        let swarm_b = swarm(networker(), vec![engine]);
        let (engine, _) = addresses(&[address]).await;
        let swarm_a = swarm(networker(), vec![engine]);
        for multi in &b {
            swarm_b.join(multi, Replicate::live(), Mode::Both).unwrap();
        }
        swarm_a.join(&a[0], Replicate::live(), Mode::Both).unwrap();
        let peers = until(&swarm_a, "connected", |peers| connected(peers) == 1).await;
        swarm_a.join(&a[1], Replicate::live(), Mode::Both).unwrap();
        let writer = b[1].writer("w").await.unwrap();
        writer.append("x").await.unwrap();
        held(&a[1], &writer.key(), 1).await;
        let now = swarm_a.peers();
        assert_eq!(now[0].connections, peers[0].connections, "one connection for both");
        assert_eq!(now[0].topics.len(), 2);
        assert!(swarm_a.leave(&root(1)).await && !swarm_a.leave(&root(1)).await);
        writer.append("y").await.unwrap();
        held(&a[1], &writer.key(), 2).await;
        assert_eq!(swarm_a.peers()[0].connections, peers[0].connections);
        // With the last topic the peer goes.
        assert!(swarm_a.leave(&root(2)).await);
        until(&swarm_b, "gone", <[_]>::is_empty).await;
        assert!(swarm_a.peers().is_empty());
        swarm_a.close().await;
        swarm_b.close().await;
    });
}

#[test]
fn js_multifeed_6_is_dialled_and_dials() {
    run(async {
        for js_dials in [false, true] {
            let a = memory(1).await;
            let ours = a.writer("ours").await.unwrap();
            ours.append("from Rust").await.unwrap();
            let mut peer = js(|| JsPeer::spawn(&["--key", &root(1).to_string(), "--live"]));
            let append = json!({"cmd": "append", "name": "w", "count": 5, "size": 100, "seed": 1});
            let theirs = js(|| peer.call(append))["key"].as_str().unwrap().parse().unwrap();
            let peers = match js_dials {
                true => Vec::new(),
                false => {
                    let reply = js(|| peer.call(json!({"cmd": "listen", "address": "127.0.0.1:0"})));
                    vec![reply["address"].as_str().unwrap().to_owned()]
                }
            };
            let (engine, address) = addresses(&peers).await;
            let swarm = swarm(networker(), vec![engine]);
            swarm.join(&a, Replicate::live(), Mode::Both).unwrap();
            if js_dials {
                js(|| peer.connect(address.parse().unwrap()));
            }
            held(&a, &theirs, 5).await;
            js(|| peer.wait(2, 6, TIMEOUT));
            let connected = until(&swarm, "connected", |peers| connected(peers) == 1).await;
            assert_eq!(connected[0].came.is_some(), js_dials);
            // The network fails.
            js(|| peer.call(json!({"cmd": "destroy", "reset": true})));
            ours.append("more").await.unwrap();
            if js_dials {
                js(|| peer.connect(address.parse().unwrap()));
            }
            js(|| peer.wait(2, 7, TIMEOUT));
            swarm.close().await;
            js(|| peer.close());
        }
    });
}

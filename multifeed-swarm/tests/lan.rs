//! The local network, as far as loopback is one: multicast DNS on a port of each test's own.

use std::time::Duration;

use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};
use multifeed_swarm::{LostReason, Mode, SwarmEvent};
use multifeed_tokio::{DiscoveryKey, NetworkerEvent, Replicate};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

#[cfg(target_os = "linux")]
use crate::common::threads;
use crate::common::{
    connected, event, free_port, held, is_alone, lan, memory, networker, on_lan, root, run, swarm, until,
};

#[test]
fn peers_find_each_other_and_sync_both_ways() {
    run(async {
        let port = free_port();
        let (a, b) = (memory(1).await, memory(1).await);
        let (ours, theirs) = (a.writer("a").await.unwrap(), b.writer("b").await.unwrap());
        ours.append("one").await.unwrap();
        theirs.append("two").await.unwrap();
        let (swarm_a, swarm_b) = (on_lan(port, &a).await, on_lan(port, &b).await);
        held(&a, &theirs.key(), 1).await;
        held(&b, &ours.key(), 1).await;
        for (swarm, other) in [(&swarm_a, &swarm_b), (&swarm_b, &swarm_a)] {
            let peers = until(swarm, "found", |peers| peers.iter().any(|peer| !peer.found.is_empty())).await;
            assert_eq!(peers.len(), 1, "one peer, and not itself: {peers:?}");
            assert_eq!(peers[0].key, Some(other.networker().public_key()));
            assert_eq!((peers[0].found[0].engine, peers[0].topics.len()), ("lan", 1));
        }
        // Both may have dialled: one connection stays.
        until(&swarm_a, "one connection", |peers| peers[0].connections.len() == 1).await;
        let mut events = swarm_a.events();
        swarm_b.close().await;
        // By its goodbye, or, as that counts a second later, since it is dialled in vain by then.
        event(&mut events, |event| matches!(event, SwarmEvent::Lost { .. })).await;
        swarm_a.close().await;
        while events.next().await.is_some() {}
    });
}

#[test]
fn many_topics_and_one_that_joins_late_and_leaves() {
    run(async {
        let port = free_port();
        let mut multis = Vec::new();
        for n in 0..30 {
            multis.push([memory(n).await, memory(n).await]);
        }
        let (swarm_a, swarm_b) = (on_lan(port, &multis[0][0]).await, on_lan(port, &multis[0][1]).await);
        until(&swarm_a, "connected", |peers| connected(peers) == 1).await;
        let mut events = swarm_a.events();
        for [a, b] in &multis[1..] {
            swarm_a.join(a, Replicate::live(), Mode::Both).unwrap();
            swarm_b.join(b, Replicate::live(), Mode::Both).unwrap();
        }
        let peers = until(&swarm_a, "all topics", |peers| peers[0].topics.len() == 30).await;
        assert_eq!(peers.len(), 1, "{peers:?}");
        for n in 1..30 {
            swarm_b.leave(&root(n)).await;
        }
        until(&swarm_a, "one topic", |peers| peers[0].topics.len() == 1).await;
        assert_eq!(swarm_a.peers()[0].connections.len(), 1, "the connection goes on");
        // Its announcements were replaced twice: it was never gone meanwhile.
        while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
            assert!(!matches!(event, SwarmEvent::Lost { .. }), "{event:?}");
        }
        // One that finds nobody at first: it is announced, or was before it joined here.
        swarm_b.join(&multis[7][1], Replicate::live(), Mode::Both).unwrap();
        until(&swarm_a, "two topics", |peers| peers[0].topics.len() == 2).await;
        swarm_a.close().await;
        swarm_b.close().await;
    });
}

#[test]
fn a_server_alone_dials_nobody_and_a_client_alone_is_found_by_nobody() {
    run(async {
        let port = free_port();
        let multis = [memory(1).await, memory(1).await, memory(1).await];
        let mut swarms = Vec::new();
        for (multi, mode) in multis.iter().zip([Mode::Server, Mode::Server, Mode::Client]) {
            let networker = networker();
            let lan = lan(&networker, port).await;
            let swarm = swarm(networker, vec![lan]);
            swarm.join(multi, Replicate::live(), mode).unwrap();
            swarms.push(swarm);
        }
        let peers = until(&swarms[2], "both", |peers| connected(peers) == 2).await;
        assert!(peers.iter().all(|peer| !peer.found.is_empty()));
        for server in &swarms[..2] {
            let peers = until(server, "one who came", |peers| connected(peers) == 1).await;
            assert!(peers.iter().all(|peer| peer.found.is_empty() && peer.came == Some("lan")), "{peers:?}");
        }
        for swarm in &swarms {
            swarm.close().await;
        }
    });
}

/// An announcement, as anyone on the network can make one.
pub fn announce(daemon: &ServiceDaemon, port: u16, address: &str, text: &[(&str, String)]) {
    let name = format!("forged-{port}-{}", text.len());
    let host = format!("{name}.local.");
    let mut service = ServiceInfo::new("_multifeed._tcp.local.", &name, &host, address, port, text).unwrap();
    service.set_requires_probe(false);
    daemon.register(service).unwrap();
}

pub fn forger(mdns_port: u16) -> ServiceDaemon {
    let daemon = ServiceDaemon::new_with_port(mdns_port).unwrap();
    daemon.disable_interface(IfKind::All).unwrap();
    daemon.enable_interface(IfKind::LoopbackV4).unwrap();
    daemon
}

pub fn text(key: u8, topic: DiscoveryKey) -> Vec<(&'static str, String)> {
    vec![("v", "1".to_owned()), ("k", format!("{key:02x}").repeat(32)), ("t0", topic.to_string())]
}

#[test]
fn forged_announcements_cost_a_few_dials_and_others_go_on() {
    run(async {
        let port = free_port();
        let (a, b) = (memory(1).await, memory(1).await);
        let (swarm_a, swarm_b) = (on_lan(port, &a).await, on_lan(port, &b).await);
        until(&swarm_a, "connected", |peers| connected(peers) == 1).await;
        let topic = root(1).discovery_key();
        // Somebody else's service, which hears a handshake and no more, and a port where nobody listens.
        let foreign = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let foreign_port = foreign.local_addr().unwrap().port();
        let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = foreign.accept().await {
                let mut bytes = Vec::new();
                let _ = tokio::time::timeout(Duration::from_millis(200), socket.read_to_end(&mut bytes)).await;
                drop(sender.send(bytes));
            }
        });
        let daemon = forger(port);
        let mut events = swarm_a.events();
        announce(&daemon, foreign_port, "127.0.0.1", &text(1, topic));
        announce(&daemon, 9, "127.0.0.1", &text(2, topic));
        // A peer's key at another address: the peer that answers there has to prove it.
        let theirs = swarm_b.networker().public_key();
        let mut stolen = text(3, topic);
        stolen[1].1 = theirs.to_string();
        stolen.push(("x", String::new()));
        announce(&daemon, foreign_port, "127.0.0.1", &stolen);
        // Our own key, another version, and no topic of ours.
        let ours = swarm_a.networker().public_key();
        let mut own = text(4, topic);
        own[1].1 = ours.to_string();
        announce(&daemon, 10, "127.0.0.1", &own);
        let mut other = text(5, topic);
        other[0].1 = "2".to_owned();
        announce(&daemon, 11, "127.0.0.1", &other);
        announce(&daemon, 12, "127.0.0.1", &text(6, root(9).discovery_key()));
        let mut garbage = text(7, topic);
        garbage[1].1 = "\u{1F600}".repeat(20);
        announce(&daemon, 13, "127.0.0.1", &garbage);
        for key in [1, 2] {
            let is_it = |event: &SwarmEvent| matches!(event, SwarmEvent::Found { key: Some(found), .. } if *found.as_bytes() == [key; 32]);
            event(&mut events, is_it).await;
        }
        for _ in 0..2 {
            event(&mut events, |event| matches!(event, SwarmEvent::Lost { reason: LostReason::GivenUp, .. })).await;
        }
        // The stranger was shown no root key, and no more than the first message of a handshake for each try.
        let mut tries = 0;
        while let Ok(bytes) = heard.try_recv() {
            tries += 1;
            assert!(bytes.len() < 200, "{} bytes", bytes.len());
            assert!(!bytes.windows(32).any(|part| part == [1; 32]), "the root key");
        }
        assert!((1..=10).contains(&tries), "{tries} tries");
        let keys: Vec<_> = swarm_a.peers().into_iter().filter_map(|peer| peer.key).collect();
        assert_eq!(keys, [theirs], "all others are nobody");
        // The true one is there all the while.
        let writer = b.writer("w").await.unwrap();
        writer.append("x").await.unwrap();
        held(&a, &writer.key(), 1).await;
        daemon.shutdown().unwrap();
        swarm_a.close().await;
        swarm_b.close().await;
    });
}

/// The peer of a stolen address is at another one too.
#[test]
fn a_stolen_key_hides_nobody() {
    run(async {
        let port = free_port();
        let (a, b) = (memory(1).await, memory(1).await);
        let their_networker = networker();
        let theirs = their_networker.public_key();
        // The thief was there first.
        let daemon = forger(port);
        let mut stolen = text(1, root(1).discovery_key());
        stolen[1].1 = theirs.to_string();
        announce(&daemon, 9, "127.0.0.1", &stolen);
        // It only looks, so that it has to be the one who dials.
        let networker = networker();
        let engine = lan(&networker, port).await;
        let swarm_a = swarm(networker, vec![engine]);
        let mut events = swarm_a.networker().events();
        swarm_a.join(&a, Replicate::live(), Mode::Client).unwrap();
        until(&swarm_a, "tried", |peers| peers.iter().any(|peer| peer.failures > 0)).await;
        let engine = lan(&their_networker, port).await;
        let swarm_b = swarm(their_networker, vec![engine]);
        swarm_b.join(&b, Replicate::live(), Mode::Server).unwrap();
        until(&swarm_a, "connected", |peers| connected(peers) == 1).await;
        while !matches!(events.next().await, Some(NetworkerEvent::Ready { .. })) {}
        daemon.shutdown().unwrap();
        swarm_a.close().await;
        swarm_b.close().await;
    });
}

#[cfg(target_os = "linux")]
#[test]
fn closing_and_dropping_leave_no_thread_and_no_socket() {
    if !is_alone("lan::closing_and_dropping_leave_no_thread_and_no_socket") {
        return;
    }
    run(async {
        let sockets = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let a = memory(1).await;
        let before = (threads("mDNS_daemon"), sockets());
        for round in 0..6 {
            let port = free_port();
            let swarm = on_lan(port, &a).await;
            if round % 2 == 0 {
                swarm.close().await;
                assert_eq!(sockets(), before.1, "after closing");
            }
            drop(swarm);
            // A thread that is done is there for a moment more.
            let begun = std::time::Instant::now();
            while (threads("mDNS_daemon"), sockets()) != before {
                assert!(begun.elapsed() < Duration::from_secs(20), "{} {}", threads("mDNS_daemon"), sockets());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
}
